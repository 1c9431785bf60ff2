# syntax=docker/dockerfile:1.7

# The build runs on the builder's own platform and cross-compiles: Go needs no emulation for that.
FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod \
    go mod download
# .git comes along, so that `dpopgate version` can name the commit.
COPY . .
ARG TARGETOS TARGETARCH
ENV GOOS=$TARGETOS GOARCH=$TARGETARCH
# ./test runs this same go build line; a test in cmd/dpopgate compares the two.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/dpopgate ./cmd/dpopgate

# No shell, no package manager, user 65532; CA certificates and time zones are there.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/dpopgate /dpopgate
# The nonroot user's own folder: where the relative paths of a config (an SQLite file, certificates) may be written.
WORKDIR /home/nonroot
# 80 and 443 serve. The admin listener is on loopback inside the container, so 9180 is for the health check alone.
EXPOSE 80 443
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/dpopgate", "healthcheck"]
ENTRYPOINT ["/dpopgate"]
CMD ["serve", "-c", "/etc/dpopgate/dpopgate.yaml"]

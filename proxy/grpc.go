package proxy

import (
	"io"
	"net/http"
	"strconv"
	"strings"
)

// isGRPC says whether a message is one of gRPC.
func isGRPC(h http.Header) bool {
	kind := h["Content-Type"]
	return len(kind) == 1 && strings.HasPrefix(kind[0], "application/grpc")
}

// Codes of gRPC (https://grpc.io/docs/guides/status-codes/).
const (
	grpcUnavailable     = 14
	grpcUnauthenticated = 16
)

// call is the body of an answer of gRPC. When the gateway ends it, it ends as if it were whole, so that a status can
// follow: a stream that breaks off tells a client nothing, and it might call again and again.
type call struct {
	io.ReadCloser
	out *counter
}

func (c *call) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err != nil && err != io.EOF && c.out.cut.Load() {
		c.out.parted, err = true, io.EOF
	}
	return n, err
}

// partingStatus puts the status of a call that the gateway has ended into its trailer, in place of the upstream's.
func partingStatus(h http.Header, f *refusal) {
	code := grpcUnauthenticated
	if f.status == http.StatusServiceUnavailable {
		code = grpcUnavailable
	}
	for _, name := range []string{"Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin"} {
		delete(h, name)
		delete(h, http.TrailerPrefix+name)
	}
	h[http.TrailerPrefix+"Grpc-Status"] = []string{strconv.Itoa(code)}
	h[http.TrailerPrefix+"Grpc-Message"] = []string{f.description}
}

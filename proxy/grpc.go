package proxy

import (
	"io"
	"net/http"
	"strings"
)

// isGRPC says whether a message is one of gRPC, which gRPC-Web is not: that ends in its body.
func isGRPC(h http.Header) bool {
	kind := h["Content-Type"]
	if len(kind) != 1 {
		return false
	}
	rest, ok := strings.CutPrefix(kind[0], "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// grpcCode is the code of gRPC that stands for a status, in the words of its own table
// (https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md).
func grpcCode(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "13" // INTERNAL
	case http.StatusUnauthorized:
		return "16" // UNAUTHENTICATED
	case http.StatusForbidden:
		return "7" // PERMISSION_DENIED
	case http.StatusNotFound:
		return "12" // UNIMPLEMENTED
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return "14" // UNAVAILABLE
	}
	return "2" // UNKNOWN
}

// grpcRefusal makes a header a refusal as gRPC has them: all in the header, which clients show to who calls, challenge
// and nonce included. There is no body.
func grpcRefusal(h http.Header, status int, name, description string) {
	h["Content-Type"] = []string{"application/grpc"}
	h["Grpc-Status"] = []string{grpcCode(status)}
	h["Grpc-Message"] = []string{strings.ReplaceAll(name+": "+description, "%", "%25")}
}

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

// part puts the status of a call that the gateway has ended into its trailer, in place of the upstream's.
func part(h http.Header, f *refusal) {
	for _, name := range []string{"Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin"} {
		delete(h, name)
		delete(h, http.TrailerPrefix+name)
	}
	h[http.TrailerPrefix+"Grpc-Status"] = []string{grpcCode(f.status)}
	h[http.TrailerPrefix+"Grpc-Message"] = []string{f.description}
}

package proxy

import (
	"io"
	"net/http"
	"strings"
)

// mayRepeat says whether a request without a body may be sent twice when a connection breaks.
func mayRepeat(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// repeatKeys are the fields that make Transport believe that a request may be sent twice.
var repeatKeys = []string{"Idempotency-Key", "X-Idempotency-Key"}

// sendOnce keeps Transport from sending a request twice on its own, and its body from becoming another request.
//
// Over HTTP/1 Transport repeats what has no body and is safe, or has a key that says so; it looks for the key by its
// canonical name, and sends names as they are, so another spelling hides it. OPTIONS, which it takes for safe, gets an
// empty body that Transport cannot rewind: it is looked into first for methods that usually have none, so nothing of it
// is seen on the wire. POST cannot have that, as it would become a chunked one. Over HTTP/2, where no request without a
// body is safe from it, all get that body: there it is an empty DATA frame.
func sendOnce(r *http.Request, http1 bool) {
	switch {
	case r.Body != nil:
		// A server that does not expect a body here could take it for the next request (CL.0): let it be the last one.
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions:
			r.Close = true
		}
	case mayRepeat(r.Method):
	case http1 && r.Method != http.MethodOptions:
		for _, name := range repeatKeys {
			if values, ok := r.Header[name]; ok {
				delete(r.Header, name)
				r.Header[strings.ToLower(name)] = values
			}
		}
	default:
		r.Body = unrepeatable{}
	}
}

// unrepeatable is an empty body that is not http.NoBody.
type unrepeatable struct{}

func (unrepeatable) Read([]byte) (int, error) { return 0, io.EOF }
func (unrepeatable) Close() error             { return nil }

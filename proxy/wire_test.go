package proxy_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
)

const wireYAML = `
public_urls: [https://api.example.test]
listen: {http: "127.0.0.1:0"}
store: {sqlite: unused.db}
dpop: {nonce: "off"}
routes:
  - {match: /v1/any/, upstream: "${UPSTREAM}"}
`

// SIGNED in the bytes of a connection stands for the field lines of a token and of a fresh proof for this request.
var wireRequest = dpop.Claims{Method: "POST", URL: apiURL + "/v1/any/x"}

// wire is a gateway on a real listener, to send whatever one likes.
type wire struct {
	*rig
	key     *dpop.Key
	front   *httptest.Server
	running sync.WaitGroup // requests

	credentials int             // that were sent
	passed      int             // requests that were let through
	known       map[string]bool // their ids, until the upstream is found to have seen them
	early       []*http.Request // that it saw before they were known
}

// FuzzWire sends bytes to a live listener. Whatever they are, the upstream sees only requests that the gateway has let
// through, each with credentials of its own and as the one that they are for, and where each ends is not in doubt.
func FuzzWire(f *testing.F) {
	for _, s := range shapes {
		if s.left { // the gateway would wait for the rest
			continue
		}
		lines := append([]string{"POST /v1/any/x HTTP/1.1", "Host: api.example.test", "SIGNED"}, s.framing...)
		text := strings.Replace(strings.Join(lines, "\r\n")+"\r\n\r\n", "SIZE", "60", 1)
		if s.swap != nil {
			text = strings.Replace(text, s.swap[0], s.swap[1], 1)
		}
		f.Add([]byte(text + strings.ReplaceAll(s.body, "HIDDEN", "POST /v1/any/x HTTP/1.1\r\nHost: api.example.test\r\n\r\n")))
	}
	f.Add([]byte("POST /v1/any/x HTTP/1.1\r\nHost: api.example.test\r\nSIGNED\r\nContent-Length: 2\r\n\r\nhi" +
		"POST /v1/any/x HTTP/1.1\r\nHost: api.example.test\r\nSIGNED\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"))
	w := newWire(f)
	f.Fuzz(w.play)
}

func newWire(t testing.TB) *wire {
	w := &wire{rig: newRigFrom(t, "wire", []byte(wireYAML)), key: vectorKeys(t)["K1"], known: map[string]bool{}}
	w.rows.put("T1", bound(w.key.Thumbprint()))
	w.front = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.running.Add(1)
		defer w.running.Done()
		w.gateway.ServeHTTP(rw, r)
	}))
	t.Cleanup(w.front.Close)
	return w
}

// play is one connection.
func (w *wire) play(t *testing.T, sent []byte) {
	if bytes.Count(sent, []byte("SIGNED")) > 8 || len(sent) > 8<<10 {
		return
	}
	w.t = t // a fuzz target fails by the test that it is given
	for bytes.Contains(sent, []byte("SIGNED")) {
		r := w.signed(w.key, wireRequest)
		fields := "Authorization: " + r.Header.Get("Authorization") + "\r\nDPoP: " + r.Header.Get("DPoP")
		sent = bytes.Replace(sent, []byte("SIGNED"), []byte(fields), 1)
		w.credentials++
	}
	conn, err := net.Dial("tcp", w.front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	conn.Write(append(sent, "\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: api.example.test\r\nConnection: close\r\n\r\n"...))
	conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) // who waits for more says nothing
	io.Copy(io.Discard, conn)
	conn.Close()
	w.running.Wait()

	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Verdict != proxy.Refused {
			w.known[e.RequestID] = true
			w.passed++
		}
	}
	if w.passed > w.credentials {
		t.Fatalf("more requests were let through than had credentials, the latest of %q", sent)
	}
	for _, r := range w.early {
		w.check(t, r, true)
	}
	w.early = nil
	for _, r := range w.seen { // some perhaps of the connection before, which the upstream has only now given up
		w.check(t, r, false)
	}
	w.seen, w.bodies, w.events = nil, nil, nil
	w.log.Reset()
}

// check is the law for one request that the upstream saw. last says that what is not known by now never will be.
func (w *wire) check(t *testing.T, r *http.Request, last bool) {
	id := r.Header.Get("X-Request-Id")
	switch {
	case r.Method != http.MethodPost || r.RequestURI != "/v1/any/x":
		t.Fatalf("the upstream saw %s %s", r.Method, r.RequestURI)
	case len(r.Header["X-Auth-Subject"]) != 1 || r.Header["X-Auth-Subject"][0] != aUser.String():
		t.Fatalf("the upstream was told of %q", r.Header["X-Auth-Subject"])
	case r.Header["Authorization"] != nil || r.Header["Dpop"] != nil:
		t.Fatal("the upstream got credentials")
	case !w.known[id] && last:
		t.Fatalf("the upstream saw a request that was not let through, or saw it twice: %q", id)
	case !w.known[id]:
		w.early = append(w.early, r)
	}
	delete(w.known, id)
}

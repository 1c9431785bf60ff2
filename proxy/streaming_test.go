package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEventsPassAsTheyCome(t *testing.T) {
	g, key := newStreaming(t)
	next := make(chan struct{})
	g.reply = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			http.NewResponseController(w).Flush()
			<-next // which comes once the client has the event
		}
	}
	for _, version := range []string{"1.1", "2"} {
		var res *http.Response
		var err error
		r := g.signed(key, dpop.Claims{URL: apiURL + "/v1/x"})
		if version == "2" {
			s := g.secure()
			r.URL.Scheme, r.URL.Host = "https", s.Listener.Addr().String()
			res, err = s.Client().Do(r)
		} else {
			res, err = http.DefaultTransport.RoundTrip(r)
		}
		require.NoError(t, err)
		from := bufio.NewReader(res.Body)
		for i := range 5 {
			line, err := from.ReadString('\n')
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprintf("data: %d\n", i), line)
			from.ReadString('\n')
			next <- struct{}{}
		}
		_, err = from.ReadByte()
		assert.ErrorIs(t, err, io.EOF)
		res.Body.Close()
	}
}

// Also where its length is known, an answer does not wait for its end: neither its header, nor what there is of its body.
func TestPartsOfAnAnswerPassAsTheyCome(t *testing.T) {
	g, key := newStreaming(t)
	next := make(chan struct{})
	g.reply = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "6")
		for _, part := range []string{"", "one", "two"} {
			io.WriteString(w, part)
			http.NewResponseController(w).Flush()
			<-next // which comes once the client has the part
		}
	}
	res, err := http.DefaultTransport.RoundTrip(g.signed(key, dpop.Claims{URL: apiURL + "/v1/x"}))
	require.NoError(t, err)
	defer res.Body.Close()
	assert.EqualValues(t, 6, res.ContentLength)
	next <- struct{}{}
	for _, part := range []string{"one", "two"} {
		got := make([]byte, 3)
		_, err := io.ReadFull(res.Body, got)
		require.NoError(t, err)
		assert.Equal(t, part, string(got))
		next <- struct{}{}
	}
}

// heapWatch samples the heap until stop is called, which says how much it grew at most: tests before may have left some,
// such as connections that a timer still knows.
func heapWatch() (stop func() uint64) {
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	quit, most := make(chan struct{}), make(chan uint64)
	go func() {
		var top uint64
		for {
			select {
			case <-quit:
				most <- top
				return
			case <-time.After(20 * time.Millisecond):
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				top = max(top, m.HeapInuse-min(m.HeapInuse, before.HeapInuse))
			}
		}
	}()
	return func() uint64 { close(quit); return <-most }
}

// zeros is n bytes.
func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestLargeBodiesTakeNoMemory(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() {
		size = 128 << 20
	}
	g, key := newStreaming(t)
	g.reply = func(w http.ResponseWriter, _ *http.Request) { io.Copy(w, zeros(size)) }
	stop := heapWatch()
	res, err := http.DefaultTransport.RoundTrip(g.signed(key, dpop.Claims{}))
	require.NoError(t, err)
	n, err := io.Copy(io.Discard, res.Body)
	require.NoError(t, err)
	assert.Equal(t, size, n)
	assert.Less(t, stop(), uint64(64<<20), "of the heap, with client, gateway and upstream on it")
	g.reply = nil
	g.intake = func(r *http.Request) { n, _ = io.Copy(io.Discard, r.Body) }
	stop = heapWatch()
	r := g.signed(key, dpop.Claims{Method: "POST", URL: apiURL + "/v1/x"})
	r.Body, r.ContentLength = io.NopCloser(zeros(size)), -1
	res, err = http.DefaultTransport.RoundTrip(r)
	require.NoError(t, err)
	res.Body.Close()
	assert.Equal(t, size, n)
	assert.Less(t, stop(), uint64(64<<20), "of the heap, with client, gateway and upstream on it")
}

// conformance: UPS-13
func TestTrailersOfTheAnswerPass(t *testing.T) {
	g, key := newStreaming(t)
	for name, announced := range map[string]bool{"announced": true, "not announced": false} {
		t.Run(name, func(t *testing.T) {
			g.mu.Lock()
			g.reply = func(w http.ResponseWriter, _ *http.Request) {
				prefix := http.TrailerPrefix
				if announced {
					w.Header().Set("Trailer", "X-Checksum, X-Auth-Subject, DPoP-Nonce, WWW-Authenticate")
					prefix = ""
				}
				io.WriteString(w, "body")
				http.NewResponseController(w).Flush()
				for _, field := range []string{"X-Checksum", "X-Auth-Subject", "DPoP-Nonce", "WWW-Authenticate", "X_Auth_Scope"} {
					w.Header().Set(prefix+field, "1")
				}
			}
			g.mu.Unlock()
			res := g.raw("GET", text(g.signed(key, dpop.Claims{}), "TE: trailers"))
			assert.Equal(t, http.StatusOK, res.StatusCode)
			assert.Equal(t, http.Header{"X-Checksum": {"1"}}, res.Trailer, "and nothing that only the gateway may say")
		})
	}
}

func TestHeadHasALengthAndNoBody(t *testing.T) {
	g, key := newStreaming(t)
	g.reply = func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "12345") }
	conn, from := g.dial()
	for range 2 { // the second one would be read from the first one's body
		write(t, conn, text(g.signed(key, dpop.Claims{Method: "HEAD"})))
		res, err := http.ReadResponse(from, &http.Request{Method: "HEAD"})
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, res.StatusCode)
		assert.EqualValues(t, 12345, res.ContentLength)
	}
}

// eager is an upstream that answers as soon as it has the header of a request, and closes when a body was to come.
func eager(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				from := bufio.NewReader(conn)
				for {
					r, err := http.ReadRequest(from)
					if err != nil {
						return
					}
					if r.Header.Get("Expect") != "" {
						io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nnever\n")
						continue
					}
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nlegacy\n")
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// attack: 68
func TestEarlyAnswerLeavesNoConnectionAskew(t *testing.T) {
	g, key := inFrontOf(t, "base", eager(t))
	for range 50 {
		conn, from := g.dial()
		write(t, conn, text(g.signed(key, anyX), "Expect: 100-continue", "Content-Length: 5", "Connection: close"))
		res, err := http.ReadResponse(from, nil)
		require.NoError(t, err)
		if res.StatusCode == http.StatusContinue { // the upstream took longer than the gateway waits for its word
			res, err = http.ReadResponse(from, nil)
			require.NoError(t, err)
		}
		require.Equal(t, http.StatusForbidden, res.StatusCode)
	}
	for range 50 {
		g.passes(g.signed(key, dpop.Claims{}))
	}
}

// attack: 69
func TestOnlyOneExpectationReachesTheUpstream(t *testing.T) {
	g, key := newStreaming(t)
	post := dpop.Claims{Method: "POST", URL: apiURL + "/v1/x"}
	res := g.raw("POST", text(g.signed(key, post), "Expect: foo", "Content-Length: 5", "Connection: close")+"hello")
	assert.Equal(t, http.StatusExpectationFailed, res.StatusCode)
	assert.Zero(t, g.count(), "what the upstream saw")
	for _, odd := range []string{"y 100-continue", "foo, 100-continue", "100-CONTINUE"} {
		conn, from := g.dial()
		write(t, conn, text(g.signed(key, post), "Expect: "+odd, "Content-Length: 5")+"hello")
		res, err := http.ReadResponse(from, nil)
		require.NoError(t, err)
		if res.StatusCode == http.StatusContinue {
			res, err = http.ReadResponse(from, nil)
			require.NoError(t, err)
		}
		if res.StatusCode != http.StatusOK {
			assert.Equal(t, http.StatusExpectationFailed, res.StatusCode, odd)
			continue
		}
		assert.Equal(t, []string{"100-continue"}, g.last().Header["Expect"], odd)
	}
	res = g.raw("GET", text(g.signed(key, dpop.Claims{}), "Expect: 100-continue", "Connection: close"))
	assert.Equal(t, http.StatusOK, res.StatusCode)
	assert.Empty(t, g.last().Header["Expect"], "with nothing to expect")
	assert.NotContains(t, strings.Join(g.bodies, ""), "HTTP/1.1")
}

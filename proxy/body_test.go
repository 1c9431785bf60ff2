package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// newBounded is a rig whose routes take bodies of up to 1 KiB.
func newBounded(t *testing.T) (*rig, *dpop.Key) {
	g := newRigFrom(t, "bounded", []byte(strings.Replace(streaming, "- {match: /v1/,", "- {match: /v1/, max_body: 1KiB,", 1)))
	key := vectorKeys(t)["K1"]
	g.rows.put("T1", bound(key.Thumbprint(), "items:read"))
	return g, key
}

func TestBodyMayBeAsLargeAsTheRouteSays(t *testing.T) {
	g, key := newBounded(t)
	post := dpop.Claims{Method: "POST", URL: apiURL + "/v1/x"}
	for _, size := range []int{1, 1023, 1024} {
		for _, chunked := range []bool{false, true} {
			r := g.signed(key, post)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(make([]byte, size))), int64(size)
			if chunked {
				r.ContentLength = -1
			}
			g.passes(r)
			assert.Len(t, g.bodies[len(g.bodies)-1], size)
		}
	}
	before := g.count()
	for _, size := range []int64{1025, 1 << 40} {
		res := g.raw("POST", text(g.signed(key, post), fmt.Sprintf("Content-Length: %d", size)))
		assert.Equal(t, http.StatusRequestEntityTooLarge, res.StatusCode)
		assert.Equal(t, proxy.BodyTooLarge, g.event().Reason)
		assert.Equal(t, proxy.Refused, g.event().Verdict)
	}
	assert.Equal(t, before, g.count(), "what the upstream saw")
}

func TestChunkedBodyIsCutWhereItGetsTooLarge(t *testing.T) {
	g, key := newBounded(t)
	type intake struct {
		body []byte
		cut  error
	}
	taken := make(chan intake, 1)
	g.intake = func(r *http.Request) {
		body, err := io.ReadAll(r.Body)
		taken <- intake{body, err}
	}
	res := g.raw("POST", text(g.signed(key, dpop.Claims{Method: "POST", URL: apiURL + "/v1/x"}), "Transfer-Encoding: chunked", "Connection: close")+
		"400\r\n"+strings.Repeat("a", 1024)+"\r\n1\r\nb\r\n0\r\n\r\n")
	assert.Equal(t, http.StatusRequestEntityTooLarge, res.StatusCode)
	assert.Equal(t, proxy.BodyTooLarge, g.event().Reason)
	up := <-taken
	assert.Error(t, up.cut, "the upstream is not told that this is all")
	assert.LessOrEqual(t, len(up.body), 1024)
	assert.NotContains(t, string(up.body), "b")
}

// attack: 130
func TestBodyThatTricklesIsCut(t *testing.T) {
	defer proxy.Hurry(200 * time.Millisecond)()
	g, key := newStreaming(t)
	conn, from := g.dial()
	write(t, conn, text(g.signed(key, dpop.Claims{Method: "POST", URL: apiURL + "/v1/x"}), "Content-Length: 1000", "Connection: close"))
	over := make(chan struct{})
	go func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(50 * time.Millisecond):
				conn.Write([]byte("a"))
			}
		}
	}()
	res, _ := answer(t, from)
	close(over)
	assert.Equal(t, http.StatusRequestTimeout, res.StatusCode)
	assert.Equal(t, proxy.RequestBodyLate, g.eventOf(res).Reason)
}

func TestPauseAfterTheBodyIsNotTheClientsDoing(t *testing.T) {
	defer proxy.Hurry(50 * time.Millisecond)()
	g, key := newStreaming(t)
	g.reply = func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(300 * time.Millisecond):
		}
		io.WriteString(w, "slow\n")
	}
	r := g.signed(key, dpop.Claims{Method: "POST", URL: apiURL + "/v1/x"})
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader("hello")), 5
	g.passes(r)
}

// attack: 131
func TestReaderThatStallsIsCut(t *testing.T) {
	defer proxy.Hurry(100 * time.Millisecond)()
	g, key := newStreaming(t)
	g.reply = func(w http.ResponseWriter, _ *http.Request) { io.Copy(w, zeros(1<<30)) }
	for _, version := range []string{"1.1", "2"} {
		t.Run(version, func(t *testing.T) {
			told := g.told()
			r := g.signed(key, dpop.Claims{})
			transport := http.RoundTripper(http.DefaultTransport)
			if version == "2" {
				s := g.secure()
				r.URL.Scheme, r.URL.Host = "https", s.Listener.Addr().String()
				transport = s.Client().Transport
			}
			res, err := transport.RoundTrip(r)
			require.NoError(t, err)
			defer res.Body.Close()
			e := g.eventOf(res) // without a byte having been read
			assert.Equal(t, proxy.ResponseCut, e.Reason)
			assert.Equal(t, told+1, g.told())
		})
	}
}

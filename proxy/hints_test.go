package proxy_test

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hinted sends a request and gathers the 1xx answers.
func (g *rig) hinted(r *http.Request) (res *http.Response, hints []http.Header) {
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		assert.Equal(g.t, http.StatusEarlyHints, code)
		hints = append(hints, http.Header(h))
		return nil
	}}
	res, err := g.send(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	require.NoError(g.t, err)
	return res, hints
}

func TestEarlyHintsPassWithoutTouchingTheAnswer(t *testing.T) {
	g, key := newStreaming(t)
	g.reply = func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Link", "</a.css>; rel=preload")
		h.Set("X-Auth-Subject", "admin")
		h.Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusEarlyHints)
		clear(h)
		h.Set("X-Real", "1")
		io.WriteString(w, "done\n")
	}
	res, hints := g.hinted(g.signed(key, dpop.Claims{}))
	require.Len(t, hints, 1)
	assert.Equal(t, http.Header{"Link": {"</a.css>; rel=preload"}}, hints[0], "without what only the gateway may say")
	assert.Equal(t, http.StatusOK, res.StatusCode)
	assert.NotEmpty(t, res.Header.Get("X-Request-Id"), "which was there before the hint")
	assert.Equal(t, "1", res.Header.Get("X-Real"))
	assert.Empty(t, res.Header["Link"])
	old := g.raw("GET", strings.Replace(text(g.signed(key, dpop.Claims{})), "HTTP/1.1", "HTTP/1.0", 1))
	assert.Equal(t, http.StatusOK, old.StatusCode, "and no 1xx, which HTTP/1.0 does not know")
}

// attack: 144
func TestFloodOfHintsIsHeldBack(t *testing.T) {
	g, key := newStreaming(t)
	long := strings.Repeat("h", 1000)
	g.reply = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Long", long)
		for range 20_000 {
			w.WriteHeader(http.StatusEarlyHints)
		}
		w.Header().Del("X-Long")
		io.WriteString(w, "done\n")
	}
	res, hints := g.hinted(g.signed(key, dpop.Claims{}))
	assert.Equal(t, http.StatusOK, res.StatusCode)
	assert.Len(t, hints, 10)
}

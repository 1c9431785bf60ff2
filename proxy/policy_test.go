package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// attack: 104
func TestTheTokenIsCachedAndNoDecisionAboutIt(t *testing.T) {
	g, key := newAPI(t, "base")
	s, _ := cached(g)
	s.passes(s.signed(key, dpop.Claims{}))
	for _, c := range []dpop.Claims{
		{Method: "DELETE", URL: apiURL + "/admin/x"},
		{Method: "GET", URL: apiURL + "/admin/x"},
		{Method: "POST", URL: apiURL + "/v1/items"},
		{Method: "GET", URL: apiURL + "/v1/two"},
	} {
		s.refuses(s.signed(key, c), http.StatusForbidden, proxy.ScopeMissing)
	}
	s.passes(s.signed(key, dpop.Claims{}))
	assert.Equal(t, 1, g.rows.lookups, "all of one row")
	assert.Equal(t, 2, g.count(), "what the upstream saw")
}

// attack: 126
func TestAnswersToATokenAreForItsBearerAlone(t *testing.T) {
	g, key := newAPI(t, "base")
	for said, want := range map[string]string{
		"": "private", "public, max-age=60": "public, max-age=60", "no-cache": "no-cache", "max-age=5": "max-age=5",
	} {
		g.reply = func(w http.ResponseWriter, _ *http.Request) {
			if said != "" {
				w.Header().Set("Cache-Control", said)
			}
		}
		assert.Equal(t, []string{want}, g.passes(g.signed(key, dpop.Claims{})).Header["Cache-Control"], said)
		open := g.raw("GET", rawPublic())
		assert.Equal(t, said, open.Header.Get("Cache-Control"), "of a public route")
	}
	refused := g.refuses(g.signed(key, dpop.Claims{Token: "T9"}), http.StatusUnauthorized, proxy.TokenUnknown)
	assert.Equal(t, []string{"no-store"}, refused.Header["Cache-Control"])
	refused = g.refuses(g.signed(key, dpop.Claims{URL: apiURL + "/v1/two"}), http.StatusForbidden, proxy.ScopeMissing)
	assert.Equal(t, []string{"no-store"}, refused.Header["Cache-Control"])
	g.rows.fail = errors.New("away")
	refused = g.refuses(g.signed(key, dpop.Claims{}), http.StatusServiceUnavailable, proxy.StoreUnavailable)
	assert.Equal(t, []string{"no-store"}, refused.Header["Cache-Control"])
}

// attack: 127
func TestAStricterRouteHoldsFromTheNextRequestOn(t *testing.T) {
	g, key := newAPI(t, "base")
	s, _ := cached(g)
	stricter := *s.config
	stricter.Routes = slices.Clone(s.config.Routes)
	stricter.Routes[0].Scopes = []string{"items:read", "items:audit"}
	over2 := s.secure()
	conn, from := s.dial()
	ask := func() (statuses []int) {
		write(t, conn, text(s.signed(key, dpop.Claims{})))
		res, _ := answer(t, from)
		r := s.signed(key, dpop.Claims{})
		r.URL.Scheme, r.URL.Host = "https", over2.Listener.Addr().String()
		res2, err := over2.Client().Transport.RoundTrip(r)
		require.NoError(t, err)
		io.Copy(io.Discard, res2.Body)
		res2.Body.Close()
		require.Equal(t, 2, res2.ProtoMajor)
		return []int{res.StatusCode, res2.StatusCode}
	}
	for range 3 {
		assert.Equal(t, []int{200, 200}, ask())
		require.NoError(t, s.gateway.Reload(&stricter))
		assert.Equal(t, []int{403, 403}, ask())
		require.NoError(t, s.gateway.Reload(s.config))
	}
	assert.Equal(t, 6, g.count(), "what the upstream saw")
	assert.Equal(t, 1, g.rows.lookups)
}

// lookupFunc is a Lookuper.
type lookupFunc func(ctx context.Context, d tokenstore.Digest) (*tokenstore.Record, error)

func (f lookupFunc) Lookup(ctx context.Context, d tokenstore.Digest) (*tokenstore.Record, error) {
	return f(ctx, d)
}

// attack: 191, 194
func TestAPanicLetsNobodyIn(t *testing.T) {
	const token = "a-token-that-no-panic-may-show"
	g, key := newAPI(t, "base")
	g.rows.put(token, bound(key.Thumbprint(), "items:read"))
	var mu sync.Mutex
	var noise bytes.Buffer
	log.SetOutput(writerFunc(func(b []byte) {
		mu.Lock()
		defer mu.Unlock()
		noise.Write(b)
	}))
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	var fails atomic.Value // of a func that panics, or not
	fails.Store(func() {})
	s := g.sibling(0, func(o *proxy.Options) {
		o.Tokens = lookupFunc(func(ctx context.Context, d tokenstore.Digest) (*tokenstore.Record, error) {
			fails.Load().(func())()
			return g.rows.Lookup(ctx, d)
		})
	})
	for _, what := range []any{"a bug", errors.New("another"), http.ErrAbortHandler} {
		fails.Store(func() { panic(what) })
		told := s.told()
		_, err := s.send(s.signed(key, dpop.Claims{Token: token}))
		require.Error(t, err, "the connection ends without an answer")
		e := s.latest(told + 1)[told]
		assert.NotEqual(t, proxy.Passed, e.Verdict)
		assert.Zero(t, e.Status)
	}
	assert.Zero(t, g.count(), "what the upstream saw")
	fails.Store(func() {})
	s.passes(s.signed(key, dpop.Claims{Token: token}))
	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, 2, strings.Count(noise.String(), "panic serving"), "an abort is no crash")
	assert.NotContains(t, noise.String(), token)
}

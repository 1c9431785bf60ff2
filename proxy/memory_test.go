package proxy_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// halves is a token that nowhere stands in one piece unless somebody puts it together.
type halves [2]string

func newHalves() halves { return halves{uuid.NewString(), uuid.NewString()} }

func (h halves) token() string { return h[0] + h[1] }

// in says whether the token stands in a heap dump.
func (h halves) in(dump []byte) bool {
	for {
		i := bytes.Index(dump, []byte(h[0]))
		if i < 0 {
			return false
		}
		dump = dump[i+len(h[0]):]
		if bytes.HasPrefix(dump, []byte(h[1])) {
			return true
		}
	}
}

// heap is what is reachable in this process, byte for byte.
func heap(t *testing.T) []byte {
	for range 3 { // what sync.Pool keeps outlives two
		runtime.GC()
	}
	path := filepath.Join(t.TempDir(), "heap")
	f, err := os.Create(path)
	require.NoError(t, err)
	debug.WriteHeapDump(f.Fd())
	require.NoError(t, f.Close())
	dump, err := os.ReadFile(path)
	require.NoError(t, err)
	return dump
}

// The heap is that of a process of its own: buffers of another test's connections are used again, old bytes and all.
//
// attack: 198
func TestNoTokenStaysInMemory(t *testing.T) {
	if !alone(t) {
		return
	}
	g, key := newAPI(t, "bearer")
	s, _ := cached(g)
	known, unknown, queried, held := newHalves(), newHalves(), newHalves(), newHalves()
	journey(s, key, known, unknown, queried)
	g.seen = nil // the upstream may keep what it likes
	control := held.token()
	var left []string
	for soon := time.Now().Add(10 * time.Second); ; { // connections take a moment to end
		dump := heap(t)
		require.True(t, held.in(dump), "a token that is held is found")
		left = nil
		for what, h := range map[string]halves{"known": known, "unknown": unknown, "in a query": queried} {
			if h.in(dump) {
				left = append(left, what)
			}
		}
		if len(left) == 0 || time.Now().After(soon) {
			break
		}
	}
	assert.Empty(t, left, "tokens that stay")
	runtime.KeepAlive(control)
}

// journey sends tokens in good and in bad ways, on connections that end. It leaves nothing on the stack of its caller.
//
//go:noinline
func journey(s *rig, key *dpop.Key, known, unknown, queried halves) {
	s.rows.put(known.token(), bound(key.Thumbprint(), "items:read"))
	for range 3 {
		r := s.signed(key, dpop.Claims{Token: known.token()})
		s.passes(r)
		s.refuses(r, http.StatusUnauthorized, dpop.ProofReplayed)
	}
	s.refuses(s.signed(key, dpop.Claims{Token: unknown.token()}), http.StatusUnauthorized, "token_unknown")
	r := s.signed(key, dpop.Claims{Token: known.token()})
	r.Header.Set("Authorization", "Bearer "+known.token())
	s.refuses(r, http.StatusBadRequest, dpop.BearerWithProof)
	r = s.signed(key, dpop.Claims{Token: known.token()})
	r.URL.RawQuery = "access_token=" + queried.token()
	s.refuses(r, http.StatusBadRequest, dpop.TokenInQuery)
	s.raw("GET", "GET /v1/items HTTP/1.1\r\nHost: api.example.test\r\nAuthorization: "+strings.Repeat("x", 9)+unknown.token()+"\r\nConnection: close\r\n\r\n")
	s.gateway.Close() // and with it the connections to the upstream, which this rig gives the token
	s.events = nil    // a path is a part of its request line
}

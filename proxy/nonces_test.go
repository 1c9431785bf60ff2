package proxy_test

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// conformance: NON-14
func TestNoncesAreUniqueAndSayNothing(t *testing.T) {
	const ttl = 5 * time.Minute
	nonces := dpop.NewNonces([]byte("a key"), ttl)
	others := dpop.NewNonces([]byte("another key"), ttl)
	seen := map[string]bool{}
	prefixes := map[string]bool{}
	for i := range 10_000 {
		now := start.Add(time.Duration(i) * ttl / 2)
		nonce := nonces.Current(now)
		assert.Regexp(t, `^[\x21\x23-\x5B\x5D-\x7E]{32}$`, nonce) // NQCHAR (RFC 9449 §8.1)
		assert.NotEqual(t, others.Current(now), nonce)
		_, err := base64.RawURLEncoding.DecodeString(nonce)
		assert.NoError(t, err)
		seen[nonce], prefixes[nonce[:8]] = true, true
	}
	assert.Len(t, seen, 10_000)
	assert.Len(t, prefixes, 10_000, "nothing counts up in front")
	assert.NotEqual(t, dpop.NewNonces(nil, ttl).Current(start), dpop.NewNonces(nil, ttl).Current(start), "a key of its own each")
}

// challenged is the nonce that a rig asks for.
func challenged(g *rig, key *dpop.Key) string {
	res := g.refuses(g.signed(key, dpop.Claims{}), http.StatusUnauthorized, dpop.NonceMissing)
	return res.Header.Get("DPoP-Nonce")
}

// conformance: NON-18
// attack: 100
func TestNonceOfOneInstanceIsGoodOnAnother(t *testing.T) {
	a, key := newAPI(t, "nonce-required")
	b := a.sibling(8*time.Second, nil)
	nonce := challenged(a, key)
	b.passes(b.signed(key, dpop.Claims{Nonce: nonce}))
	a.passes(a.signed(key, dpop.Claims{Nonce: challenged(b, key)}))
	a.server.Close()
	a.gateway.Close()
	again := a.sibling(20*time.Second, nil)
	again.passes(again.signed(key, dpop.Claims{Nonce: nonce}))
	// A reload that changes nothing about nonces keeps those in use.
	require.NoError(t, again.gateway.Reload(again.config))
	again.passes(again.signed(key, dpop.Claims{Nonce: nonce}))
}

// conformance: NON-06
// attack: 100
func TestNonceOfAServerWithAnotherKeyIsUnknown(t *testing.T) {
	yaml, err := os.ReadFile("../testdata/vectors/rigs/nonce-required.yaml")
	require.NoError(t, err)
	key := vectorKeys(t)["K1"]
	a := newRigFrom(t, "without a key", bytes.Replace(yaml, []byte(`, nonce_key: "thirty-two bytes for all instances"`), nil, 1))
	require.Empty(t, string(a.config.DPoP.NonceKey))
	a.rows.put("T1", bound(key.Thumbprint(), "items:read"))
	b := a.sibling(0, nil)
	nonce := challenged(a, key)
	b.refuses(b.signed(key, dpop.Claims{Nonce: nonce}), http.StatusUnauthorized, dpop.NonceUnknown)
	a.passes(a.signed(key, dpop.Claims{Nonce: nonce}))
	require.NoError(t, a.gateway.Reload(a.config))
	a.passes(a.signed(key, dpop.Claims{Nonce: nonce}))
}

// conformance: NON-16, OPS-01
func TestAutoAsksForANonceOnlyWhereTheClockIsWrong(t *testing.T) {
	g, key := newAPI(t, "nonce-auto")
	res := g.passes(g.signed(key, dpop.Claims{}))
	assert.Empty(t, res.Header["Dpop-Nonce"])
	for ahead, reason := range map[time.Duration]dpop.Reason{-5 * time.Minute: dpop.IATPast, time.Hour: dpop.IATFuture} {
		wrong := g.now().Add(ahead)
		res = g.refuses(g.signed(key, dpop.Claims{IssuedAt: wrong}), http.StatusUnauthorized, reason)
		nonce := res.Header.Get("DPoP-Nonce")
		assert.Contains(t, res.Header.Get("WWW-Authenticate"), `error="use_dpop_nonce"`)
		assert.Equal(t, "no-store", res.Header.Get("Cache-Control"))
		res = g.passes(g.signed(key, dpop.Claims{IssuedAt: wrong, Nonce: nonce}))
		assert.Empty(t, res.Header["Dpop-Nonce"], "it is good for long enough")
		// In the next window it is past half its life.
		g.offset.Add(int64(150 * time.Second))
		res = g.passes(g.signed(key, dpop.Claims{IssuedAt: wrong, Nonce: nonce}))
		assert.Len(t, res.Header["Dpop-Nonce"], 1)
		assert.NotEqual(t, nonce, res.Header.Get("DPoP-Nonce"))
		assert.Contains(t, res.Header.Get("Cache-Control"), "no-store")
		g.offset.Add(int64(150 * time.Second))
		g.refuses(g.signed(key, dpop.Claims{IssuedAt: wrong, Nonce: nonce}), http.StatusUnauthorized, dpop.NonceUnknown)
	}
}

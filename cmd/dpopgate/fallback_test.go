package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// Two instances whose shared replay store goes and comes back. Each then takes proofs with nonces of its own, and whatever
// was accepted at any time is accepted nowhere again, at no time.
//
// attack: 179
func TestAFleetWithoutItsReplayStoreTakesAProofOnce(t *testing.T) {
	redis := os.Getenv("DPOPGATE_TEST_REDIS")
	if redis == "" {
		require.Empty(t, os.Getenv("CI"), "DPOPGATE_TEST_REDIS names no server")
		t.Skip("DPOPGATE_TEST_REDIS names no server")
	}
	var seen atomic.Int64
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		seen.Add(1)
		io.WriteString(w, "ok")
	}))
	t.Cleanup(up.Close)
	dsn := tokenstoretest.Postgres(t)
	wire := tokenstoretest.NewRelay(t, strings.TrimSuffix(strings.TrimPrefix(redis, "redis://"), "/"))
	routes := fmt.Sprintf("  - {match: GET /orders/, upstream: %[1]q, scopes: [orders:read]}\n"+
		"  - {match: GET /plain/, upstream: %[1]q, scopes: [orders:read], nonce: off}", up.URL)
	more := fmt.Sprintf("dpop: {replay: 'redis://%s', replay_on_error: nonce, nonce_key: 0123456789abcdef0123456789abcdef}", wire.Address())
	store := fmt.Sprintf("{postgres: %q, timeout: 2s}", dsn)
	fleet := []*gateway{startGatewayOn(t, store, routes, more), startGatewayOn(t, store, routes, more)}
	for _, g := range fleet {
		text, err := os.ReadFile(g.path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(g.path, []byte(strings.Replace(string(text), g.url, sharedURL, 1)), 0o600))
		g.signals <- syscall.SIGHUP
		g.awaitLog(t, `"msg":"config reloaded"`)
	}
	a, b := fleet[0], fleet[1]
	migrated := shell{}.run(t, "migrate", "-c", a.path)
	require.Zero(t, migrated.code, migrated.stderr)
	const client = "6f1c1c6e-7d5b-4d0a-9c55-0f2f4e3f0a01"
	tokenstoretest.Exec(t, dsn, "INSERT INTO oauth_clients (id) VALUES ('"+client+"')")
	key, err := dpop.NewKey(dpop.ES256)
	require.NoError(t, err)
	issued := shell{}.run(t, "token", "issue", "-c", a.path, "--client", client, "--scope", "orders:read", "--jkt", string(key.Thumbprint()))
	require.Zero(t, issued.code, issued.stderr)
	token := strings.TrimSpace(issued.stdout)

	sign := func(path, nonce string) string {
		proof, err := key.Sign(dpop.Claims{Method: "GET", URL: sharedURL + path, Token: token, Nonce: nonce})
		require.NoError(t, err)
		return proof
	}
	send := func(g *gateway, path, proof string) (status int, nonce string) {
		r, err := http.NewRequest("GET", g.url+path, nil)
		require.NoError(t, err)
		r.Host = strings.TrimPrefix(sharedURL, "http://")
		r.Header.Set("Authorization", "DPoP "+token)
		r.Header.Set("DPoP", proof)
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer res.Body.Close()
		io.Copy(io.Discard, res.Body)
		return res.StatusCode, res.Header.Get("DPoP-Nonce")
	}
	passes := func(g *gateway, proof string) {
		t.Helper()
		before := seen.Load()
		status, _ := send(g, "/orders/", proof)
		assert.Equal(t, http.StatusOK, status)
		assert.Equal(t, before+1, seen.Load(), "what the upstream saw")
	}
	// refused everywhere: with which challenge does not matter
	refused := func(proofs ...string) {
		t.Helper()
		before := seen.Load()
		for _, proof := range proofs {
			for _, g := range fleet {
				status, _ := send(g, "/orders/", proof)
				assert.Equal(t, http.StatusUnauthorized, status)
			}
		}
		assert.Equal(t, before, seen.Load(), "the upstream saw nothing")
	}

	early := sign("/orders/", "")
	passes(a, early)
	refused(early)

	wire.Refuse()
	late := sign("/orders/", "")
	status, own := send(a, "/orders/", late)
	assert.Equal(t, http.StatusUnauthorized, status)
	require.True(t, strings.HasPrefix(own, "own."), "the nonce of this instance alone, not %q", own)
	during := sign("/orders/", own)
	passes(a, during)
	refused(early, during)
	a.awaitLog(t, "each instance takes proofs with nonces of its own")
	ready, err := http.Get(a.admin + "/readyz?verbose")
	require.NoError(t, err)
	defer ready.Body.Close()
	report, err := io.ReadAll(ready.Body)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, ready.StatusCode, "an instance that can do without is ready")
	assert.Contains(t, string(report), "replay store away")
	assert.Equal(t, 1, a.metric(t, "dpopgate_replay_fallback"))
	status, _ = send(a, "/plain/", sign("/plain/", ""))
	assert.Equal(t, http.StatusServiceUnavailable, status, "where no nonce may be asked for, nothing can be let through")

	wire.Restore()
	for _, g := range fleet { // not by the log: while connections break one after the other, the store may come back for a moment
		require.Eventually(t, func() bool { return g.metric(t, "dpopgate_replay_fallback") == 0 }, time.Minute, 10*time.Millisecond)
		g.awaitLog(t, "proofs are taken by all instances alike again")
	}
	refused(early, during)
	status, _ = send(b, "/plain/", sign("/plain/", own))
	assert.Equal(t, http.StatusUnauthorized, status, "another's own nonce is none that may be ignored")
	after := sign("/orders/", own) // a client keeps the nonce that it has
	status, shared := send(a, "/orders/", after)
	assert.Equal(t, http.StatusOK, status)
	assert.NotEmpty(t, shared)
	assert.False(t, strings.HasPrefix(shared, "own."), "it is told to go on with one for all")
	refused(early, during, after)
	passes(b, sign("/orders/", shared))
	send(b, "/orders/", late) // as good as new, unless the store was told of it just before it went away
	refused(early, during, after, late)
}

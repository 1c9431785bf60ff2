package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// sharedURL is what the clients of a fleet call: its load balancer.
const sharedURL = "http://localhost:8000"

// Two instances over one Postgres, with each kind of shared replay store: of 200 clients that send the same proof at
// once, half of them to each instance, one is let through.
func TestAFleetTakesAProofOnce(t *testing.T) {
	redis := os.Getenv("DPOPGATE_TEST_REDIS")
	if redis == "" {
		require.Empty(t, os.Getenv("CI"), "DPOPGATE_TEST_REDIS names no server")
		t.Skip("DPOPGATE_TEST_REDIS names no server")
	}
	for name, replay := range map[string]string{"postgres": "postgres", "redis": redis} {
		t.Run(name, func(t *testing.T) {
			var seen atomic.Int64
			up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				seen.Add(1)
				io.WriteString(w, "ok")
			}))
			t.Cleanup(up.Close)
			dsn := tokenstoretest.Postgres(t)
			store := fmt.Sprintf("{postgres: %q, timeout: 30s}", dsn) // a crowd on a busy machine is to be answered, too
			routes := fmt.Sprintf("  - {match: GET /orders/, upstream: %q, scopes: [orders:read]}", up.URL)
			more := fmt.Sprintf("dpop: {replay: %q}", replay)
			fleet := []*gateway{startGatewayOn(t, store, routes, more), startGatewayOn(t, store, routes, more)}
			for _, g := range fleet {
				text, err := os.ReadFile(g.path)
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(g.path, []byte(strings.Replace(string(text), g.url, sharedURL, 1)), 0o600))
				g.signals <- syscall.SIGHUP
				g.awaitLog(t, `"msg":"config reloaded"`)
			}
			migrated := shell{}.run(t, "migrate", "-c", fleet[0].path)
			require.Zero(t, migrated.code, migrated.stderr)
			const client = "6f1c1c6e-7d5b-4d0a-9c55-0f2f4e3f0a01"
			tokenstoretest.Exec(t, dsn, "INSERT INTO oauth_clients (id) VALUES ('"+client+"')")
			key, err := dpop.NewKey(dpop.ES256)
			require.NoError(t, err)
			issued := shell{}.run(t, "token", "issue", "-c", fleet[0].path, "--client", client, "--scope", "orders:read", "--jkt", string(key.Thumbprint()))
			require.Zero(t, issued.code, issued.stderr)
			token := strings.TrimSpace(issued.stdout)

			for round := range 5 {
				proof, err := key.Sign(dpop.Claims{Method: "GET", URL: sharedURL + "/orders/", Token: token})
				require.NoError(t, err)
				var passed, refused atomic.Int64
				var racers sync.WaitGroup
				gun := make(chan struct{})
				for i := range 200 {
					racers.Go(func() {
						r, _ := http.NewRequest("GET", fleet[i%2].url+"/orders/", nil)
						r.Host = strings.TrimPrefix(sharedURL, "http://")
						r.Header.Set("Authorization", "DPoP "+token)
						r.Header.Set("DPoP", proof)
						<-gun
						res, err := http.DefaultClient.Do(r)
						if err != nil {
							t.Error(err)
							return
						}
						io.Copy(io.Discard, res.Body)
						res.Body.Close()
						switch res.StatusCode {
						case http.StatusOK:
							passed.Add(1)
						case http.StatusUnauthorized:
							refused.Add(1)
						default:
							t.Errorf("status %d", res.StatusCode)
						}
					})
				}
				close(gun)
				racers.Wait()
				assert.EqualValues(t, 1, passed.Load(), "round %d", round)
				assert.EqualValues(t, round+1, seen.Load(), "what the upstream saw")
				assert.EqualValues(t, 199, refused.Load())
			}
		})
	}
}

package proxy_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// conformance: HDR-18
func TestHTTP1AndHTTP2DecideAlike(t *testing.T) {
	g := newRig(t, "base")
	keys := vectorKeys(t)
	g.rows.put("T1", bound(keys["K1"].Thumbprint(), "items:read"))
	server := httptest.NewUnstartedServer(g.gateway)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)

	clients := map[string]*http.Client{"HTTP/2.0": server.Client()}
	plain := server.Client().Transport.(*http.Transport).Clone()
	plain.ForceAttemptHTTP2 = false
	plain.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	plain.TLSClientConfig.NextProtos = []string{"http/1.1"}
	t.Cleanup(plain.CloseIdleConnections)
	clients["HTTP/1.1"] = &http.Client{Transport: plain}

	for name, c := range map[string]struct {
		key, htm, path, token string
		proofs                int
		status                int
		reason                dpop.Reason
	}{
		"good":           {"K1", "GET", "/v1/items", "T1", 1, http.StatusOK, ""},
		"another key":    {"K2", "GET", "/v1/items", "T1", 1, http.StatusUnauthorized, "key_not_bound"},
		"another method": {"K1", "POST", "/v1/items", "T1", 1, http.StatusUnauthorized, "htm_mismatch"},
		"another path":   {"K1", "GET", "/v1/two", "T1", 1, http.StatusUnauthorized, "htu_mismatch"},
		"another token":  {"K1", "GET", "/v1/items", "T2", 1, http.StatusUnauthorized, "ath_mismatch"},
		"no proof":       {"K1", "GET", "/v1/items", "T1", 0, http.StatusUnauthorized, "proof_missing"},
		"two proofs":     {"K1", "GET", "/v1/items", "T1", 2, http.StatusUnauthorized, "proof_repeated"},
	} {
		t.Run(name, func(t *testing.T) {
			var answers []*http.Response
			told := g.told()
			for proto, client := range clients {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/items", nil)
				require.NoError(t, err)
				req.Host = "api.example.test"
				req.Header.Set("Authorization", "DPoP T1")
				for range c.proofs {
					req.Header.Add("DPoP", g.proof(keys[c.key], c.htm, c.path, c.token))
				}
				before := g.count()
				res, err := client.Do(req)
				require.NoError(t, err)
				res.Body.Close()
				assert.Equal(t, proto, res.Proto)
				assert.Equal(t, c.status, res.StatusCode)
				assert.Equal(t, c.status == http.StatusOK, g.count() == before+1)
				answers = append(answers, res)
			}
			assert.Equal(t, answers[0].Header["Www-Authenticate"], answers[1].Header["Www-Authenticate"])
			for _, e := range g.latest(told + len(clients))[told:] {
				assert.Equal(t, c.reason, e.Reason)
			}
		})
	}
}

// latest is all events, once there are n: they are told after the answer is out.
func (g *rig) latest(n int) []proxy.Event {
	require.Eventually(g.t, func() bool { return g.told() >= n }, 10*time.Second, time.Millisecond)
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.events)
}

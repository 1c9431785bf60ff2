package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const behindProxies = `
public_urls: [https://api.example.test]
listen: {http: "127.0.0.1:0", trusted_proxies: %s}
store: {sqlite: unused.db}
dpop: {nonce: "off"}
routes:
  - {match: GET /v1/items, upstream: "${UPSTREAM}", scopes: [items:read]}
`

// said is what a client or a proxy in front says about where a request came from.
var said = []string{
	"X-Forwarded-For: 203.0.113.9, 198.51.100.7", "X-Forwarded-Proto: http", "X-Forwarded-Host: api.example.test",
	"X-Forwarded-Port: 1", "X-Real-IP: 6.6.6.6", "X-Request-Id: from-the-proxy", "Forwarded: for=203.0.113.9;host=evil.test",
}

// conformance: HTU-41
// attack: 9
func TestForwardedFieldsAreBelievedFromTrustedPeersOnly(t *testing.T) {
	for _, c := range []struct {
		trusted, host, client, chain string
		passes                       bool
	}{
		{"[]", "api.example.test", "127.0.0.1", "127.0.0.1", true},
		{"[]", "10.0.0.3:8080", "", "", false},
		{"[127.0.0.0/8]", "10.0.0.3:8080", "198.51.100.7", "203.0.113.9, 198.51.100.7, 127.0.0.1", true},
		{"[127.0.0.0/8, 198.51.100.0/24]", "10.0.0.3:8080", "203.0.113.9", "203.0.113.9, 198.51.100.7, 127.0.0.1", true},
		{"[10.0.0.0/8]", "api.example.test", "127.0.0.1", "127.0.0.1", true},
	} {
		t.Run(c.trusted+" "+c.host, func(t *testing.T) {
			g := newRigFrom(t, "behind", fmt.Appendf(nil, behindProxies, c.trusted))
			key := vectorKeys(t)["K1"]
			g.rows.put("T1", bound(key.Thumbprint(), "items:read"))
			proof, err := key.Sign(dpop.Claims{Method: "GET", URL: "https://api.example.test/v1/items", Token: "T1", IssuedAt: start})
			require.NoError(t, err)
			lines := append([]string{"GET /v1/items HTTP/1.1", "Host: " + c.host, "Authorization: DPoP T1", "DPoP: " + proof, "Connection: close"}, said...)
			res := g.raw("GET", strings.Join(lines, "\r\n")+"\r\n\r\n")
			if !c.passes {
				assert.Equal(t, 421, res.StatusCode)
				assert.Zero(t, g.count())
				return
			}
			require.Equal(t, 200, res.StatusCode)
			h := g.last().Header
			assert.Equal(t, []string{c.chain}, h["X-Forwarded-For"])
			assert.Equal(t, []string{"https"}, h["X-Forwarded-Proto"])
			assert.Equal(t, []string{"api.example.test"}, h["X-Forwarded-Host"])
			assert.Empty(t, h["X-Forwarded-Port"])
			assert.Empty(t, h["X-Real-Ip"])
			assert.Equal(t, c.client, g.event().Client)
			trusted := strings.Contains(c.chain, ",")
			assert.Equal(t, trusted, h.Get("X-Request-Id") == "from-the-proxy")
			assert.Equal(t, trusted, strings.HasPrefix(h.Get("Forwarded"), "for=203.0.113.9;host=evil.test, for=127.0.0.1;"))
		})
	}
}

func TestTwoForwardedHostsAreAmbiguous(t *testing.T) {
	for _, hosts := range []string{"X-Forwarded-Host: api.example.test\r\nX-Forwarded-Host: evil.test", "X-Forwarded-Host: api.example.test, evil.test"} {
		g := newRigFrom(t, "behind", fmt.Appendf(nil, behindProxies, "[127.0.0.0/8]"))
		res := g.raw("GET", "GET /v1/items HTTP/1.1\r\nHost: api.example.test\r\n"+hosts+"\r\nConnection: close\r\n\r\n")
		assert.Equal(t, 400, res.StatusCode)
		assert.Zero(t, g.count())
	}
}

package proxy_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const forwardAuthYAML = `
public_urls: [https://api.example.test]
listen: {http: "127.0.0.1:0", trusted_proxies: [127.0.0.1/32]}
store: {sqlite: unused.db}
forward_auth: {path: /_gate/verify}
routes:
  - {match: GET /v1/items, upstream: "${UPSTREAM}", scopes: [items:read], nonce: "off", cors: {origins: ["https://app.example.test"]}}
  - {match: POST /v1/nonces, upstream: "${UPSTREAM}", nonce: required}
  - {match: GET /v1/admin, upstream: "${UPSTREAM}", nonce: "off", scopes: [admin], token_types: [DPoP, Bearer]}
  - {match: GET /v1/limited, upstream: "${UPSTREAM}", nonce: "off", rate_limit: {per: token, requests: 1, window: 1h}}
  - {match: GET /v1/report, upstream: "${UPSTREAM}", nonce: "off", mode: report}
  - {match: /public/, upstream: "${UPSTREAM}", public: true}
  - {match: /_gate/, upstream: "${UPSTREAM}", public: true}
`

func newForwardAuth(t *testing.T) (*rig, *dpop.Key) {
	g := newRigFrom(t, "forward-auth", []byte(forwardAuthYAML))
	key := vectorKeys(t)["K1"]
	g.rows.put("T1", bound(key.Thumbprint(), "items:read"))
	return g, key
}

// kinds are the kinds of proxies that ask.
var kinds = []string{"nginx", "caddy", "traefik", "haproxy", "envoy"}

// asking is the question of a proxy about a request with a proof, as that kind of proxy describes it.
func (g *rig) asking(kind string, key *dpop.Key, c dpop.Claims) *http.Request {
	return g.about(kind, g.signed(key, c))
}

// about is the question of a proxy about a request.
func (g *rig) about(kind string, r *http.Request) *http.Request {
	target, method := r.URL.RequestURI(), r.Method
	path := "/_gate/verify/" + kind
	if kind == "envoy" {
		path += target
	}
	q, err := http.NewRequest(method, g.server.URL+path, nil)
	require.NoError(g.t, err)
	q.Header = r.Header.Clone()
	switch kind {
	case "envoy":
		q.Host = r.Host
		return q
	case "nginx":
		q.Header.Set("X-Original-Method", method)
		q.Header.Set("X-Original-URI", target)
	case "caddy": // which adds the query of the request
		q.Host, q.URL.RawQuery = r.Host, r.URL.RawQuery
		fallthrough
	default:
		q.Header.Set("X-Forwarded-Method", method)
		q.Header.Set("X-Forwarded-Uri", target)
	}
	q.Method = http.MethodGet
	q.Header.Set("X-Forwarded-Host", r.Host)
	q.Header.Set("X-Forwarded-For", "192.0.2.7")
	return q
}

func TestProxiesAreToldWhoCalls(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			g, key := newForwardAuth(t)
			q := g.asking(kind, key, dpop.Claims{URL: apiURL + "/v1/items"})
			q.Header.Set("X-Auth-Subject", "root")
			if kind == "envoy" { // which says the host in Host, and may pass on what a client said here
				q.Header.Set("X-Forwarded-Host", "other.example.test")
			}
			res := g.passes(q)
			assert.Equal(t, []string{aUser.String()}, res.Header["X-Auth-Subject"])
			assert.Equal(t, aClient.String(), res.Header.Get("X-Auth-Client"))
			assert.Equal(t, "items:read", res.Header.Get("X-Auth-Scope"))
			assert.Equal(t, "no-store", res.Header.Get("Cache-Control"))
			e := g.eventOf(res)
			assert.Equal(t, kind, e.Asker)
			assert.Equal(t, "GET /v1/items", e.Route)
			assert.Equal(t, "/v1/items", e.Path)
			assert.Equal(t, proxy.Passed, e.Verdict)
			if kind != "envoy" {
				assert.Equal(t, "192.0.2.7", e.Client)
			}

			res, err := g.send(q) // the proof was used up by the question
			require.NoError(t, err)
			assert.Equal(t, http.StatusUnauthorized, res.StatusCode)
			assert.Equal(t, dpop.ProofReplayed, g.eventOf(res).Reason)
			assert.Contains(t, res.Header.Get("WWW-Authenticate"), `error="invalid_dpop_proof"`)

			thief := vectorKeys(t)["K2"]
			res, err = g.send(g.asking(kind, thief, dpop.Claims{}))
			require.NoError(t, err)
			assert.Equal(t, http.StatusUnauthorized, res.StatusCode)
			assert.Empty(t, res.Header["X-Auth-Subject"])
			assert.Zero(t, g.count(), "what the upstream saw")
		})
	}
}

func TestProxiesPassTheQueryAndTheMethodOn(t *testing.T) {
	g, key := newForwardAuth(t)
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			res := g.passes(g.asking(kind, key, dpop.Claims{URL: apiURL + "/v1/items?a=%zz;b"}))
			assert.Equal(t, "/v1/items", g.eventOf(res).Path)
			q := g.asking(kind, key, dpop.Claims{Method: "POST", URL: apiURL + "/v1/nonces"})
			res, err := g.send(q)
			require.NoError(t, err)
			require.Equal(t, http.StatusUnauthorized, res.StatusCode)
			nonce := res.Header.Get("DPoP-Nonce")
			assert.NotEmpty(t, nonce)
			assert.Contains(t, res.Header.Get("WWW-Authenticate"), "use_dpop_nonce")
			res = g.passes(g.asking(kind, key, dpop.Claims{Method: "POST", URL: apiURL + "/v1/nonces", Nonce: nonce}))
			assert.Equal(t, "POST", g.eventOf(res).Method)
			assert.Equal(t, nonce, res.Header.Get("DPoP-Nonce"))
		})
	}
}

func TestStatusesAreThoseThatTheProxyUnderstands(t *testing.T) {
	g, key := newForwardAuth(t)
	limited := dpop.Claims{URL: apiURL + "/v1/limited"}
	g.passes(g.asking("haproxy", key, limited))
	for _, c := range []struct {
		name    string
		request func() *http.Request
		status  int
		reason  dpop.Reason
	}{
		{"a scope too few", func() *http.Request { return g.signed(key, dpop.Claims{URL: apiURL + "/v1/admin"}) }, 403, proxy.ScopeMissing},
		{"no route", func() *http.Request { return g.signed(key, dpop.Claims{URL: apiURL + "/v1/nowhere"}) }, 404, proxy.RouteMissing},
		{"no such method", func() *http.Request { return g.signed(key, dpop.Claims{Method: "PUT"}) }, 405, proxy.MethodMissing},
		{"an ambiguous path", func() *http.Request {
			r := g.signed(key, dpop.Claims{})
			r.URL.Opaque = "/public/..%2fv1/items"
			return r
		}, 400, proxy.TargetAmbiguous},
		{"another host", func() *http.Request { r := g.signed(key, dpop.Claims{}); r.Host = "other.example.test"; return r }, 421, proxy.HostUnknown},
		{"too many", func() *http.Request { return g.signed(key, limited) }, 429, proxy.RateLimited},
		{"the metadata", func() *http.Request {
			return g.signed(key, dpop.Claims{URL: apiURL + "/.well-known/oauth-protected-resource"})
		}, 404, proxy.RouteMissing},
	} {
		for _, kind := range kinds {
			t.Run(c.name+"/"+kind, func(t *testing.T) {
				res, err := g.send(g.about(kind, c.request()))
				require.NoError(t, err)
				want := c.status
				if kind == "nginx" {
					want = http.StatusForbidden
					assert.Equal(t, c.status, atoi(res.Header.Get("X-Dpopgate-Status")))
					assert.Equal(t, strings.Join(res.Header.Values("WWW-Authenticate"), ", "), res.Header.Get("X-Dpopgate-Challenge"))
					var body struct{ Error string }
					require.NoError(t, json.Unmarshal([]byte(res.Header.Get("X-Dpopgate-Body")), &body))
					assert.NotEmpty(t, body.Error)
				}
				assert.Equal(t, want, res.StatusCode)
				assert.Equal(t, c.reason, g.eventOf(res).Reason)
			})
		}
	}
	assert.Zero(t, g.count())
}

func TestPublicRoutesAndReportLetThroughWithoutAnIdentity(t *testing.T) {
	g, key := newForwardAuth(t)
	for _, kind := range kinds {
		for _, path := range []string{"/public/x", "/v1/report"} {
			q := g.asking(kind, key, dpop.Claims{URL: apiURL + path, Token: "T9"})
			q.Header.Set("X-Auth-Subject", "root")
			res := g.passes(q)
			assert.Empty(t, res.Header["X-Auth-Subject"], path)
		}
	}
}

// attack: 9
func TestOnlyTrustedPeersMayAsk(t *testing.T) {
	g, key := newForwardAuth(t)
	g.config.Listen.TrustedProxies = []string{"192.0.2.0/24"}
	require.NoError(t, g.gateway.Reload(g.config))
	for _, kind := range kinds {
		q := g.asking(kind, key, dpop.Claims{URL: apiURL + "/public/x"})
		q.Host = "api.example.test"
		res := g.passes(q) // an ordinary request, for whichever route has the path
		assert.Empty(t, g.eventOf(res).Asker)
		assert.True(t, strings.HasPrefix(g.last().URL.Path, "/_gate/verify/"+kind))
		assert.Empty(t, res.Header["X-Auth-Subject"])
	}
}

func TestADescriptionIsWholeAndStandsOnce(t *testing.T) {
	g, key := newForwardAuth(t)
	for _, kind := range kinds[:4] {
		for _, name := range []string{"Method", "Uri", "Host"} {
			field := "X-Forwarded-" + name
			if kind == "nginx" && name != "Host" {
				field = "X-Original-" + name
			}
			q := g.asking(kind, key, dpop.Claims{})
			q.Header.Del(field)
			res, err := g.send(q)
			require.NoError(t, err)
			assert.GreaterOrEqual(t, res.StatusCode, 400)
			assert.Equal(t, proxy.DescriptionMissing, g.eventOf(res).Reason)

			q = g.asking(kind, key, dpop.Claims{})
			q.Header.Add(field, "/public/x")
			res, err = g.send(q)
			require.NoError(t, err)
			assert.GreaterOrEqual(t, res.StatusCode, 400)
			assert.Contains(t, []dpop.Reason{proxy.DescriptionRepeated, proxy.TargetAmbiguous}, g.eventOf(res).Reason)
		}
		for _, target := range []string{"https://api.example.test/v1/items", "*", "v1/items", "/v1/items#x", "/v1//items", "/v1/\x01items"} {
			q := g.asking(kind, key, dpop.Claims{})
			field := "X-Forwarded-Uri"
			if kind == "nginx" {
				field = "X-Original-Uri"
			}
			q.Header.Set(field, strings.ReplaceAll(target, "\x01", "%01"))
			res, err := g.send(q)
			require.NoError(t, err)
			assert.GreaterOrEqual(t, res.StatusCode, 400, target)
			assert.Equal(t, proxy.TargetAmbiguous, g.eventOf(res).Reason, target)
		}
	}
	assert.Zero(t, g.count())
}

func TestAMissingFieldNamesTheSettingThatSendsIt(t *testing.T) {
	g, key := newForwardAuth(t)
	q := g.asking("nginx", key, dpop.Claims{})
	q.Header.Del("X-Original-URI")
	res, err := g.send(q)
	require.NoError(t, err)
	assert.Equal(t, http.StatusForbidden, res.StatusCode)
	assert.Equal(t, "400", res.Header.Get("X-Dpopgate-Status"))
	assert.Contains(t, res.Header.Get("X-Dpopgate-Body"), "in X-Original-Uri, its config lacks a line that dpopgate init --for nginx writes")
	assert.ErrorContains(t, g.eventOf(res).Err, "proxy_set_header X-Original-URI $request_uri")
}

func TestPreflightsAreAnsweredWhereTheProxyPassesTheAnswerOn(t *testing.T) {
	g, _ := newForwardAuth(t)
	for _, kind := range kinds {
		r, err := http.NewRequest("OPTIONS", g.server.URL+"/v1/items", nil)
		require.NoError(t, err)
		r.Host = "api.example.test"
		r.Header.Set("Origin", "https://app.example.test")
		r.Header.Set("Access-Control-Request-Method", "GET")
		res, err := g.send(g.about(kind, r))
		require.NoError(t, err)
		switch kind {
		case "traefik":
			assert.Equal(t, http.StatusForbidden, res.StatusCode)
			assert.Equal(t, proxy.PreflightElsewhere, g.eventOf(res).Reason)
			continue
		case "nginx":
			assert.Equal(t, http.StatusForbidden, res.StatusCode)
			assert.Equal(t, "204", res.Header.Get("X-Dpopgate-Status"))
		default:
			assert.Equal(t, http.StatusNoContent, res.StatusCode, kind)
		}
		assert.Equal(t, "https://app.example.test", res.Header.Get("Access-Control-Allow-Origin"))
		assert.Contains(t, res.Header.Get("Access-Control-Allow-Headers"), "dpop")
	}
	assert.Zero(t, g.count())
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

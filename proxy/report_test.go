package proxy_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const reportYAML = `
public_urls: [https://api.example.test]
listen: {http: "127.0.0.1:0"}
store: {sqlite: unused.db}
routes:
  - {match: GET /v1/items, upstream: "${UPSTREAM}", scopes: [items:read], mode: report, nonce: "off", rate_limit: {per: token, requests: 3, window: 1h}}
  - {match: GET /v1/nonces, upstream: "${UPSTREAM}", mode: report, nonce: required}
  - {match: GET /v1/enforced, upstream: "${UPSTREAM}", nonce: "off"}
`

func newReporting(t *testing.T) (*rig, *dpop.Key) {
	g := newRigFrom(t, "report", []byte(reportYAML))
	key := vectorKeys(t)["K1"]
	g.rows.put("T1", bound(key.Thumbprint(), "items:read"))
	return g, key
}

// reports requires that a request is let through and noted with a reason. It answers what the upstream saw.
func (g *rig) reports(r *http.Request, reason dpop.Reason) *http.Request {
	g.t.Helper()
	n := g.count()
	res := g.passes(r)
	e := g.eventOf(res)
	assert.Equal(g.t, reason, e.Would)
	assert.Equal(g.t, proxy.Passed, e.Verdict)
	assert.Empty(g.t, e.Reason)
	assert.Empty(g.t, res.Header["Www-Authenticate"])
	require.Equal(g.t, n+1, g.count())
	return g.last()
}

func TestReportLetsThroughAndTellsWhatItWouldRefuse(t *testing.T) {
	g, key := newReporting(t)
	thief := vectorKeys(t)["K2"]
	g.rows.put("T2", bound(key.Thumbprint()))
	used := g.signed(key, dpop.Claims{})
	up := g.reports(used, "")
	assert.Equal(t, aUser.String(), up.Header.Get("X-Auth-Subject"), "all checks passed")

	for name, c := range map[string]struct {
		request func() *http.Request
		reason  dpop.Reason
		known   bool // whose token it is
	}{
		"used proof":     {func() *http.Request { return used }, dpop.ProofReplayed, true},
		"no credentials": {func() *http.Request { r := g.signed(key, dpop.Claims{}); r.Header.Del("Authorization"); return r }, dpop.CredentialsMissing, false},
		"no proof":       {func() *http.Request { r := g.signed(key, dpop.Claims{}); r.Header.Del("DPoP"); return r }, dpop.ProofMissing, true},
		"scheme Bearer": {func() *http.Request {
			r := g.signed(key, dpop.Claims{})
			r.Header.Del("DPoP")
			r.Header.Set("Authorization", "Bearer T1")
			return r
		}, dpop.SchemeUnsupported, true},
		"unknown token":    {func() *http.Request { return g.signed(key, dpop.Claims{Token: "T9"}) }, proxy.TokenUnknown, false},
		"another key":      {func() *http.Request { return g.signed(thief, dpop.Claims{}) }, dpop.KeyNotBound, true},
		"a scope too few":  {func() *http.Request { return g.signed(key, dpop.Claims{Token: "T2"}) }, proxy.ScopeMissing, true},
		"a proof of later": {func() *http.Request { return g.signed(key, dpop.Claims{IssuedAt: start.Add(time.Hour)}) }, dpop.IATFuture, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.request()
			r.Header.Set("X-Auth-Subject", "root")
			up := g.reports(r, c.reason)
			assert.Empty(t, up.Header["X-Auth-Subject"], "who calls was not established")
			assert.Empty(t, up.Header["Authorization"])
			assert.Equal(t, c.known, g.event().ClientID == aClient)
		})
	}

	g.rows.fail = errors.New("the store is down")
	g.reports(g.signed(key, dpop.Claims{}), proxy.StoreUnavailable)
	assert.EqualError(t, g.event().Err, "the store is down")
}

func TestReportCountsTheRateAndStillTellsWhoCalls(t *testing.T) {
	g, key := newReporting(t)
	for range 3 {
		g.reports(g.signed(key, dpop.Claims{}), "")
	}
	up := g.reports(g.signed(key, dpop.Claims{}), proxy.RateLimited)
	assert.Equal(t, aUser.String(), up.Header.Get("X-Auth-Subject"))
}

func TestReportStillRefusesWhatIsWrongWithTheRequestItself(t *testing.T) {
	g, key := newReporting(t)
	for _, c := range []struct {
		text   string
		status int
	}{
		{"GET /v1/items/../enforced HTTP/1.1\r\nHost: api.example.test\r\n", 400},
		{"GET /v1/other HTTP/1.1\r\nHost: api.example.test\r\n", 404},
		{"POST /v1/items HTTP/1.1\r\nHost: api.example.test\r\n", 405},
		{"GET /v1/items HTTP/1.1\r\nHost: other.example.test\r\n", 421},
		{"GET /v1/enforced HTTP/1.1\r\nHost: api.example.test\r\n", 401},
	} {
		assert.Equal(t, c.status, g.raw("GET", c.text+"Connection: close\r\n\r\n").StatusCode, c.text)
		assert.Empty(t, g.event().Would)
	}
	assert.Zero(t, g.count())
	g.refuses(g.signed(key, dpop.Claims{Token: "T9", URL: apiURL + "/v1/enforced"}), http.StatusUnauthorized, proxy.TokenUnknown)
	assert.Zero(t, g.count())
}

func TestReportGivesTheNonceThatItCannotAskFor(t *testing.T) {
	g, key := newReporting(t)
	url := apiURL + "/v1/nonces"
	res := g.passes(g.signed(key, dpop.Claims{URL: url}))
	assert.Equal(t, dpop.NonceMissing, g.eventOf(res).Would)
	nonce := res.Header.Get("DPoP-Nonce")
	require.NotEmpty(t, nonce)
	g.reports(g.signed(key, dpop.Claims{URL: url, Nonce: nonce}), "")
}

func TestExplainSaysThatReportLetsThrough(t *testing.T) {
	g, _ := newReporting(t)
	r := httptest.NewRequest("GET", "https://api.example.test/v1/items", nil)
	e := g.gateway.Explain(context.Background(), r, start)
	assert.True(t, e.Allowed)
	assert.Equal(t, http.StatusUnauthorized, e.Status)
	assert.Contains(t, g.gateway.Routes()[0].Access, "ANYONE: mode report refuses nothing")
}

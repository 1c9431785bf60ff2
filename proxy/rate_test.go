package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const limitedYAML = `
public_urls: [https://api.example.test]
listen: {http: "127.0.0.1:0", trusted_proxies: [127.0.0.1/32]}
store: {sqlite: unused.db}
dpop: {nonce: "off"}
routes:
  - {match: GET /v1/items, upstream: "${UPSTREAM}", scopes: [items:read], rate_limit: {per: %s, requests: 2, window: 10s}}
  - {match: GET /v1/burst, upstream: "${UPSTREAM}", rate_limit: {per: client, requests: 1, window: 1500ms, burst: 3}}
  - {match: GET /v1/free, upstream: "${UPSTREAM}"}
  - {match: GET /public/, upstream: "${UPSTREAM}", public: true, rate_limit: {per: ip, requests: 1, window: 1m}}
`

// newLimited is a rig whose items may be asked for twice in ten seconds.
func newLimited(t *testing.T, per string) (*rig, *dpop.Key) {
	g := newRigFrom(t, "limited", fmt.Appendf(nil, limitedYAML, per))
	key := vectorKeys(t)["K1"]
	g.rows.put("T1", bound(key.Thumbprint(), "items:read"))
	return g, key
}

// put adds a token like T1 with another jti, changed as change says.
func (g *rig) put(token string, key *dpop.Key, change func(*tokenstore.Record)) {
	rec := bound(key.Thumbprint(), "items:read")
	rec.JTI = uuid.New()
	if change != nil {
		change(&rec)
	}
	g.rows.put(token, rec)
}

func TestCallerOverItsRateIsToldWhenToComeBack(t *testing.T) {
	g, key := newLimited(t, "subject")
	res := g.passes(g.signed(key, dpop.Claims{}))
	assert.Equal(t, `"subject";q=2;w=10`, res.Header.Get("RateLimit-Policy"))
	assert.Equal(t, `"subject";r=1;t=5`, res.Header.Get("RateLimit"))
	g.offset.Add(int64(time.Second))
	res = g.passes(g.signed(key, dpop.Claims{}))
	assert.Equal(t, `"subject";r=0;t=9`, res.Header.Get("RateLimit"))
	res = g.refuses(g.signed(key, dpop.Claims{}), http.StatusTooManyRequests, proxy.RateLimited)
	assert.Equal(t, "4", res.Header.Get("Retry-After"))
	assert.Equal(t, `"subject";r=0;t=9`, res.Header.Get("RateLimit"))
	assert.Empty(t, res.Header.Get("WWW-Authenticate"))
	g.offset.Add(int64(4 * time.Second))
	g.passes(g.signed(key, dpop.Claims{}))
	g.refuses(g.signed(key, dpop.Claims{}), http.StatusTooManyRequests, proxy.RateLimited)

	res = g.passes(g.signed(key, dpop.Claims{URL: apiURL + "/v1/free"}))
	assert.Empty(t, res.Header.Get("RateLimit"), "on a route without a limit")
}

func TestBurstMayComeAtOnceAndComesBackAtTheRate(t *testing.T) {
	g, key := newLimited(t, "subject")
	burst := dpop.Claims{URL: apiURL + "/v1/burst"}
	for range 3 {
		res := g.passes(g.signed(key, burst))
		assert.Equal(t, `"client";q=3;w=5`, res.Header.Get("RateLimit-Policy"))
	}
	g.refuses(g.signed(key, burst), http.StatusTooManyRequests, proxy.RateLimited)
	g.offset.Add(int64(time.Minute)) // a full bucket does not get fuller
	for range 3 {
		g.passes(g.signed(key, burst))
	}
	res := g.refuses(g.signed(key, burst), http.StatusTooManyRequests, proxy.RateLimited)
	assert.Equal(t, "2", res.Header.Get("Retry-After"))
	g.offset.Add(-int64(10 * time.Minute)) // a clock set back locks nobody out for longer than an empty bucket does
	rec := bound(key.Thumbprint(), "items:read")
	rec.ExpiresAt = g.now().Add(time.Hour)
	g.rows.put("T1", rec)
	res = g.refuses(g.signed(key, burst), http.StatusTooManyRequests, proxy.RateLimited)
	assert.Equal(t, "2", res.Header.Get("Retry-After"))
}

func TestRequestsAreCountedForWhomTheRouteSays(t *testing.T) {
	otherUser := func(r *tokenstore.Record) { r.UserID.UUID = uuid.New() }
	otherClient := func(r *tokenstore.Record) { r.ClientID = uuid.New() }
	both := func(r *tokenstore.Record) { otherUser(r); otherClient(r) }
	noUser := func(r *tokenstore.Record) { r.UserID = uuid.NullUUID{} }
	for _, c := range []struct {
		per, name string
		change    func(*tokenstore.Record)
		shares    bool
	}{
		{"subject", "another token of the same user", nil, true},
		{"subject", "the same user at another client", otherClient, true},
		{"subject", "another user", otherUser, false},
		{"subject", "the client itself", noUser, false},
		{"client", "another user of the same client", otherUser, true},
		{"client", "the client itself", noUser, true},
		{"client", "another client", otherClient, false},
		{"token", "another token of the same user and client", nil, false},
		{"ip", "another user and client", both, true},
	} {
		t.Run(c.per+"/"+c.name, func(t *testing.T) {
			g, key := newLimited(t, c.per)
			g.put("T2", key, c.change)
			g.passes(g.signed(key, dpop.Claims{}))
			g.passes(g.signed(key, dpop.Claims{}))
			g.refuses(g.signed(key, dpop.Claims{}), http.StatusTooManyRequests, proxy.RateLimited)
			if c.shares {
				g.refuses(g.signed(key, dpop.Claims{Token: "T2"}), http.StatusTooManyRequests, proxy.RateLimited)
			} else {
				g.passes(g.signed(key, dpop.Claims{Token: "T2"}))
			}
		})
	}
}

func TestTokensWithoutAUserCountForTheirClient(t *testing.T) {
	g, key := newLimited(t, "subject")
	noUser := func(r *tokenstore.Record) { r.UserID = uuid.NullUUID{} }
	g.put("T1", key, noUser)
	g.put("T2", key, noUser)
	g.put("T3", key, func(r *tokenstore.Record) { noUser(r); r.ClientID = uuid.New() })
	g.passes(g.signed(key, dpop.Claims{}))
	g.passes(g.signed(key, dpop.Claims{}))
	g.refuses(g.signed(key, dpop.Claims{Token: "T2"}), http.StatusTooManyRequests, proxy.RateLimited)
	g.passes(g.signed(key, dpop.Claims{Token: "T3"}))
}

func TestNobodyUsesUpWhatIsAnothers(t *testing.T) {
	g, key := newLimited(t, "subject")
	thief := vectorKeys(t)["K2"]
	g.put("T2", key, func(r *tokenstore.Record) { r.Scopes = nil })
	for range 5 {
		g.refuses(g.signed(thief, dpop.Claims{}), http.StatusUnauthorized, dpop.KeyNotBound)
		g.refuses(g.signed(key, dpop.Claims{Token: "T2"}), http.StatusForbidden, proxy.ScopeMissing)
	}
	used := g.signed(key, dpop.Claims{})
	g.passes(used)
	for range 5 {
		g.refuses(used, http.StatusUnauthorized, dpop.ProofReplayed)
	}
	g.passes(g.signed(key, dpop.Claims{}))
	g.refuses(g.signed(key, dpop.Claims{}), http.StatusTooManyRequests, proxy.RateLimited)
}

func TestPublicRouteCountsByAddress(t *testing.T) {
	g, _ := newLimited(t, "subject")
	from := func(address string) *http.Response {
		return g.raw("GET", "GET /public/x HTTP/1.1\r\nHost: api.example.test\r\nX-Forwarded-For: "+address+"\r\nConnection: close\r\n\r\n")
	}
	for _, address := range []string{"192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1"} {
		assert.Equal(t, http.StatusOK, from(address).StatusCode, address)
	}
	n := g.count()
	for _, address := range []string{"192.0.2.1", "::ffff:192.0.2.1", "6.6.6.6, 192.0.2.1", "2001:db8:0:1:ffff::2"} {
		res := from(address)
		assert.Equal(t, http.StatusTooManyRequests, res.StatusCode, address)
		assert.Equal(t, "60", res.Header.Get("Retry-After"))
	}
	assert.Equal(t, n, g.count(), "what the upstream saw")
}

func TestManyCallersShareABoundedMemory(t *testing.T) {
	g, _ := newLimited(t, "subject")
	const callers = 70_000
	taken := proxy.FillLimiter(g.gateway, "GET /public/", 0, callers, g.now())
	assert.Less(t, taken, callers, "while all buckets are in use, those who find no room share")
	assert.GreaterOrEqual(t, taken, 60_000)
	assert.LessOrEqual(t, proxy.LimiterSize(g.gateway, "GET /public/"), 1<<16)
	g.offset.Add(int64(2 * time.Minute))
	assert.Equal(t, callers/2, proxy.FillLimiter(g.gateway, "GET /public/", callers, callers/2, g.now()), "buckets that filled up make room")
}

func TestNoMoreThanTheBurstPassAtOnce(t *testing.T) {
	g, key := newLimited(t, "subject")
	requests := make([]*http.Request, 20)
	for i := range requests {
		requests[i] = g.signed(key, dpop.Claims{})
	}
	var passed atomic.Int32
	var group sync.WaitGroup
	for _, r := range requests {
		group.Go(func() {
			if res, err := g.send(r); assert.NoError(t, err) && res.StatusCode == http.StatusOK {
				passed.Add(1)
			}
		})
	}
	group.Wait()
	assert.EqualValues(t, 2, passed.Load())
	assert.Equal(t, 2, g.count(), "what the upstream saw")
}

func TestReloadForgetsNoCountOfALimitThatStays(t *testing.T) {
	g, key := newLimited(t, "subject")
	reload := func(per string) {
		names := map[string]string{"UPSTREAM": g.api}
		c, err := config.Parse("limited.yaml", fmt.Appendf(nil, limitedYAML, per), func(key string) (string, bool) { v, ok := names[key]; return v, ok })
		require.NoError(t, err)
		require.NoError(t, g.gateway.Reload(c))
	}
	g.passes(g.signed(key, dpop.Claims{}))
	g.passes(g.signed(key, dpop.Claims{}))
	reload("subject")
	g.refuses(g.signed(key, dpop.Claims{}), http.StatusTooManyRequests, proxy.RateLimited)
	reload("client")
	g.passes(g.signed(key, dpop.Claims{}))
}

func TestUpstreamsOwnRateLimitFieldsGiveWayToOurs(t *testing.T) {
	g, key := newLimited(t, "subject")
	g.reply = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("RateLimit", `"own";r=9;t=1`)
		w.Header().Set("RateLimit-Policy", `"own";q=9;w=1`)
	}
	res := g.passes(g.signed(key, dpop.Claims{}))
	assert.Equal(t, []string{`"subject";r=1;t=5`}, res.Header.Values("RateLimit"))
	assert.Equal(t, []string{`"subject";q=2;w=10`}, res.Header.Values("RateLimit-Policy"))
	res = g.passes(g.signed(key, dpop.Claims{URL: apiURL + "/v1/free"}))
	assert.Equal(t, `"own";r=9;t=1`, res.Header.Get("RateLimit"))
}

func TestRouteTableTellsOfTheLimits(t *testing.T) {
	g, _ := newLimited(t, "subject")
	var words []string
	for _, r := range g.gateway.Routes() {
		words = append(words, r.Access)
	}
	all := strings.Join(words, "\n")
	assert.Contains(t, all, "scope items:read, limited to 2 in 10s per subject, 2 at once")
	assert.Contains(t, all, "public: anyone, without a token, limited to 1 in 1m per ip, 1 at once")
}

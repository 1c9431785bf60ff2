package proxy_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// conformance: LOG-01
// attack: 194
func TestNothingSecretIsTold(t *testing.T) {
	const token = "a-token-that-nobody-may-see"
	g, key := newAPI(t, "nonce-required")
	g.rows.put(token, bound(key.Thumbprint(), "items:read"))
	nonce := challenged(g, key)
	secrets := []string{token, nonce}
	try := func(c dpop.Claims, change func(r *http.Request)) {
		c.Token, c.Nonce = token, nonce
		r := g.signed(key, c)
		proof := r.Header.Get("DPoP")
		parts := strings.Split(proof, ".")
		secrets = append(secrets, proof, parts[1], parts[2])
		if change != nil {
			change(r)
		}
		_, err := g.send(r)
		require.NoError(t, err)
	}
	try(dpop.Claims{}, nil)
	try(dpop.Claims{Method: "POST"}, nil)
	try(dpop.Claims{URL: apiURL + "/nothing"}, nil)
	try(dpop.Claims{IssuedAt: start.Add(-time.Hour)}, nil)
	try(dpop.Claims{}, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) })
	try(dpop.Claims{}, func(r *http.Request) { r.Header.Set("Authorization", token) })
	try(dpop.Claims{}, func(r *http.Request) { r.Header.Add("Authorization", "DPoP "+token) })
	try(dpop.Claims{}, func(r *http.Request) { r.Header.Set("Authorization", "DPoP "+token+"x") })
	try(dpop.Claims{}, func(r *http.Request) { r.Header.Del("DPoP") })
	try(dpop.Claims{}, func(r *http.Request) { r.Header.Set("DPoP", token) })
	try(dpop.Claims{}, func(r *http.Request) { r.Header.Set("DPoP", r.Header.Get("DPoP")+"x") })
	try(dpop.Claims{}, func(r *http.Request) { r.Header.Del("Authorization"); r.URL.RawQuery = "access_token=" + token })
	try(dpop.Claims{}, func(r *http.Request) { r.URL.RawQuery = "access_token=" + token })
	try(dpop.Claims{}, func(r *http.Request) { r.Header.Set("Cookie", "access_token="+token) })
	g.rows.fail = fmt.Errorf("the store is away")
	try(dpop.Claims{}, nil)
	g.rows.fail = nil
	g.reply = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	try(dpop.Claims{}, nil)
	log := g.log.String()
	require.GreaterOrEqual(t, strings.Count(log, "\n"), 17)
	assert.Contains(t, log, key.Thumbprint())
	assert.Contains(t, log, "7d4f6c1a-55a1-4e8e-9a2c-6f0c8a1b0003", "the jti of the token")
	for _, secret := range secrets {
		assert.NotContains(t, log, secret)
	}
}

// conformance: LOG-02
// attack: 195
func TestNoTextOfAClientMakesALine(t *testing.T) {
	g, key := newAPI(t, "base")
	const evil = "x\n{\"level\":\"ERROR\"}\r\x1b[31m\u2028\x00"
	g.passes(g.signed(key, dpop.Claims{JTI: evil}))
	for _, change := range []func(c *dpop.Claims){
		func(c *dpop.Claims) { c.JTI = evil },
		func(c *dpop.Claims) { c.Nonce = evil },
	} {
		c := dpop.Claims{}
		change(&c)
		_, err := g.send(g.signed(key, c))
		require.NoError(t, err)
	}
	for _, htu := range []string{evil, apiURL + "/v1/items" + evil} {
		proof, err := key.Sign(dpop.Claims{Method: "GET", URL: htu, Token: "T1", IssuedAt: g.now()})
		require.NoError(t, err)
		r := g.signed(key, dpop.Claims{})
		r.Header.Set("DPoP", proof)
		g.refuses(r, http.StatusUnauthorized, dpop.HTUMismatch)
	}
	g.raw("GET", "GET /v1/\x1b[31m HTTP/1.1\r\nHost: api.example.test\r\nConnection: close\r\n\r\n")
	g.raw("GET", "GET /v1/items HTTP/1.1\r\nHost: \x85evil\r\nConnection: close\r\n\r\n")
	lines := strings.Split(strings.TrimSuffix(g.log.String(), "\n"), "\n")
	assert.Len(t, lines, g.told())
	for _, line := range lines {
		var event map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &event))
		assert.Equal(t, "INFO", event["level"])
		assert.NotContains(t, line, "\x1b")
		assert.NotContains(t, line, "\r")
	}
}

// Metrics are made of these words of an event, and of no others that a client could choose.
//
// conformance: LOG-03
// attack: 147
func TestWordsOfEventsAreBounded(t *testing.T) {
	g, key := newAPI(t, "base")
	routes, reasons, verdicts, schemes := map[string]bool{}, map[dpop.Reason]bool{}, map[proxy.Verdict]bool{}, map[string]bool{}
	for i := range 10_000 {
		odd := uuid.NewString()
		var r *http.Request
		switch i % 5 {
		case 0:
			r = g.signed(key, dpop.Claims{JTI: odd, URL: apiURL + "/v1/any/" + odd})
		case 1:
			r = g.signed(key, dpop.Claims{JTI: odd, URL: apiURL + "/" + odd})
		case 2:
			r = g.signed(key, dpop.Claims{JTI: odd})
			r.Method = "M" + strings.ToUpper(odd)
		case 3:
			r = g.signed(key, dpop.Claims{JTI: odd})
			r.Host = odd + ".test"
		case 4:
			r = g.signed(key, dpop.Claims{JTI: odd})
			r.Header.Set("Authorization", odd+" T1")
		}
		if i%5 == 0 && i > 100 {
			r.Header.Del("Authorization") // the upstream need not see thousands
		}
		r.RequestURI = r.URL.RequestURI()
		r.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		g.gateway.ServeHTTP(w, r)
		io.Copy(io.Discard, w.Body)
		e := g.event()
		routes[e.Route], reasons[e.Reason], verdicts[e.Verdict], schemes[e.Scheme] = true, true, true, true
	}
	assert.Equal(t, map[string]bool{"": true, "/v1/any/": true, "GET /v1/items": true}, routes)
	assert.Equal(t, map[dpop.Reason]bool{
		"": true, dpop.CredentialsMissing: true, proxy.RouteMissing: true, proxy.MethodRefused: true,
		proxy.HostUnknown: true, dpop.SchemeUnsupported: true,
	}, reasons)
	assert.Equal(t, map[proxy.Verdict]bool{proxy.Passed: true, proxy.Refused: true}, verdicts)
	assert.Equal(t, map[string]bool{"": true, dpop.SchemeDPoP: true}, schemes)
}

package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
)

// ask sends bytes to listen.http and reads one answer.
func askCleartext(t *testing.T, address, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = conn.Write([]byte(request))
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	return res
}

// conformance: NET-01
// attack: 205
func TestCleartextIsSentToHTTPSAndNeverServed(t *testing.T) {
	t.Parallel()
	upstream, got := echoed(t)
	g, _ := startInternal(t, upstream, "api.example.test", "localhost")
	key, _, token := g.credentials(t)
	for _, c := range []struct{ host, target, location string }{
		{"api.example.test", "/", g.at("api.example.test") + "/"},
		{"API.Example.Test:80", "/orders/?q=a%20b&c=;d", g.at("api.example.test") + "/orders/?q=a%20b&c=;d"},
		{"localhost:8080", "/%7E/a%2Fb//c/../d", g.at("localhost") + "/%7E/a%2Fb//c/../d"},
		{"localhost", "//evil.example/x", g.at("localhost") + "//evil.example/x"},
		{"localhost", "/.well-known/acme-challenge/token", g.at("localhost") + "/.well-known/acme-challenge/token"}, // nobody has a challenge
	} {
		for _, method := range []string{"GET", "POST", "PUT"} {
			proof, err := key.Sign(dpop.Claims{Method: method, URL: "http://" + c.host + strings.Split(c.target, "?")[0], Token: token})
			require.NoError(t, err)
			res := askCleartext(t, g.http, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: DPoP %s\r\nDPoP: %s\r\nContent-Length: 0\r\n\r\n",
				method, c.target, c.host, token, proof))
			assert.Equal(t, http.StatusPermanentRedirect, res.StatusCode)
			assert.Equal(t, c.location, res.Header.Get("Location"))
			assert.True(t, res.Close)
			assert.NotContains(t, res.Header, "Strict-Transport-Security")
			assert.NotContains(t, res.Header, "Dpop-Nonce")
		}
	}
	for request, status := range map[string]int{
		"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n":                                     421,
		"GET / HTTP/1.1\r\nHost: api.example.test.evil.example\r\n\r\n":                    421,
		"GET / HTTP/1.1\r\nHost: \r\n\r\n":                                                 421,
		"GET / HTTP/1.0\r\n\r\n":                                                           421,
		"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n":                     421,
		"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n":                        400,
		"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n":                                    405,
		"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n":                                      405,
		"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n":                    405,
		"GET /x\r\nX: y HTTP/1.1\r\nHost: localhost\r\n\r\n":                               400,
		"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n":                     400,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":                                                 421,
		"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + longText(40<<10) + "\r\n\r\n":         431,
		"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n": 308,
	} {
		assert.Equal(t, status, askCleartext(t, g.http, request).StatusCode, "%.60q", request)
	}
	assert.Empty(t, *got)
	assert.NotContains(t, g.log.String(), `"msg":"request"`, "no request came to the gateway itself")
}

func longText(n int) string { return strings.Repeat("x", n) }

// conformance: NET-03
// attack: 201
func TestPathOfChallengesLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	c := newCleartext([]string{"https://api.example.test"}, func(w http.ResponseWriter, r *http.Request) bool {
		asked <- r.RequestURI
		return false
	})
	ask := func(method, target string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/", nil)
		r.RequestURI, r.Host = target, "api.example.test"
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		return w
	}
	for _, target := range []string{
		"../../v1/items", "%2e%2e/%2e%2e/v1/items", "..%2f..%2fv1/items", "..;/..;/v1/items", "/v1/items", "a/../../../v1/items",
		"", "a/b", "a?b=c", "a.b", "a%00", "a\\b", "ü",
	} {
		w := ask("GET", challengePath+target)
		assert.Equal(t, http.StatusNotFound, w.Code, target)
		assert.Equal(t, "challenge_unknown", refusalOf(t, w.Body.String()))
		assert.Empty(t, w.Header().Get("Location"))
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "get"} {
		assert.Equal(t, http.StatusNotFound, ask(method, challengePath+"token").Code)
	}
	assert.Empty(t, asked, "what is no token of a challenge is not looked up")
	assert.Equal(t, http.StatusNotFound, ask("GET", challengePath+"A-token_1").Code)
	assert.Equal(t, challengePath+"A-token_1", <-asked)
	assert.Equal(t, http.StatusPermanentRedirect, ask("GET", "/.well-known/acme-challenges/x").Code)
}

// attack: 201
func TestChallengesOfStrangersAreBounded(t *testing.T) {
	t.Parallel()
	arrived, hold := make(chan struct{}), make(chan struct{})
	c := newCleartext([]string{"https://api.example.test"}, func(_ http.ResponseWriter, r *http.Request) bool {
		_, bounded := r.Context().Deadline()
		assert.True(t, bounded)
		arrived <- struct{}{}
		<-hold
		return false
	})
	ask := func() int {
		r := httptest.NewRequest(http.MethodGet, challengePath+"token", nil)
		r.Host = "api.example.test"
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		return w.Code
	}
	ended := make(chan int)
	for range challengeLookups {
		go func() { ended <- ask() }()
		<-arrived
	}
	assert.Equal(t, http.StatusNotFound, ask(), "at once, while the others wait")
	close(hold)
	for range challengeLookups {
		assert.Equal(t, http.StatusNotFound, <-ended)
	}
}

func TestRedirectPrefersThePublicURLWithTheUsualPort(t *testing.T) {
	t.Parallel()
	c := newCleartext([]string{"https://api.example.test:8443", "https://api.example.test", "https://[2001:db8::1]:8443/api"}, nil)
	for host, location := range map[string]string{
		"api.example.test":      "https://api.example.test/a",
		"api.example.test:8443": "https://api.example.test/a",
		"[2001:db8::1]:80":      "https://[2001:db8::1]:8443/a",
		"[2001:db8::1]":         "https://[2001:db8::1]:8443/a",
	} {
		r := httptest.NewRequest(http.MethodGet, "/a", nil)
		r.Host = host
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		assert.Equal(t, location, w.Header().Get("Location"), host)
	}
}

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
)

// spoken is all that a URL answers: status, header and body.
func spoken(t *testing.T, r *http.Request) string {
	t.Helper()
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	require.NoError(t, err)
	defer res.Body.Close()
	var b strings.Builder
	fmt.Fprintln(&b, res.Status)
	require.NoError(t, res.Header.Write(&b))
	_, err = io.Copy(&b, io.LimitReader(res.Body, 1<<20))
	require.NoError(t, err)
	return b.String()
}

// asked is a GET.
func asked(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	require.NoError(t, err)
	return r
}

// Every secret that a gateway is given, and a token and a proof for each thing that may become of them; and then all
// that it says to anybody: its log, its answers, its metrics, its readiness, and what the commands print of its config.
//
// attack: 194
func TestNoSecretComesOut(t *testing.T) {
	secrets := map[string]string{
		"DSN": "canary-of-the-database", "KEY": "canary-of-the-digests-which-is-long", "NONCE": "canary-of-the-nonces-which-is-long-too", "BASIC": "canary-of-the-legacy-api",
	}
	for name, value := range secrets {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, []byte(value), 0o600))
		secrets[name] = path
	}
	file := func(name string) string { return "${file:" + secrets[name] + "}" }
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "legacy") }))
	t.Cleanup(up.Close)
	for name, store := range map[string]string{
		"embedded":    fmt.Sprintf("{sqlite: %q, digest: hmac-sha256, digest_key: %q}", filepath.Join(t.TempDir(), "tokens.db"), file("KEY")),
		"unreachable": fmt.Sprintf("{postgres: %q, digest: hmac-sha256, digest_key: %q}", "postgres://u:"+file("DSN")+"@127.0.0.1:1/d", file("KEY")),
	} {
		t.Run(name, func(t *testing.T) {
			g := startGatewayOn(t, store, `
  - {match: /echo/, upstream: legacy, scopes: [a]}
  - {match: /nonce/, upstream: legacy, nonce: required}
  - {match: /broken/, upstream: "http://127.0.0.1:9"}
  - {match: /public/, upstream: legacy, public: true}`, fmt.Sprintf("upstreams: {legacy: {targets: [%q], headers: {Authorization: %q}}}\ndpop: {nonce_key: %q}", up.URL, "Basic "+file("BASIC"), file("NONCE")))
			token := "canary-token-that-nobody-has"
			keyFile := newClientKey(t)
			if name == "embedded" {
				issued := shell{}.run(t, "token", "issue", "-c", g.path, "--client", "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11", "--scope", "a", "--key", keyFile)
				require.Equal(t, exitOK, issued.code, issued.stderr)
				token = strings.TrimSpace(issued.stdout)
			}
			private, err := os.ReadFile(keyFile)
			require.NoError(t, err)
			key, err := dpop.ReadKey(private)
			require.NoError(t, err)
			var said strings.Builder
			canaries := []string{token, "canary-of-"}
			for _, scheme := range []string{"DPoP ", "Bearer ", "", "DPoP x"} {
				for _, path := range []string{"/echo/", "/nonce/", "/broken/", "/public/", "/nowhere", "/echo/?access_token=" + token, "/echo/%2e%2e/" + token} {
					proof, err := key.Sign(dpop.Claims{Method: http.MethodGet, URL: g.url + strings.Split(path, "?")[0], Token: token})
					require.NoError(t, err)
					canaries = append(canaries, strings.Split(proof, ".")[1:]...)
					for range 2 {
						r := asked(t, g.url+path)
						r.Header = http.Header{"Authorization": {scheme + token}, "Dpop": {proof}}
						said.WriteString(spoken(t, r))
					}
				}
			}
			g.signals <- syscall.SIGHUP // a reload that changes nothing
			g.awaitLog(t, `"msg":"config reloaded"`)
			require.NoError(t, os.WriteFile(g.path, []byte("store: {postgres: canary-of-a-typo, postgres: x}\n"), 0o600))
			g.signals <- syscall.SIGHUP
			for _, path := range []string{"/metrics", "/readyz?verbose", "/readyz", "/healthz", "/nothing", "/", "/status", "/report"} {
				said.WriteString(spoken(t, asked(t, g.admin+path)))
			}
			g.configure(t, `  - {match: /, upstream: "http://127.0.0.1:9"}`, "dpop: {nonce_key: \""+file("NONCE")+"\"}")
			for _, command := range [][]string{
				{"validate", "-c", g.path},
				{"validate", "-c", g.path, "--connect"},
				{"token", "list", "-c", g.path},
				{"migrate", "-c", g.path, "--check"},
				{"explain", "-c", g.path, "--token", token, "--method", "GET", "--url", g.url + "/x", "--proof", "a.b.c"},
			} {
				result := shell{}.run(t, command...)
				said.WriteString(result.stdout + result.stderr)
			}
			g.signals <- syscall.SIGTERM
			g.signals <- syscall.SIGTERM
			<-g.exit
			said.WriteString(g.log.String())
			require.Greater(t, strings.Count(said.String(), "\n"), 300)
			for _, canary := range canaries {
				if canary == token && strings.Contains(said.String(), "%2e%2e/"+token) {
					continue // a path is no place for a token, and is logged
				}
				assert.NotContains(t, said.String(), canary)
			}
		})
	}
}

// attack: 197
func TestManagementIsOnItsOwnPortAlone(t *testing.T) {
	t.Parallel()
	g := startGateway(t, `  - {match: /orders/, upstream: "http://127.0.0.1:9"}`, "")
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/livez", "/ping", "/debug/pprof/", "/debug/vars", "/config", "/status", "/admin"} {
		assert.Contains(t, spoken(t, asked(t, g.url+path)), "404 Not Found", path)
	}
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/vars", "/config"} {
		assert.Contains(t, spoken(t, asked(t, g.admin+path)), "404 Not Found", path)
	}
	for _, path := range []string{"/metrics", "/readyz", "/healthz", "/config"} {
		r, err := http.NewRequest(http.MethodPost, g.admin+path, strings.NewReader("x"))
		require.NoError(t, err)
		r.Host = "rebind.test"
		r.Header.Set("Origin", "http://evil.test")
		assert.Contains(t, spoken(t, r), "421 Misdirected Request", path)
		r = asked(t, g.admin+path)
		r.Header.Set("Origin", "http://evil.test")
		assert.NotContains(t, spoken(t, r), "Access-Control", path)
	}
}

// attack: 146
func TestHealthcheckDoesNotReadAnEndlessAnswer(t *testing.T) {
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	}))
	t.Cleanup(endless.Close)
	assert.Equal(t, exitOK, shell{}.run(t, "healthcheck", "--url", endless.URL).code)
}

package main

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestChromiumMakesTheJourney has a page of the API's own https origin call the API over HTTP/2, with a key that script
// cannot read. Chromium trusts the one key of the gateway's certificate, and complains of any other as it does for people.
func TestChromiumMakesTheJourney(t *testing.T) {
	upstream, got := answering(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/page" {
			serveStranger(w, r)
			return
		}
		fmt.Fprintf(w, "%s %s", r.Method, r.RequestURI)
	})
	folder := filepath.Join(t.TempDir(), "ca")
	g := newHTTPSGateway(t, fmt.Sprintf("{internal: true, internal_storage: %q}", folder), upstream, "api.example.test", "other.example.test")
	g.routes += "\n  - {match: GET /page, upstream: " + upstream + ", public: true}"
	g.start(t)
	g.roots = poolOf(t, rootFile(folder))
	pin := sha256.Sum256(g.served(t, "api.example.test").RawSubjectPublicKeyInfo)
	browser := startChromium(t,
		chromedp.Flag("ignore-certificate-errors-spki-list", base64.StdEncoding.EncodeToString(pin[:])),
		chromedp.Flag("host-resolver-rules", "MAP *.example.test 127.0.0.1"),
	)
	tab := openTab(t, browser)
	err := chromedp.Do(tab.ctx, chromedp.Navigate(g.at("other.example.test")+"/page"))
	require.ErrorContains(t, err, "ERR_CERT_AUTHORITY_INVALID", "a certificate with another key")
	require.Empty(t, *got)

	tab.visit(t, g.url+"/page")
	issued := shell{}.run(t, "token", "issue", "-c", g.path, "--client", "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11",
		"--user", "0b9f6f5e-3c51-4f0a-8f6c-0f1f6a2f9d10", "--scope", "a", "--jkt", evaluate[string](t, tab, `newClient()`))
	require.Equal(t, exitOK, issued.code, issued.stderr)
	require.True(t, evaluate[bool](t, tab, fmt.Sprintf("setToken(%q)", strings.TrimSpace(issued.stdout))))
	assert.False(t, evaluate[bool](t, tab, `key.privateKey.extractable`))

	url := g.url + "/orders/"
	require.True(t, strings.HasPrefix(url, "https://"))
	answer := ask(t, tab, url, `{}`)
	assert.Equal(t, http.StatusOK, answer.Status, answer.Body)
	assert.Equal(t, "GET /orders/", answer.Body)
	assert.Equal(t, "h2", poll[string](t, tab, fmt.Sprintf("performance.getEntriesByName(%q, 'resource')[0]?.nextHopProtocol", url)))
	require.Len(t, *got, 2, "the page, and the call")
	identity := (*got)[1].header
	assert.Equal(t, "0b9f6f5e-3c51-4f0a-8f6c-0f1f6a2f9d10", identity.Get("X-Auth-Subject"))
	assert.Equal(t, "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11", identity.Get("X-Auth-Client"))
	assert.Equal(t, "a", identity.Get("X-Auth-Scope"))
	assert.Equal(t, "DPoP", identity.Get("X-Auth-Token-Type"))

	answer = ask(t, tab, url, fmt.Sprintf("{claims: {htu: %q}}", strings.Replace(url, "https:", "http:", 1)))
	assert.Equal(t, http.StatusUnauthorized, answer.Status)
	assert.Contains(t, answer.Challenge, `error="invalid_dpop_proof"`)
	assert.Contains(t, answer.Body, "the scheme of htu differs, expected https")
	g.awaitLog(t, `"reason":"htu_mismatch"`)
	assert.Len(t, *got, 2, "the refused call does not reach the upstream")
	assert.Empty(t, tab.complaints(t))
	tab.close()
}

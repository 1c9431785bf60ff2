package proxy_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// conformance: UPS-01
func TestUpstreamIsToldThisAndNothingElse(t *testing.T) {
	g, key := newAPI(t, "base")
	r := g.signed(key, dpop.Claims{})
	r.Header.Set("User-Agent", "a client")
	g.passes(r)
	var names []string
	for name := range g.last().Header {
		names = append(names, name)
	}
	slices.Sort(names)
	assert.Equal(t, []string{
		"Accept-Encoding", "User-Agent",
		"X-Auth-Client", "X-Auth-Expires", "X-Auth-Scope", "X-Auth-Subject", "X-Auth-Token-Id", "X-Auth-Token-Type",
		"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Request-Id",
	}, names)
}

// conformance: UPS-08
func TestLongValueOfTheTableGoesWhole(t *testing.T) {
	g, key := newAPI(t, "device")
	for _, text := range []string{strings.Repeat("a", 16<<10), strings.Repeat("ü", 8<<10)} {
		rec := bound(key.Thumbprint(), "items:read")
		rec.Metadata = []byte(`{"device":"` + text + `"}`)
		g.rows.put("T1", rec)
		g.passes(g.signed(key, dpop.Claims{}))
		assert.Equal(t, strings.ReplaceAll(text, "ü", "%C3%BC"), g.last().Header.Get("X-Auth-Device"))
	}
}

// conformance: UPS-09
func TestUpstreamGetsCredentialsOnlyWhereTheConfigSaysSo(t *testing.T) {
	for rig, want := range map[string]string{"base": "", "keep": "DPoP T1", "bearer": "Bearer T1"} {
		g, key := newAPI(t, rig)
		r := g.signed(key, dpop.Claims{})
		g.passes(r)
		assert.Equal(t, want, g.last().Header.Get("Authorization"), rig)
		if rig == "keep" {
			assert.Equal(t, r.Header.Get("DPoP"), g.last().Header.Get("DPoP"))
		} else {
			assert.Empty(t, g.last().Header["Dpop"], rig)
		}
	}
}

// accepts is a listener that counts connections.
type accepts struct {
	net.Listener
	count atomic.Int32
}

func (a *accepts) Accept() (net.Conn, error) {
	conn, err := a.Listener.Accept()
	if err == nil {
		a.count.Add(1)
	}
	return conn, err
}

// inFrontOf is the rig of that name with another upstream.
func inFrontOf(t *testing.T, name, upstream string) (*rig, *dpop.Key) {
	yaml, err := os.ReadFile("../testdata/vectors/rigs/" + name + ".yaml")
	require.NoError(t, err)
	g := newRigFrom(t, name, bytes.ReplaceAll(yaml, []byte("${UPSTREAM}"), []byte(upstream)))
	key := vectorKeys(t)["K1"]
	g.rows.put("T1", bound(key.Thumbprint(), "items:read"))
	return g, key
}

// conformance: UPS-16
func TestRefusedRequestOpensNoConnection(t *testing.T) {
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "legacy") }))
	listener := &accepts{Listener: up.Listener}
	up.Listener = listener
	up.Start()
	t.Cleanup(up.Close)
	g, key := inFrontOf(t, "base", up.URL)
	other := vectorKeys(t)["K2"]
	refused := func(c dpop.Claims, change func(r *http.Request)) {
		r := g.signed(key, c)
		change(r)
		res, err := g.send(r)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, res.StatusCode, 400)
	}
	refused(dpop.Claims{}, func(r *http.Request) { r.Header.Del("Authorization") })
	refused(dpop.Claims{}, func(r *http.Request) { r.Header.Del("DPoP") })
	refused(dpop.Claims{}, func(r *http.Request) { r.Header.Set("DPoP", "a.b.c") })
	refused(dpop.Claims{}, func(r *http.Request) { r.Header.Set("Authorization", "Bearer T1") })
	refused(dpop.Claims{}, func(r *http.Request) { r.Host = "evil.test" })
	refused(dpop.Claims{}, func(r *http.Request) { r.URL.Path = "/nothing" })
	refused(dpop.Claims{}, func(r *http.Request) { r.URL.RawPath, r.URL.Path = "/public/%2e%2e/admin", "/public/../admin" })
	refused(dpop.Claims{}, func(r *http.Request) { r.Method = "TRACE" })
	refused(dpop.Claims{Token: "T9"}, func(*http.Request) {})
	refused(dpop.Claims{Method: "POST"}, func(*http.Request) {})
	refused(dpop.Claims{URL: apiURL + "/admin/x"}, func(*http.Request) {})
	refused(dpop.Claims{}, func(r *http.Request) { r.Header.Set("DPoP", g.signed(other, dpop.Claims{}).Header.Get("DPoP")) })
	assert.Zero(t, listener.count.Load(), "connections to the upstream")
	r := g.signed(key, dpop.Claims{})
	g.passes(r)
	g.refuses(r, http.StatusUnauthorized, dpop.ProofReplayed)
	assert.EqualValues(t, 1, listener.count.Load(), "connections to the upstream")
}

// The gateway's own TLS listener has tests where it is made; this is its other side.
//
// conformance: NET-05
func TestUpstreamOfOldTLSIsNotSpokenTo(t *testing.T) {
	for name, old := range map[string]*tls.Config{
		"TLS 1.0": {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
		"TLS 1.1": {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"RC4":     {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_RC4_128_SHA}},
	} {
		t.Run(name, func(t *testing.T) {
			up := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request came") }))
			up.TLS = old
			up.Config.ErrorLog = log.New(io.Discard, "", 0)
			up.StartTLS()
			t.Cleanup(up.Close)
			g, key := inFrontOf(t, "base", up.URL)
			g.refuses(g.signed(key, dpop.Claims{}), http.StatusBadGateway, proxy.UpstreamDown)
			require.Error(t, g.event().Err)
			assert.Regexp(t, "protocol version|handshake failure", g.event().Err.Error())
		})
	}
}

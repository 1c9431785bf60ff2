package main

import (
	"encoding/xml"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A scanner that knows what TLS servers get wrong finds nothing: two versions, no renegotiation by the client, no heartbeat
// that bleeds, no suite that it calls weak or that lacks forward secrecy.
func TestATLSScannerFindsNothing(t *testing.T) {
	t.Parallel()
	scanner := program(t, "DPOPGATE_TEST_SSLSCAN")
	upstream := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(upstream.Close)
	g, _ := startInternal(t, upstream.URL, "localhost")
	_, port, err := net.SplitHostPort(g.https)
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), scanner, "--xml=-", "--ipv4", "--sni-name=localhost", "127.0.0.1:"+port).Output()
	require.NoError(t, err)

	var found struct {
		Protocols []struct {
			Type    string `xml:"type,attr"`
			Version string `xml:"version,attr"`
			Enabled int    `xml:"enabled,attr"`
		} `xml:"ssltest>protocol"`
		Renegotiation []struct {
			Supported int `xml:"supported,attr"`
		} `xml:"ssltest>renegotiation"`
		Heartbleed []struct {
			Vulnerable int `xml:"vulnerable,attr"`
		} `xml:"ssltest>heartbleed"`
		Ciphers []struct {
			Version  string `xml:"sslversion,attr"`
			Name     string `xml:"cipher,attr"`
			Strength string `xml:"strength,attr"`
		} `xml:"ssltest>cipher"`
	}
	require.NoError(t, xml.Unmarshal(out, &found), "%s", out)
	var versions []string
	for _, p := range found.Protocols {
		if p.Enabled != 0 {
			versions = append(versions, p.Type+" "+p.Version)
		}
	}
	assert.ElementsMatch(t, []string{"tls 1.2", "tls 1.3"}, versions)
	require.NotEmpty(t, found.Renegotiation)
	assert.Zero(t, found.Renegotiation[0].Supported)
	require.NotEmpty(t, found.Heartbleed)
	for _, h := range found.Heartbleed {
		assert.Zero(t, h.Vulnerable)
	}
	require.NotEmpty(t, found.Ciphers)
	for _, c := range found.Ciphers {
		assert.Contains(t, []string{"strong", "acceptable"}, c.Strength, "%s %s", c.Version, c.Name)
		assert.Regexp(t, `^(TLS_(AES|CHACHA20)|ECDHE-)`, c.Name)
	}
}

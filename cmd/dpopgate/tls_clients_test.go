package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
)

// needProgram fails in CI without a program, and skips elsewhere.
func needProgram(t *testing.T, name string) {
	t.Helper()
	_, err := exec.LookPath(name)
	if err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		require.NoError(t, err)
	}
	t.Skipf("%s is not installed", name)
}

// outputOf runs a program, which must succeed, and returns what it has printed.
func outputOf(t *testing.T, vars []string, name string, args ...string) string {
	t.Helper()
	return outputIn(t, "", vars, name, args...)
}

// outputIn is outputOf in a folder.
func outputIn(t *testing.T, folder string, vars []string, name string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), name, args...)
	command.Dir = folder
	command.Env = append(os.Environ(), vars...)
	var stderr strings.Builder
	command.Stderr = &stderr
	out, err := command.Output()
	require.NoError(t, err, "%s%s", out, stderr.String())
	return string(out)
}

func TestCurlMakesTheJourney(t *testing.T) {
	t.Parallel()
	needProgram(t, "curl")
	upstream, got := echoed(t)
	g, folder := startInternal(t, upstream, "api.example.test")
	key, _, token := g.credentials(t)
	url := g.at("api.example.test") + "/orders/"
	for flag, version := range map[string]string{"--http1.1": "1.1", "--http2": "2", "--tls-max 1.2": "2"} {
		proof, err := key.Sign(dpop.Claims{Method: http.MethodGet, URL: url, Token: token})
		require.NoError(t, err)
		args := []string{
			"--silent", "--show-error", "--max-time", "60", "--cacert", rootFile(folder),
			"--connect-to", "::" + g.https, "--write-out", " over HTTP/%{http_version}: %{http_code}",
			"--header", "Authorization: DPoP " + token, "--header", "DPoP: " + proof, url,
		}
		said := outputOf(t, nil, "curl", append(strings.Fields(flag), args...)...)
		assert.Equal(t, "GET /orders/ over HTTP/"+version+": 200", said)
	}
	// From the cleartext port on, as people type it.
	said := outputOf(t, nil, "curl", "--silent", "--show-error", "--max-time", "60", "--cacert", rootFile(folder), "--location",
		"--connect-to", "api.example.test:80:"+g.http, "--connect-to", "api.example.test::"+g.https,
		"--output", os.DevNull, "--write-out", "%{num_redirects} %{http_code} %{url_effective}", "http://api.example.test/orders/?q=1")
	assert.Equal(t, "1 401 "+url+"?q=1", said)
	assert.Len(t, *got, 3)
}

// http2Script is a Node client for HTTP/2, which fetch is not.
const http2Script = `
import http2 from 'node:http2'
const { GATEWAY, AUTHORIZATION, PROOF } = process.env
const session = http2.connect(GATEWAY)
const stream = session.request({ ':path': '/orders/', authorization: AUTHORIZATION, dpop: PROOF })
stream.on('response', (h) => process.stdout.write(h[':status'] + ' '))
stream.on('data', (d) => process.stdout.write(d))
stream.on('end', () => session.close())
`

func TestNodeMakesTheJourney(t *testing.T) {
	t.Parallel()
	needProgram(t, "node")
	upstream, got := echoed(t)
	g, folder := startInternal(t, upstream, "localhost")
	vars := []string{"GATEWAY=" + g.url, "NODE_EXTRA_CA_CERTS=" + rootFile(folder), "NODE_NO_WARNINGS=1"}

	key, _, token := g.credentials(t)
	proof, err := key.Sign(dpop.Claims{Method: http.MethodGet, URL: g.url + "/orders/", Token: token})
	require.NoError(t, err)
	said := outputOf(t, append(vars, "AUTHORIZATION=DPoP "+token, "PROOF="+proof), "node", "--input-type=module", "--eval", http2Script)
	assert.Equal(t, "200 GET /orders/", said)
	require.Len(t, *got, 1)

	// Other people's clients, over HTTP/1.1.
	needNPM(t)
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		issued := shell{}.run(t, "token", "issue", "-c", g.path, "--client", "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11",
			"--scope", "a", "--jkt", r.URL.Query().Get("jkt"))
		assert.Equal(t, exitOK, issued.code, issued.stderr)
		io.WriteString(w, strings.TrimSpace(issued.stdout))
	}))
	defer issuer.Close()
	played := outputOf(t, append(vars, "ISSUER="+issuer.URL), "node", npmFolder+"/run.mjs", "0",
		"dpop:ES256", "oauth4webapi:ES256", "openid-client:ES256")
	count := 0
	for decoder := json.NewDecoder(bytes.NewReader([]byte(played))); decoder.More(); count++ {
		var client struct {
			Client   string
			Statuses []int
			Error    string
		}
		require.NoError(t, decoder.Decode(&client))
		assert.Equal(t, []int{200, 200, 200}, client.Statuses, "%s: %s", client.Client, client.Error)
	}
	assert.Equal(t, 3, count)
}

// repositoryRoot is where this folder is in.
const repositoryRoot = "../.."

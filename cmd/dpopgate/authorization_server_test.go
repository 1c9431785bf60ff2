package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// npmFolder is where package-lock.json pins what comes from npm.
const npmFolder = repositoryRoot + "/testdata/clients"

// needNPM fails in CI without Node or the packages, and skips elsewhere.
func needNPM(t *testing.T) {
	t.Helper()
	needProgram(t, "node")
	if _, err := os.Stat(npmFolder + "/node_modules"); err != nil {
		require.Empty(t, os.Getenv("CI"), "the packages are not installed: %v", err)
		t.Skip("the packages are not installed (run npm ci in testdata/clients)")
	}
}

// startNode runs a program of npmFolder until the test ends, and returns the first line that it prints: its URL.
func startNode(t *testing.T, program string, vars ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "node", program)
	command.Dir = npmFolder
	command.Env = append(os.Environ(), vars...)
	var stderr output
	command.Stderr = &stderr
	stdin, err := command.StdinPipe() // it ends with that, also when this process does
	require.NoError(t, err)
	stdout, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		stdin.Close()
		command.Wait()
	})
	url, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err, "%s: %s", program, stderr.String())
	return strings.TrimSpace(url)
}

// whoever is an upstream that says who calls, and how many requests it has seen.
func whoever(t *testing.T) (url string, seen *atomic.Int64) {
	t.Helper()
	seen = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		fmt.Fprintf(w, "%s %s by %s of %s", r.Method, r.RequestURI, r.Header.Get("X-Auth-Subject"), r.Header.Get("X-Auth-Client"))
	}))
	t.Cleanup(server.Close)
	return server.URL, seen
}

// An authorization server that people run, oidc-provider, issues its opaque tokens into the table, and two clients that
// people use go the whole way from the gateway's own challenge on.
func TestAnAuthorizationServerAndItsClientsGoTheWholeWay(t *testing.T) {
	t.Parallel()
	needNPM(t)
	const client, user, redirect = "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11", "5b9f7c1e-0a65-4d2c-8f7e-1f6a2d3c4b5a", "http://127.0.0.1:9/callback"
	database := tokenstoretest.Postgres(t)
	config := t.TempDir() + "/dpopgate.yaml"
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil,
		"public_urls: [http://localhost]\nstore: {postgres: %q}\nroutes: [{match: /, upstream: http://127.0.0.1:1}]\n", database), 0o600))
	migrated := shell{}.run(t, "migrate", "--revocation", "-c", config)
	require.Equal(t, exitOK, migrated.code, migrated.stderr)
	tokenstoretest.Exec(t, database,
		"INSERT INTO oauth_clients (id) VALUES ('"+client+"')", "INSERT INTO users (id) VALUES ('"+user+"')")

	vars := []string{"CLIENT=" + client, "USER=" + user, "REDIRECT_URI=" + redirect, "DATABASE_URL=" + database, "NODE_NO_WARNINGS=1"}
	issuer := startNode(t, "authorization_server.mjs", vars...)
	tools := startNode(t, "mcp_server.mjs", vars...)
	upstream, seen := whoever(t)
	g := startGatewayOn(t, fmt.Sprintf("{postgres: %q}", database),
		"  - {match: GET /orders/, upstream: "+upstream+", scopes: [orders:read]}\n"+
			"  - {match: /mcp, upstream: "+tools+", scopes: [orders:read]}",
		"metadata: {authorization_servers: ["+issuer+"]}\nlimits: {drain_delay: 0s}")
	g.awaitLog(t, "revocations are seen at once")
	play := func(t *testing.T, program, path string, saw any) {
		said := outputOf(t, append(vars, "API="+g.url+path), "node", npmFolder+"/"+program)
		require.NoError(t, json.Unmarshal([]byte(said), saw), said)
	}

	t.Run("openid-client", func(t *testing.T) {
		var saw struct {
			Type, Body, Stolen, Revoked string
			Status, Late                int
		}
		play(t, "journey.mjs", "/orders/", &saw)
		assert.Equal(t, "dpop", saw.Type)
		assert.Equal(t, 200, saw.Status)
		assert.Equal(t, "GET /orders/ by "+user+" of "+client, saw.Body)
		assert.Equal(t, "invalid_token", saw.Stolen)
		assert.Equal(t, "invalid_token", saw.Revoked)
		assert.Equal(t, int64(1+saw.Late), seen.Load(), "what the upstream saw: not the thief, and nothing after the refusal")
	})
	t.Run("the MCP client", func(t *testing.T) {
		var saw struct {
			Asked      bool
			Type, Said string
			Tools      []string
		}
		play(t, "mcp_journey.mjs", "/mcp", &saw)
		assert.True(t, saw.Asked, "it was asked to authorize first")
		assert.Equal(t, "DPoP", saw.Type)
		assert.Equal(t, []string{"whoami"}, saw.Tools)
		assert.Equal(t, user, saw.Said)
	})
}

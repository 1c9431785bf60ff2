package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/config"
)

// The first deployment of a newcomer: init, key new, token issue, serve, call. Only the addresses are others.
func TestStarterConfigServesASignedCall(t *testing.T) {
	t.Parallel()
	upstream, got := answering(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "two orders\n") })
	g := startGateway(t, "  - {match: /, upstream: "+upstream+"}", "limits: {drain_delay: 0s}")
	text := string(config.Starter())
	text = strings.ReplaceAll(text, "  sqlite: ./dpopgate.db", "  sqlite: "+strings.TrimSuffix(strings.TrimPrefix(g.store, "{sqlite: "), "}"))
	for was, is := range map[string]string{
		"http://localhost:8080": g.url,
		"127.0.0.1:8080":        strings.TrimPrefix(g.url, "http://"),
		"127.0.0.1:9180":        strings.TrimPrefix(g.admin, "http://"),
		"http://127.0.0.1:9000": upstream,
	} {
		require.Contains(t, text, was)
		text = strings.ReplaceAll(text, was, is)
	}
	require.NoError(t, os.WriteFile(g.path, []byte(text), 0o600))
	g.signals <- syscall.SIGHUP
	g.awaitLog(t, `"msg":"config reloaded"`)

	keyFile := filepath.Join(t.TempDir(), "client.jwk")
	require.Equal(t, exitOK, shell{}.run(t, "key", "new", "-o", keyFile).code)
	issued := shell{}.run(t, "token", "issue", "-c", g.path, "--client", "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11",
		"--scope", "orders:read", "--key", keyFile)
	require.Equal(t, exitOK, issued.code, issued.stderr)
	call := func(args ...string) result {
		return shell{stdin: issued.stdout}.run(t, append([]string{"call", "--key", keyFile, "--token", "-"}, args...)...)
	}
	read := call(g.url + "/orders/")
	require.Equal(t, exitOK, read.code, read.stderr)
	assert.Equal(t, "two orders\n", read.stdout)
	require.Len(t, *got, 1)

	written := call("-X", "POST", g.url+"/orders/")
	assert.Equal(t, exitFailure, written.code)
	assert.Contains(t, written.stderr, "orders:write")
	assert.Len(t, *got, 1, "a refusal reaches nobody")
}

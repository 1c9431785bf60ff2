package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/config"
)

func TestDemoTellsTheStory(t *testing.T) {
	folders := privateFolders(t)
	told := shell{}.run(t, "demo", "--once", "--listen", "127.0.0.1:0")
	require.Equal(t, exitOK, told.code, told.stderr)
	assert.Empty(t, told.stderr)
	for _, want := range []string{
		`1  The client sends its token and a fresh proof by its key\n\n   GET http://localhost:\d+/orders/\n   Authorization: DPoP \S{8}…\n   DPoP: GET http://localhost:\d+/orders/, \d\d:\d\d:\d\d\n         jti \S+, signed by key \S{8}…\n\n   ✓ 200 OK: let through`,
		`X-Auth-Scope +orders:read\n`,
		`X-Auth-Subject +` + demoUser.String() + `\n`,
		`2  A thief .*\n\n.*\n   Authorization: DPoP \S{8}…\n\n   ✗ 401 Unauthorized: invalid_dpop_proof\n     Why: the DPoP header with the proof is missing\.\n     The legacy API saw nothing of it: still 1 request\.`,
		`3  The thief (?s:.{0,300})✗ 401 Unauthorized: invalid_token\n     Why: the token is bound to another key\.\n.*still 1 request`,
		`4  The thief (?s:.{0,300})✗ 401 Unauthorized: invalid_dpop_proof\n     Why: this key has used this jti before.*\n.*still 1 request`,
		`5  The client (?s:.{0,300})✗ 403 Forbidden: insufficient_scope\n     Why: the token lacks the scope orders:write\.\n.*still 1 request`,
	} {
		assert.Regexp(t, want, told.stdout)
	}
	for line := range strings.Lines(told.stdout) {
		assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 80, line)
	}
	assert.NotContains(t, told.stdout, "\x1b", "no colours without a terminal")
	assertNoFiles(t, folders)
}

func TestDemoColoursOnlyATerminalThatWantsThem(t *testing.T) {
	privateFolders(t)
	told := shell{terminal: true}.run(t, "demo", "--once", "--listen", "127.0.0.1:0")
	require.Equal(t, exitOK, told.code, told.stderr)
	assert.Contains(t, told.stdout, "\x1b[32m✓ 200 OK\x1b[0m")
	told = shell{terminal: true, vars: map[string]string{"NO_COLOR": "1"}}.run(t, "demo", "--once", "--listen", "127.0.0.1:0")
	require.Equal(t, exitOK, told.code, told.stderr)
	assert.NotContains(t, told.stdout, "\x1b")
}

func TestDemoNamesListenWhenThePortIsTaken(t *testing.T) {
	folders := privateFolders(t)
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	_, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	told := shell{}.run(t, "demo", "--listen", "localhost:"+port)
	assert.Equal(t, exitFailure, told.code)
	assert.Equal(t, "dpopgate: port "+port+" is in use by another program: choose another, such as --listen 127.0.0.1:9090\n", told.stderr)
	assert.Empty(t, told.stdout)
	assertNoFiles(t, folders)
}

func TestDemoListensOnThisMachineOnly(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "api.example.com:0", "8080", "127.0.0.1"} {
		told := shell{}.run(t, "demo", "--listen", address)
		assert.Equal(t, exitUsage, told.code, address)
		assert.Contains(t, told.stderr, "--listen "+address)
	}
}

func TestDemoPrintsItsConfig(t *testing.T) {
	printed := shell{}.run(t, "demo", "--print-config")
	require.Equal(t, exitOK, printed.code, printed.stderr)
	_, err := config.Parse("demo.yaml", []byte(printed.stdout), func(name string) (string, bool) {
		value, ok := map[string]string{"DEMO_PORT": "8080", "DEMO_FOLDER": "/tmp", "DEMO_ORDERS": "http://127.0.0.1:9000"}[name]
		return value, ok
	})
	assert.NoError(t, err)
}

func TestDemoServesCallsAndRefusesAttacks(t *testing.T) {
	folders := privateFolders(t)
	demo := shell{}.startDemo(t)
	orders := demo.url + "/orders/"

	called := shell{}.run(t, "call", "-v", orders)
	require.Equal(t, exitOK, called.code, called.stderr)
	assert.Contains(t, called.stdout, `"item": "Espresso machine"`)
	assert.Contains(t, called.stdout, `"X-Auth-Subject": "`+demoUser.String()+`"`)
	assert.Contains(t, called.stdout, `"authorization_header_arrived": false`)
	token := regexp.MustCompile(`\n  token  (\S{43})\n`).FindStringSubmatch(demo.output.String())
	require.NotNil(t, token)
	assert.NotContains(t, called.stderr, token[1])

	for _, how := range attackNames() {
		told := shell{}.run(t, "call", "--attack", how, orders)
		assert.Equal(t, exitOK, told.code, told.stderr)
		assert.Contains(t, told.stderr, how+": refused, as it must be: 401 Unauthorized")
	}
	refund := shell{}.run(t, "call", "-X", "POST", demo.url+"/orders/1001/refund")
	assert.Equal(t, exitFailure, refund.code)
	assert.Contains(t, refund.stderr, "403 Forbidden: insufficient_scope: the token lacks the scope orders:write")
	after := shell{}.run(t, "call", demo.url+"/orders/1001")
	assert.Contains(t, after.stdout, `"status": "delivered"`, "the refused refund changed nothing")

	key := regexp.MustCompile(`\n  key    (\S+)\n`).FindStringSubmatch(demo.output.String())
	require.NotNil(t, key)
	own := shell{stdin: token[1]}.run(t, "call", "--key", key[1], "--token", "-", "http://127.0.0.1:"+demo.port+"/orders/")
	assert.Equal(t, exitOK, own.code, own.stderr)

	demo.output.await(t, regexp.MustCompile(`  200  GET /orders/  passed\n(?s:.*)  401  GET /orders/  refused: key_not_bound\n`))
	assert.Equal(t, exitOK, demo.stop())
	assertNoFiles(t, folders)
	l, err := net.Listen("tcp4", "127.0.0.1:"+demo.port)
	require.NoError(t, err, "the port is free again")
	l.Close()
}

func TestDemoHasAPage(t *testing.T) {
	privateFolders(t)
	demo := shell{}.startDemo(t)
	res, err := http.Get(demo.url + "/")
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, res.StatusCode)
	assert.Equal(t, "text/html; charset=utf-8", res.Header.Get("Content-Type"))
	policy := res.Header.Get("Content-Security-Policy")
	assert.Contains(t, policy, "default-src 'none'")
	assert.NotContains(t, policy, "unsafe")
	assert.Contains(t, string(body), "call --attack stolen-token "+demo.url+"/orders/")
	assert.Equal(t, exitOK, demo.stop())
}

func TestDemoGivesTokensToItsOwnPagesOnly(t *testing.T) {
	privateFolders(t)
	d, err := startDemo(t.Context(), shell{}.env(io.Discard, io.Discard, nil), demoOptions{listen: "127.0.0.1:0", config: demoConfig})
	defer d.close()
	require.NoError(t, err)
	good := string(d.key.Thumbprint())
	ask := func(query, origin string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+"/demo/token"+query, nil)
		require.NoError(t, err)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(body)
	}
	status, body := ask("?jkt="+good, d.url)
	assert.Equal(t, http.StatusOK, status)
	assert.Regexp(t, `^\{"access_token":"\S{43}","token_type":"DPoP","expires_in":86400,"scope":"orders:read"\}\n$`, body)

	for _, query := range []string{"", "?jkt=", "?jkt=short", "?jkt=" + good + "A", "?jkt=" + good[:42] + "!"} {
		status, body := ask(query, "")
		assert.Equal(t, http.StatusBadRequest, status, query)
		assert.Contains(t, body, `"error":"invalid_request"`, query)
	}
	status, _ = ask("?jkt="+good, "http://elsewhere.example")
	assert.Equal(t, http.StatusForbidden, status)

	d.issuer.given.Store(maxTokens - 1)
	status, _ = ask("?jkt="+good, "")
	assert.Equal(t, http.StatusOK, status)
	status, body = ask("?jkt="+good, "")
	assert.Equal(t, http.StatusTooManyRequests, status)
	assert.Contains(t, body, "start it again")
}

func TestDemoCredentialsArePrivate(t *testing.T) {
	privateFolders(t)
	path := demoCredentialsPath("8080")
	remove, err := writeDemoCredentials("8080", demoCredentials{Token: "t", Key: []byte(`{}`)})
	require.NoError(t, err)
	remove()
	assert.NoDirExists(t, filepath.Dir(filepath.Dir(path)), "no folder is left that was not there before")

	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	require.NoError(t, os.Symlink(elsewhere, path), "what somebody else may have put there")
	remove, err = writeDemoCredentials("8080", demoCredentials{Token: "t", Key: []byte(`{}`)})
	require.NoError(t, err)
	assert.NoFileExists(t, elsewhere)
	info, err := os.Lstat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	remove()
	assert.NoFileExists(t, path)
}

func TestInvocationIsWhatWasTyped(t *testing.T) {
	found := filepath.Join(t.TempDir(), "dpopgate")
	require.NoError(t, os.WriteFile(found, nil, 0o700))
	onPath := func(string) (string, error) { return found, nil }
	nowhere := func(string) (string, error) { return "", exec.ErrNotFound }
	for name, c := range map[string]struct {
		path, cache string
		look        func(string) (string, error)
		want        string
	}{
		"go run":                    {"/tmp/go-build12/b001/exe/dpopgate", "", nowhere, "go run ./cmd/dpopgate"},
		"go run, cached":            {"/root/.cache/go-build/ab/abcd-d/dpopgate", "", nowhere, "go run ./cmd/dpopgate"},
		"go run, cached where said": {"/cache/ab/abcd-d/dpopgate", "/cache/", nowhere, "go run ./cmd/dpopgate"},
		"installed":                 {found, "", onPath, "dpopgate"},
		"another is installed":      {"/src/dpopgate", "", onPath, "./dpopgate"},
		"not installed":             {"/src/dpopgate", "/cache", nowhere, "./dpopgate"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, invocationOf(c.path, "./dpopgate", c.cache, c.look))
		})
	}
}

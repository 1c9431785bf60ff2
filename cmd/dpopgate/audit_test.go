package main

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAuditStreamIsPrivateAndAppendedTo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	for range 2 {
		a, err := openAudit(file, nil, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		require.NoError(t, a.write(auditStopped, slog.Int("pid", 7)))
		a.close()
		require.NoError(t, a.write(auditStopped), "a closed one takes nothing")
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	events := audited(t, string(text))
	require.Len(t, events, 2)
	assert.Equal(t, "stopped", events[0]["event"])
	assert.EqualValues(t, 7, events[0]["pid"])
	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode())
}

func TestAuditStreamGoesToTheStreamThatIsNamed(t *testing.T) {
	for _, name := range []string{"stdout", "stderr"} {
		var stdout, stderr bytes.Buffer
		a, err := openAudit(name, shell{}.env(&stdout, &stderr, nil), slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		require.NoError(t, a.reopen())
		require.NoError(t, a.write(auditStarted))
		a.close()
		said := map[string]*bytes.Buffer{"stdout": &stdout, "stderr": &stderr}
		assert.Len(t, audited(t, said[name].String()), 1)
		delete(said, name)
		for _, other := range said {
			assert.Empty(t, other.String())
		}
	}
}

// /dev/full is a disk that is.
func TestFullDiskIsCountedAndSaidOnce(t *testing.T) {
	if _, err := os.Stat("/dev/full"); errors.Is(err, fs.ErrNotExist) {
		t.Skip("there is no /dev/full")
	}
	t.Parallel()
	upstream, _ := answering(t, func(http.ResponseWriter, *http.Request) {})
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	g := newGatewayWith(t, "  - {match: /, upstream: "+upstream+", scopes: [a]}", file)
	owner := newHolder(t, g)
	thief := owner.thief(t)
	text, err := os.ReadFile(g.path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(g.path, bytes.ReplaceAll(text, []byte(file), []byte("/dev/full")), 0o600))
	g.serve(t)
	assert.Equal(t, http.StatusOK, answerTo(t, owner.request(t, g, "/")))
	assert.Equal(t, http.StatusUnauthorized, answerTo(t, thief.request(t, g, "/")))
	g.awaitLog(t, `"msg":"token misused: it may be stolen"`)
	require.Eventually(t, func() bool {
		return strings.Contains(textOfPage(t, g.admin+"/metrics"), "dpopgate_audit_failures_total 2\n")
	},
		10*time.Second, 5*time.Millisecond, "started and misuse")
	assert.Equal(t, http.StatusOK, answerTo(t, owner.request(t, g, "/")))
	g.signals <- syscall.SIGTERM
	require.Equal(t, exitOK, <-g.exit)
	assert.Equal(t, 1, strings.Count(g.log.String(), `"msg":"security events cannot be written"`), "and then, nothing: %s", g.log.String())
}

func TestAuditStreamIsOpenedAnewOnReload(t *testing.T) {
	t.Parallel()
	upstream, _ := answering(t, func(http.ResponseWriter, *http.Request) {})
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	g := newGatewayWith(t, "  - {match: /, upstream: "+upstream+", scopes: [a]}", file)
	g.serve(t)
	require.NoError(t, os.Rename(file, file+".1"))
	g.signals <- syscall.SIGHUP
	events := g.events(t, file, 1)
	assert.Equal(t, "config_reloaded", events[0]["event"])
	require.NoError(t, os.WriteFile(g.path, []byte("routes: x"), 0o600))
	g.signals <- syscall.SIGHUP
	events = g.events(t, file, 2)
	assert.Equal(t, "config_refused", events[1]["event"])
	g.signals <- syscall.SIGTERM
	g.signals <- syscall.SIGTERM
	require.Equal(t, exitOK, <-g.exit)
	assert.Equal(t, "stopped", g.events(t, file, 3)[2]["event"])
	assert.Equal(t, "started", g.events(t, file+".1", 1)[0]["event"])
}

func TestCommandsTellTheAuditStream(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	g := newGatewayWith(t, "  - {match: /, upstream: http://127.0.0.1:1}", file)
	owner := newHolder(t, g)
	require.Equal(t, exitOK, shell{stdin: owner.token}.run(t, "token", "revoke", "-", "-c", g.path).code)
	require.Equal(t, exitOK, shell{}.run(t, "token", "purge", "-c", g.path).code)
	events := g.events(t, file, 3)
	assert.Equal(t, "token_issued", events[0]["event"])
	assert.Equal(t, string(owner.key.Thumbprint()), events[0]["bound_jkt"])
	assert.Equal(t, operator(), events[0]["by"])
	assert.Equal(t, "tokens_revoked", events[1]["event"])
	assert.EqualValues(t, 1, events[1]["tokens"])
	assert.Equal(t, "tokens_purged", events[2]["event"])

	full := newGatewayWith(t, "  - {match: /, upstream: http://127.0.0.1:1}", filepath.Join(file, "no-folder"))
	issued := shell{}.run(t, "token", "issue", "-c", full.path, "--client", "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11", "--bearer")
	assert.Equal(t, exitFailure, issued.code, "a deed without a line is not kept quiet")
	assert.NotEmpty(t, issued.stdout, "but it is done, and the token shown")
	assert.Contains(t, issued.stderr, "done, but the audit stream does not know")
	said := shell{}.run(t, "serve", "-c", full.path)
	assert.Equal(t, exitFailure, said.code)
	assert.Contains(t, said.stderr, "log.audit: open ")
}

// newGatewayWith is a gateway with an audit stream that does not serve yet.
func newGatewayWith(t *testing.T, routes, audit string) *gateway {
	t.Helper()
	addresses := freeAddresses(t, 2)
	g := &gateway{
		url: "http://" + addresses[0], admin: "http://" + addresses[1],
		path:    filepath.Join(t.TempDir(), "dpopgate.yaml"),
		store:   "{sqlite: " + filepath.Join(t.TempDir(), "tokens.db") + "}",
		log:     &output{changed: make(chan struct{}, 1)},
		signals: make(chan os.Signal, 4),
		exit:    make(chan int, 1),
	}
	g.configure(t, routes, "limits: {drain_delay: 0s}")
	text, err := os.ReadFile(g.path)
	require.NoError(t, err)
	with := strings.Replace(string(text), "log: {level: debug}", "log: {level: debug, audit: "+audit+"}", 1)
	require.NoError(t, os.WriteFile(g.path, []byte(with), 0o600))
	return g
}

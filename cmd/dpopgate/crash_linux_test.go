package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// get is the status of a GET on a connection of its own.
func (p *process) get(t *testing.T) int {
	t.Helper()
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(p.url)
	require.NoError(t, err)
	res.Body.Close()
	return res.StatusCode
}

// After kill -9 under load, the next process serves with what is on the disk, and takes no proof that the one before it
// may have taken.
//
// attack: 186
func TestAfterKillNothingIsTakenTwice(t *testing.T) {
	t.Parallel()
	upstream, ledger := newLedger(t)
	p := newProcess(t, "https", "routes:\n  - {match: POST /orders/, upstream: "+upstream+", scopes: [a]}")
	key, token := p.credentials(t, "a")
	var proofs []string
	for life := range 3 {
		p.start(t)
		c := &poster{p: p, key: key, token: token, dial: dialTLS(p.address(), p.trusting(t))}
		for _, proof := range proofs {
			status, body, err := c.post("stolen", proof)
			require.NoError(t, err)
			require.Equal(t, http.StatusUnauthorized, status, "%s", body)
		}
		for i := range 20 {
			proof := c.proof()
			status, body, err := c.post(fmt.Sprintf("%d-%d", life, i), proof)
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, status, "%s", body)
			proofs = append(proofs, proof)
		}
		p.signal(t, syscall.SIGKILL)
		p.await(t, `\nended\n`)
		c.close()
		p.log.clear()
	}
	assert.Len(t, ledger.seen, len(proofs))
	assert.NotContains(t, ledger.seen, "stolen")
}

// With more clients than descriptors, those beyond wait, the log says why once and not with each try, and when they are
// gone all is well.
//
// attack: 187
func TestWithoutDescriptorsClientsWait(t *testing.T) {
	t.Parallel()
	upstream, _ := answering(t, func(http.ResponseWriter, *http.Request) {})
	p := newProcess(t, "http", "limits: {drain_delay: 0s}\nroutes:\n  - {match: /, upstream: "+upstream+", public: true}")
	p.start(t, func(cmd *exec.Cmd) {
		script := fmt.Sprintf("ulimit -n 64; exec %s", strings.Join(cmd.Args, " "))
		*cmd = exec.Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: cmd.Env, Stderr: cmd.Stderr}
	})
	assert.Equal(t, http.StatusOK, p.get(t)) // from here on there is a connection to the upstream
	first, err := net.Dial("tcp", p.address())
	require.NoError(t, err)
	defer first.Close()
	ask := func() {
		t.Helper()
		_, host, _ := strings.Cut(p.url, "://")
		_, err := fmt.Fprintf(first, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
		require.NoError(t, err)
		answer := make([]byte, 12)
		_, err = io.ReadFull(first, answer)
		require.NoError(t, err)
		assert.Equal(t, "HTTP/1.1 200", string(answer))
	}
	ask()
	var crowd []net.Conn
	for range 200 {
		c, err := net.Dial("tcp", p.address()) // the system takes it, the gateway does not
		require.NoError(t, err)
		crowd = append(crowd, c)
	}
	p.await(t, `"level":"WARN","msg":"no descriptor is left for another connection`)
	for _, c := range crowd {
		c.Close()
	}
	assert.Equal(t, http.StatusOK, p.get(t))
	assert.Equal(t, 1, p.times("no descriptor is left"))
}

// When no file can grow any more, the log included, as on a full disk, requests are served on.
//
// attack: 188
func TestWithAFullDiskRequestsAreServed(t *testing.T) {
	t.Parallel()
	upstream, ledger := newLedger(t)
	p := newProcess(t, "https", "limits: {drain_delay: 0s}\nroutes:\n  - {match: POST /orders/, upstream: "+upstream+", scopes: [a]}")
	key, token := p.credentials(t, "a")
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	defer log.Close()
	cmd := exec.Command("dpopgate", "serve", "-c", p.path)
	cmd.Stderr = log
	require.NoError(t, cmd.Start())
	defer cmd.Process.Kill()
	size := func() int64 {
		info, err := log.Stat()
		require.NoError(t, err)
		return info.Size()
	}
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(log.Name())
		return err == nil && strings.Contains(string(text), `"msg":"serving"`)
	}, certPatience, 20*time.Millisecond)
	c := &poster{p: p, key: key, token: token, dial: dialTLS(p.address(), p.trusting(t))}
	defer c.close()
	post := func(id string) {
		status, body, err := c.post(id, c.proof())
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, status, "%s", body)
	}
	post("before")
	require.NoError(t, unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{}, nil))
	before := size()
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP)) // which is logged
	for i := range 20 {
		post(fmt.Sprint(i))
	}
	assert.Len(t, ledger.seen, 21)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	assert.NoError(t, cmd.Wait())
	assert.Equal(t, before, size(), "what the limit is for")
}

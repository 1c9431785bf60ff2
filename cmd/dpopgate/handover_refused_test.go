package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A new process that cannot take over changes nothing: the old one says why, and goes on.
func TestHandOverToAProcessThatCannotServeIsNone(t *testing.T) {
	t.Parallel()
	upstream, _ := answering(t, func(http.ResponseWriter, *http.Request) {})
	p := newProcess(t, "http", "limits: {drain_delay: 0s}\nroutes:\n  - {match: /, upstream: "+upstream+", public: true}")
	real, err := exec.LookPath("dpopgate")
	require.NoError(t, err)
	program := filepath.Join(t.TempDir(), "dpopgate")
	require.NoError(t, os.Symlink(real, program))
	p.start(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(program)) })

	refused := func(why string) {
		t.Helper()
		p.signal(t, syscall.SIGUSR2)
		p.await(t, `"msg":"not handed over, this process goes on","error":".*`+why)
		assert.Equal(t, http.StatusOK, fetch(t, p.url).StatusCode)
		assert.Equal(t, http.StatusOK, fetch(t, p.admin+"/readyz").StatusCode)
	}
	was := p.change(t, "public: true", "publik: true")
	refused("publik")
	p.write(t, was+"dpop: {replay: 'redis://127.0.0.1:1'}\n")
	refused("dpop.replay was memory and is valkey")
	p.write(t, was)
	another := func(path string) {
		require.NoError(t, os.Remove(program))
		require.NoError(t, os.Symlink(path, program))
	}
	another("/bin/false")
	refused("the new process ended before it was ready: exit status 1")
	another("/does/not/exist")
	refused("starting the new process: .*no such file")

	another(real)
	p.handOver(t)
	assert.Equal(t, http.StatusOK, fetch(t, p.url).StatusCode)
}

// What a reload cannot change, a hand-over can: here, the addresses.
func TestHandOverTakesOtherAddresses(t *testing.T) {
	t.Parallel()
	upstream, _ := answering(t, func(http.ResponseWriter, *http.Request) {})
	p := newProcess(t, "http", "limits: {drain_delay: 0s}\nroutes:\n  - {match: /, upstream: "+upstream+", public: true}")
	p.start(t)
	before, after := p.address(), freeAddress()
	p.change(t, before, after)
	p.change(t, strings.Replace(before, "127.0.0.1", "localhost", 1), strings.Replace(after, "127.0.0.1", "localhost", 1))
	p.handOver(t)
	assert.Equal(t, http.StatusOK, fetch(t, "http://"+strings.Replace(after, "127.0.0.1", "localhost", 1)).StatusCode)
	assert.Equal(t, http.StatusOK, fetch(t, p.admin+"/readyz").StatusCode)
	_, err := http.Get("http://" + before)
	assert.ErrorIs(t, err, syscall.ECONNREFUSED)
}

package main

import (
	"fmt"
	"net"
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

// listenFor listens as systemd does for a socket unit, and gives the socket away.
func listenFor(t *testing.T, address string) *os.File {
	t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(t, err)
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// activated gives a process sockets by the protocol of sd_listen_fds(3).
func activated(names string, files ...*os.File) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		script := fmt.Sprintf("LISTEN_PID=$$ LISTEN_FDS=%d LISTEN_FDNAMES=%s exec %s", len(files), names, strings.Join(cmd.Args, " "))
		*cmd = exec.Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: cmd.Env, Stderr: cmd.Stderr, ExtraFiles: files}
	}
}

func TestSocketsOfSystemdAreServed(t *testing.T) {
	t.Parallel()
	upstream, _ := answering(t, func(http.ResponseWriter, *http.Request) {})
	routes := "limits: {drain_delay: 0s}\nroutes:\n  - {match: /, upstream: " + upstream + ", public: true}"

	t.Run("by address", func(t *testing.T) {
		p := newProcess(t, "http", routes)
		p.start(t, activated("dpopgate.socket", listenFor(t, p.address())))
		assert.Equal(t, http.StatusOK, fetch(t, p.url).StatusCode)
		assert.Equal(t, http.StatusOK, fetch(t, p.admin+"/readyz").StatusCode)
	})
	t.Run("by name, after a hand-over as well", func(t *testing.T) {
		p := newProcess(t, "http", routes)
		elsewhere := freeAddress()
		p.start(t, activated("admin:http", listenFor(t, elsewhere), listenFor(t, p.address())))
		p.handOver(t)
		assert.Equal(t, http.StatusOK, fetch(t, p.url).StatusCode)
		assert.Equal(t, http.StatusOK, fetch(t, "http://"+elsewhere+"/readyz").StatusCode)
	})
	t.Run("or refused", func(t *testing.T) {
		p := newProcess(t, "http", routes)
		cmd := exec.Command("dpopgate", "serve", "-c", p.path)
		activated("https", listenFor(t, freeAddress()))(cmd)
		said, err := cmd.CombinedOutput()
		assert.Error(t, err)
		assert.Contains(t, string(said), "sockets that the config does not serve: 127.0.0.1:")
		assert.Contains(t, string(said), "https wants tls")
	})
}

func TestSystemdIsTold(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	defer systemd.Close()
	hears := func(want string) {
		t.Helper()
		b := make([]byte, 1<<10)
		for {
			n, err := systemd.Read(b)
			require.NoError(t, err)
			if said := string(b[:n]); said != "WATCHDOG=1" || want == said {
				assert.Regexp(t, "^(?:"+want+")$", said)
				return
			}
		}
	}
	upstream, _ := answering(t, func(http.ResponseWriter, *http.Request) {})
	p := newProcess(t, "http", "limits: {drain_delay: 0s}\nroutes:\n  - {match: /, upstream: "+upstream+", public: true}")
	p.start(t, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=200000")
	})
	hears("READY=1")
	hears("WATCHDOG=1")
	p.signal(t, syscall.SIGHUP)
	hears(`RELOADING=1\nMONOTONIC_USEC=\d+`)
	hears("READY=1")
	p.signal(t, syscall.SIGUSR2)
	for range 2 { // systemd does not believe the new one before it has heard MAINPID
		hears(`READY=1|MAINPID=\d+`)
	}
	p.await(t, `"msg":"stopped"`)
	m := p.await(t, `"msg":"handed over","pid":(\d+)`)
	fmt.Sscan(m[1], &p.pid)
	hears("WATCHDOG=1")
	p.signal(t, syscall.SIGTERM)
	hears("STOPPING=1")
}

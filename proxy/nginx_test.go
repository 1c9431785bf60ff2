package proxy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// understood is a request as a server understood it, and with what status the server finished it.
type understood struct {
	Method, Target, Body string
	Status               int
}

// nginxConfig reads each body whole, as a server does that wants it, and logs what it took for a request. The
// application behind answers with the method and the target.
const nginxConfig = `daemon off;
user root root; # if it is root who starts it
worker_processes 1;
worker_shutdown_timeout 20s;
pid nginx.pid;
events {}
http {
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	client_body_in_single_buffer on;
	lingering_close off; # else a request is logged when the gateway has closed its end, and not in order
	log_format message escape=json '{"Method":"$request_method","Target":"$request_uri","Body":"$request_body","Status":$status}';
	server {
		listen ${SERVER};
		access_log messages.log message;
		location / { proxy_pass http://${APPLICATION}; }
	}
	server {
		listen ${APPLICATION};
		access_log off;
		return 200 "$request_method $request_uri";
	}
}
`

// newNginxRig is the base rig with nginx for its upstream. heard tells in order what nginx took for requests, and stop
// lets nginx finish what it has and ends it.
func newNginxRig(t *testing.T) (g *rig, heard func() []understood, stop func()) {
	program := os.Getenv("DPOPGATE_TEST_NGINX")
	if program == "" {
		require.Empty(t, os.Getenv("CI"), "DPOPGATE_TEST_NGINX is not set: this test needs a real one")
		t.Skip("DPOPGATE_TEST_NGINX is not set: ./test sets it")
	}
	var listeners [2]net.Listener
	for i := range listeners { // both are open at a time, so that they are two
		var err error
		listeners[i], err = net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
	}
	for _, l := range listeners {
		l.Close()
	}
	server, folder := listeners[0].Addr().String(), t.TempDir()
	text := strings.NewReplacer("${SERVER}", server, "${APPLICATION}", listeners[1].Addr().String()).Replace(nginxConfig)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "nginx.conf"), []byte(text), 0o600))

	var said bytes.Buffer
	cmd := exec.Command(program, "-p", folder, "-e", "stderr", "-c", filepath.Join(folder, "nginx.conf"))
	cmd.Stderr = &said
	require.NoError(t, cmd.Start())
	stop = sync.OnceFunc(func() {
		cmd.Process.Signal(syscall.SIGQUIT) // the graceful one
		cmd.Wait()
	})
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Log("nginx:\n" + said.String())
		}
	})
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", server)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, 20*time.Second, 10*time.Millisecond, "nginx does not listen")

	yaml, err := os.ReadFile("../testdata/vectors/rigs/base.yaml")
	require.NoError(t, err)
	g = newRigFrom(t, "base", bytes.ReplaceAll(yaml, []byte("${UPSTREAM}"), []byte("http://"+server)))
	heard = func() (got []understood) {
		data, err := os.ReadFile(filepath.Join(folder, "messages.log"))
		require.NoError(t, err)
		for line := range strings.Lines(string(data)) {
			if !strings.HasSuffix(line, "\n") {
				break // it is being written
			}
			var m understood
			require.NoError(t, json.Unmarshal([]byte(line), &m), line)
			got = append(got, m)
		}
		return got
	}
	return g, heard, stop
}

// newGoRig is the base rig, whose upstream answers as the application behind nginx does. heard tells in order what it
// took for requests, of which one that broke off has no status.
func newGoRig(t *testing.T) (g *rig, heard func() []understood, stop func()) {
	g = newRig(t, "base")
	var mu sync.Mutex
	var got []understood
	g.intake = func(r *http.Request) {
		body, err := io.ReadAll(r.Body)
		m := understood{r.Method, r.RequestURI, string(body), http.StatusOK}
		if err != nil {
			m.Status = 0
		}
		mu.Lock()
		got = append(got, m)
		mu.Unlock()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	g.reply = func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Method+" "+r.RequestURI) }
	heard = func() []understood {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
	return g, heard, g.gateway.Close
}

// Each shape goes over a connection of its own, and after it a request of another client, who is to get the answer to
// that. What the gateway tells that it passed and what the upstream took for a request have to be the same in the end.
//
// attack: 58, 60, 61, 62, 63
func TestUpstreamsAgreeWithTheGatewayWhereRequestsEnd(t *testing.T) {
	for name, newUpstream := range map[string]func(*testing.T) (*rig, func() []understood, func()){"Go": newGoRig, "nginx": newNginxRig} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, heard, stop := newUpstream(t)
			keys := vectorKeys(t)
			g.rows.put("T1", bound(keys["K1"].Thumbprint()))
			g.rows.put("T2", bound(keys["K2"].Thumbprint()))
			var finished []understood
			await := func(sent string) { // nginx logs a request after it has answered
				t.Helper()
				require.Eventually(t, func() bool { return len(whole(heard())) >= len(finished) }, 10*time.Second, time.Millisecond,
					"the upstream did not finish %q", sent)
			}
			for i, s := range shapes {
				before := len(finished)
				sent, method := s.render(g, keys["K1"], i)
				conn, from := g.dial()
				conn.Write([]byte(sent)) // of which the gateway may refuse to hear the rest
				if s.left {
					conn.Close()
				}
				io.Copy(io.Discard, from)
				for n, body := range s.finished {
					m := understood{method, fmt.Sprintf("/v1/any/%d", i), hide(body, i), http.StatusOK}
					if n > 0 {
						m.Method, m.Target = http.MethodGet, fmt.Sprintf("/public/hidden/%d", i)
					}
					finished = append(finished, m)
				}
				await(sent)
				marker := fmt.Sprintf("/v1/any/marker/%d", i)
				res := g.raw("GET", text(g.signed(keys["K2"], dpop.Claims{URL: apiURL + marker, Token: "T2"}), "Connection: close"))
				body, err := io.ReadAll(res.Body)
				require.NoError(t, err)
				require.Equal(t, "GET "+marker, string(body), "what another client is answered after %q", sent)
				finished = append(finished, understood{http.MethodGet, marker, "", http.StatusOK})
				await(marker)
				took := whole(heard())
				assert.Equal(t, finished[before:], took[min(before, len(took)):], "what the upstream took for requests of %q", sent)
				finished = took // so that one shape is said to be wrong, and not all after it
			}

			stop()
			for _, m := range heard() {
				if m.Status != http.StatusOK { // it broke off, and the server knows
					assert.Regexp(t, `^/v1/any/\d+$`, m.Target)
				}
			}
			took := whole(heard())
			assert.Equal(t, finished, took, "what the upstream took for requests")
			var passed []understood
			g.mu.Lock()
			defer g.mu.Unlock()
			for _, e := range g.events {
				if e.Verdict == proxy.Passed {
					passed = append(passed, understood{Method: e.Method, Target: e.Path})
				}
			}
			for i := range took {
				took[i].Body, took[i].Status = "", 0
			}
			assert.Equal(t, took, passed, "what the gateway tells that it passed")
		})
	}
}

// whole are the requests that a server finished.
func whole(all []understood) (finished []understood) {
	for _, m := range all {
		if m.Status == http.StatusOK {
			finished = append(finished, m)
		}
	}
	return finished
}

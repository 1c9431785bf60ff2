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

// shape is a request whose end two servers could see in different places.
type shape struct {
	method   string   // POST, unless it says otherwise
	old      bool     // HTTP/1.0
	framing  []string // header lines
	body     string   // in which HIDDEN is a request that needs no credentials, and would be answered if it were seen
	finished []string // bodies of the requests that are finished: that of the request, and of the one that it hides
}

const (
	chunked = "Transfer-Encoding: chunked"
	hi      = "2\r\nhi\r\n0\r\n\r\n"
)

// bodyOnly is a body that is HIDDEN and nothing else: it is no request, whatever it looks like.
var bodyOnly = []string{"HIDDEN"}

var shapes = []shape{
	{body: "", finished: []string{""}},
	{framing: []string{"Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{framing: []string{"Content-Length: 2"}, body: "hiHIDDEN", finished: []string{"hi", ""}},
	{framing: []string{chunked}, body: hi + "HIDDEN", finished: []string{"hi"}}, // the last one of its connection

	// Both lengths, of which the chunked one counts (RFC 9112 §6.3), but not in HTTP/1.0, which knows no chunks.
	{framing: []string{chunked, "Content-Length: 300"}, body: hi + "HIDDEN", finished: []string{"hi"}},
	{framing: []string{"Content-Length: 5", chunked}, body: "0\r\n\r\nHIDDEN", finished: []string{""}},
	{old: true, framing: []string{chunked, "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN", finished: []string{"0\r\n\r\n"}},

	// Codings that one server would see and another would not.
	{framing: []string{"Transfer-Encoding: xchunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding : chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding:\x0bchunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding:\r\n chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN", finished: []string{""}},
	{framing: []string{"X-A: b\r\n Transfer-Encoding: chunked", "Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{framing: []string{chunked, "Transfer-Encoding: identity"}, body: hi + "HIDDEN"},
	{framing: []string{chunked, chunked}, body: hi + "HIDDEN"},
	{framing: []string{"Transfer-Encoding: identity, chunked"}, body: hi + "HIDDEN"},
	{framing: []string{"Transfer_Encoding: chunked", "Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{framing: []string{chunked, "Content_Length: 300"}, body: hi + "HIDDEN", finished: []string{"hi"}},

	// Lengths.
	{framing: []string{"Content-Length: 2", "Content-Length: SIZE"}, body: "HIDDEN"},
	{framing: []string{"Content-Length: 2, 2"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: +2"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: 0x2"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: "}, body: "HIDDEN"},
	{framing: []string{"Content-Length: -1"}, body: "HIDDEN"},
	{framing: []string{"Content-Length: 18446744073709551618"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: 2_"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: 0"}, body: "HIDDEN", finished: []string{"", ""}},
	{framing: []string{"Content-Length: 0"}, body: "hi", finished: []string{""}},

	// Chunks.
	{framing: []string{chunked}, body: "2;a=b\r\nhi\r\n0;c\r\n\r\nHIDDEN", finished: []string{"hi"}},
	{framing: []string{chunked}, body: hi + "garbage\r\n\r\n", finished: []string{"hi"}},
	{framing: []string{chunked}, body: "2\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2;\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2;\nxx\r\n40\r\n0\r\n\r\nHIDDEN0\r\n\r\n"},
	{framing: []string{chunked}, body: "2\r\nhi\r\n0\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "0x2\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "+2\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2_\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "10000000000000002\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2\r\nhi0\r\n\r\nHIDDEN"},

	// Bodies where few expect one.
	{method: "GET", framing: []string{"Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{method: "DELETE", framing: []string{"Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{method: "GET", framing: []string{chunked}, body: hi + "HIDDEN", finished: []string{"hi"}},
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
				sent, method := s.render(g, keys["K1"], i)
				conn, from := g.dial()
				conn.Write([]byte(sent)) // of which the gateway may refuse to hear the rest
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

// hide puts the request that a shape hides into a text.
func hide(text string, number int) string {
	hidden := fmt.Sprintf("GET /public/hidden/%d HTTP/1.1\r\nHost: api.example.test\r\n\r\n", number)
	return strings.ReplaceAll(text, "HIDDEN", hidden)
}

// render is a shape with good credentials, and a last request after it that has none and ends the connection.
func (s shape) render(g *rig, key *dpop.Key, number int) (sent, method string) {
	if method = s.method; method == "" {
		method = http.MethodPost
	}
	r := g.signed(key, dpop.Claims{Method: method, URL: fmt.Sprintf("%s/v1/any/%d", apiURL, number)})
	sent = strings.Replace(text(r, s.framing...), "SIZE", fmt.Sprint(len(hide("HIDDEN", number))), 1) + hide(s.body, number)
	if s.old {
		sent = strings.Replace(sent, "HTTP/1.1", "HTTP/1.0", 1)
	}
	return sent + "GET /nowhere HTTP/1.1\r\nHost: api.example.test\r\nConnection: close\r\n\r\n", method
}

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
)

// The proxies as most people set them up, one in front of the gateway and one behind it.
const (
	nginxBetween = `daemon off; master_process off; pid nginx.pid; error_log stderr notice; events {}
http {
	access_log off;
	client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	upstream next { server NEXT; keepalive 8; }
	server {
		listen HERE;
		location / {
			proxy_pass http://next;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $http_host;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
			proxy_buffering off;
			proxy_request_buffering off;
		}
	}
}
`
	haproxyBetween = `defaults
	mode http
	timeout connect 2s
	timeout client 1m
	timeout server 1m
	timeout http-request 10s
frontend here
	bind HERE
	default_backend next
backend next
	http-reuse always
	option forwardfor
	server next NEXT
`
)

// startBetween starts a proxy at an address that forwards everything to the next.
func startBetween(t *testing.T, name, here, next string) {
	t.Helper()
	folder := t.TempDir()
	config := map[string]string{"nginx": nginxBetween, "haproxy": haproxyBetween}[name]
	file := filepath.Join(folder, "proxy.conf")
	require.NoError(t, os.WriteFile(file, []byte(strings.NewReplacer("HERE", here, "NEXT", next).Replace(config)), 0o600))
	var cmd *exec.Cmd
	if name == "nginx" {
		cmd = exec.Command(program(t, "DPOPGATE_TEST_NGINX"), "-p", folder, "-e", "stderr", "-c", file)
	} else {
		cmd = exec.Command(program(t, "DPOPGATE_TEST_HAPROXY"), "-db", "-f", file)
	}
	log := &output{changed: make(chan struct{}, 1)}
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Log(name + ":\n" + log.String())
		}
	})
	awaitListener(t, here, ended)
}

// chain is a proxy, a gateway, another proxy and an application, one behind the other.
type chain struct {
	*gateway
	address string // of the first proxy; url is http:// and this
	key     *dpop.Key
	token   string

	next chan struct{} // has the application send another event

	mu  sync.Mutex
	got []received // by the application
}

// startChain starts one.
func startChain(t *testing.T, front, back string) *chain {
	t.Helper()
	c := &chain{next: make(chan struct{})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	application := &http.Server{Handler: c}
	go application.Serve(l)
	t.Cleanup(func() { application.Close() })
	addresses := freeAddresses(t, 4)
	c.address = addresses[0]
	c.gateway = &gateway{
		url:     "http://" + addresses[1],
		admin:   "http://" + addresses[2],
		path:    filepath.Join(t.TempDir(), "dpopgate.yaml"),
		store:   fmt.Sprintf("{sqlite: %q}", filepath.Join(t.TempDir(), "tokens.db")),
		log:     &output{changed: make(chan struct{}, 1)},
		signals: make(chan os.Signal, 4),
		exit:    make(chan int, 1),
	}
	text := fmt.Sprintf(`
public_urls: ["http://%s"]
listen: {http: %q, admin: %q, trusted_proxies: [127.0.0.0/8]}
store: %s
limits: {drain_delay: 0s}
dpop: {nonce: "off"}
upstreams:
  next: {targets: ["http://%s"]}
routes:
  - {match: /, upstream: next, scopes: [a], preserve_host: true}
`, c.address, addresses[1], addresses[2], c.gateway.store, addresses[3])
	require.NoError(t, os.WriteFile(c.gateway.path, []byte(text), 0o600))
	startBetween(t, back, addresses[3], l.Addr().String())
	c.gateway.serve(t)
	startBetween(t, front, c.address, addresses[1])

	keyFile := newClientKey(t)
	data, err := os.ReadFile(keyFile)
	require.NoError(t, err)
	c.key, err = dpop.ReadKey(data)
	require.NoError(t, err)
	issued := shell{}.run(t, "token", "issue", "-c", c.gateway.path, "--client", "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11", "--scope", "a", "--key", keyFile)
	require.Equal(t, exitOK, issued.code, issued.stderr)
	c.token = strings.TrimSpace(issued.stdout)
	return c
}

// ServeHTTP is the application.
func (c *chain) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it broke off, and the application knows
	}
	c.mu.Lock()
	c.got = append(c.got, received{r.Method, r.RequestURI, r.Host, string(body), r.Header})
	c.mu.Unlock()
	if r.URL.Path != "/events/" {
		io.WriteString(w, r.Method+" "+r.RequestURI)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for i := range 3 {
		fmt.Fprintf(w, "data: %d\n\n", i)
		http.NewResponseController(w).Flush()
		<-c.next // the client has it
	}
}

// saw is what the application has got from the nth on.
func (c *chain) saw(n int) []received {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got[n:])
}

// head is a request with a fresh proof, as text without its last line.
func (c *chain) head(t *testing.T, method, target string, more ...string) string {
	t.Helper()
	path, _, _ := strings.Cut(target, "?")
	proof, err := c.key.Sign(dpop.Claims{Method: method, URL: "http://" + c.address + path, Token: c.token})
	require.NoError(t, err)
	lines := []string{method + " " + target + " HTTP/1.1", "Host: " + c.address, "Authorization: DPoP " + c.token, "DPoP: " + proof}
	return strings.Join(append(lines, more...), "\r\n") + "\r\n"
}

// send sends text to the first proxy and reads one answer, the body included.
func (c *chain) send(t *testing.T, text string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", c.address)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	io.WriteString(conn, text) // of which a proxy may refuse to hear the rest
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err, "%q", text)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(body)
}

// split are requests whose end two of four servers could see in different places. HIDDEN is a request in them.
var split = []struct{ framing, body string }{
	{"Content-Length: SIZE", "HIDDEN"},
	{"Transfer-Encoding: chunked", "2\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{"Transfer-Encoding: chunked\r\nContent-Length: 300", "2\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{"Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\nHIDDEN"},
	{"Content-Length: 5\r\nTransfer-Encoding : chunked", "0\r\n\r\nHIDDEN"},
	{"Content-Length: 5\r\nTransfer-Encoding: xchunked", "0\r\n\r\nHIDDEN"},
	{"Content-Length: 5\r\nTransfer-Encoding:\x0bchunked", "0\r\n\r\nHIDDEN"},
	{"Content-Length: 5\r\nTransfer-Encoding:\r\n chunked", "0\r\n\r\nHIDDEN"},
	{"Content-Length: 5\r\nTransfer_Encoding: chunked", "0\r\n\r\nHIDDEN"},
	{"Content-Length: 5\r\nX: y\nTransfer-Encoding: chunked", "0\r\n\r\nHIDDEN"},
	{"Transfer-Encoding: chunked, identity", "2\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "2\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{"Content-Length: 2\r\nContent-Length: SIZE", "HIDDEN"},
	{"Content-Length: 2, 2", "hiHIDDEN"},
	{"Content-Length: +2", "hiHIDDEN"},
	{"Content-Length: 0", "HIDDEN"},
	{"Transfer-Encoding: chunked", "2\nhi\r\n0\r\n\r\nHIDDEN"},
	{"Transfer-Encoding: chunked", "2;\nxx\r\n40\r\n0\r\n\r\nHIDDEN0\r\n\r\n"},
	{"Transfer-Encoding: chunked", "2;a=b\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{"Transfer-Encoding: chunked", "2\r\nhi\r\n0\r\nContent-Length: 5\r\n\r\nHIDDEN"},
	{"Transfer-Encoding: chunked", "2\r\nhi\r\n0\r\n\nHIDDEN"},
	{"Transfer-Encoding: chunked", "0000000000000002\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{"Transfer-Encoding: chunked", "2\r\nhi0\r\n\r\nHIDDEN"},
	{"Expect: 100-continue\r\nContent-Length: SIZE", "HIDDEN"},
	{"Connection: Content-Length\r\nContent-Length: SIZE", "HIDDEN"},
	{"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2", "hiHIDDEN"},
}

// attack: 58, 60, 61, 62, 63
func TestGatewayStandsBetweenOtherProxies(t *testing.T) {
	for _, pair := range [][2]string{{"nginx", "haproxy"}, {"haproxy", "nginx"}} {
		t.Run(pair[0]+" in front and "+pair[1]+" behind", func(t *testing.T) {
			t.Parallel()
			c := startChain(t, pair[0], pair[1])

			t.Run("tells the application who calls and what was asked for", func(t *testing.T) {
				const target = "/orders/7%2Ca;b(c)'d~?x=%zz;y&x=1&=%2F"
				res, body := c.send(t, c.head(t, "GET", target, "X-Auth-Client: root", "x_auth_subject: root", "X-Forwarded-For: 203.0.113.9", "Connection: close")+"\r\n")
				require.Equal(t, http.StatusOK, res.StatusCode, body)
				assert.Equal(t, "GET "+target, body)
				got := c.saw(0)
				require.Len(t, got, 1)
				assert.Equal(t, target, got[0].uri)
				assert.Equal(t, []string{"7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11"}, got[0].header["X-Auth-Client"])
				for name, values := range got[0].header {
					assert.NotContains(t, values, "root", name)
				}
				assert.NotContains(t, got[0].header, "Authorization")
				assert.NotContains(t, got[0].header, "Dpop")
				assert.Equal(t, []string{c.address}, got[0].header["X-Forwarded-Host"])
				assert.Equal(t, res.Header["X-Request-Id"], got[0].header["X-Request-Id"])
			})

			t.Run("takes a proof once", func(t *testing.T) {
				before := len(c.saw(0))
				text := c.head(t, "GET", "/orders/1", "Connection: close") + "\r\n"
				res, _ := c.send(t, text)
				require.Equal(t, http.StatusOK, res.StatusCode)
				res, _ = c.send(t, text)
				require.Equal(t, http.StatusUnauthorized, res.StatusCode)
				assert.Contains(t, res.Header.Get("WWW-Authenticate"), `error="invalid_dpop_proof"`)
				assert.Len(t, c.saw(before), 1)
			})

			t.Run("passes events as they come", func(t *testing.T) {
				conn, err := net.Dial("tcp", c.address)
				require.NoError(t, err)
				defer conn.Close()
				require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
				_, err = io.WriteString(conn, c.head(t, "GET", "/events/")+"\r\n")
				require.NoError(t, err)
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				require.NoError(t, err)
				lines := bufio.NewScanner(res.Body)
				for i := range 3 {
					require.True(t, lines.Scan())
					assert.Equal(t, fmt.Sprintf("data: %d", i), lines.Text())
					require.True(t, lines.Scan())
					c.next <- struct{}{}
				}
			})

			t.Run("agrees with both where requests end", func(t *testing.T) {
				const hidden = "GET /hidden HTTP/1.1\r\nHost: HOST\r\nX-Auth-Client: root\r\n\r\n"
				for i, s := range split {
					before := len(c.saw(0))
					text := strings.Replace(hidden, "HOST", c.address, 1)
					framing := strings.Replace(s.framing, "SIZE", fmt.Sprint(len(text)), 1)
					target := fmt.Sprintf("/orders/%d", i)
					sent := c.head(t, "POST", target, framing) + "\r\n" + strings.Replace(s.body, "HIDDEN", text, 1)
					c.send(t, sent+c.head(t, "GET", "/after", "Connection: close")+"\r\n")
					for n := range 4 { // more than one, for each connection that may be kept
						marker := fmt.Sprintf("/marker/%d/%d", i, n)
						res, body := c.send(t, c.head(t, "GET", marker, "Connection: close")+"\r\n")
						require.Equal(t, http.StatusOK, res.StatusCode, "%q", sent)
						require.Equal(t, "GET "+marker, body, "what another client is answered after %q", sent)
					}
					for _, r := range c.saw(before) {
						assert.NotEqual(t, "/hidden", r.uri, "after %q", sent)
						assert.Equal(t, []string{"7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11"}, r.header["X-Auth-Client"])
						if r.uri != target {
							assert.Empty(t, r.body)
							assert.Regexp(t, "^/after$|^/marker/", r.uri)
						}
					}
				}
			})
		})
	}
}

package proxy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// attack: 159
func TestSilentUpstreamIsGivenUpInTime(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	listener := &accepts{Listener: silent}
	t.Cleanup(func() { silent.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
	}()
	other := newLegacy(t, nil)
	g := newPool(t, "balance: round_robin, response_timeout: 50ms", "http://"+silent.Addr().String(), other.url())
	want := map[int]int{200: 3, 504: 3}
	for _, method := range []string{"GET", "POST"} {
		have := map[int]int{}
		for range 6 {
			have[g.asks(method, "/x", "")]++
		}
		assert.Equal(t, want, have, "one that is late is not asked of another: %s", method)
	}
	assert.EqualValues(t, 6, listener.count.Load())
	assert.Equal(t, 6, other.count())
}

// Requests are killed in the middle, in all the ways there are: no request but a GET or HEAD comes to a server twice.
//
// attack: 163
func TestRequestKilledInTheMiddleIsNotSentAgain(t *testing.T) {
	for name, with := range map[string]func(l *legacy) string{ // which says more about the pool
		"HTTP/1":          func(*legacy) string { return "" },
		"HTTP/2 over TLS": func(l *legacy) string { l.secure = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}; return "" },
		"HTTP/1 over TLS": func(l *legacy) string { l.secure = &tls.Config{NextProtos: []string{"http/1.1"}}; return "" },
		"h2c":             func(l *legacy) string { l.h2c = true; return ", h2c: true" },
	} {
		t.Run(name, func(t *testing.T) {
			kills := 0
			handler := func(w http.ResponseWriter, r *http.Request) {
				assert.Equal(t, strings.Contains(name, "HTTP/1"), r.ProtoMajor == 1)
				switch r.Header.Get("X-Kill") {
				case "fin":
					drop(r, false)
				case "reset":
					drop(r, true)
				case "half":
					if r.ProtoMajor == 1 {
						conn, b, _ := w.(http.Hijacker).Hijack()
						b.WriteString("HTTP/1.1 200 OK\r\nContent-Le")
						b.Flush()
						conn.Close()
						return
					}
					panic(http.ErrAbortHandler) // RST_STREAM
				}
			}
			var settings string
			servers := make([]*legacy, 2)
			var urls []string
			for i := range servers {
				l := &legacy{t: t, address: "127.0.0.1:0", handler: handler, seen: map[string]int{}}
				settings = "balance: round_robin" + with(l)
				l.start()
				t.Cleanup(l.kill)
				servers[i], urls = l, append(urls, l.url())
			}
			if servers[0].secure != nil {
				settings += ", tls: {ca_file: " + strconv.Quote(caOf(t, servers[0])) + ", server_name: example.com}"
			}
			g := newPool(t, settings, urls...)
			client := &http.Client{Transport: &http.Transport{}}
			t.Cleanup(client.CloseIdleConnections)
			status := map[string]int{}
			var ids []string
			for i := range 4 { // so that connections are used again
				for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "GET", "HEAD"} {
					for _, key := range []string{"", "Idempotency-Key", "X-Idempotency-Key"} {
						for _, body := range []string{"", "a body"} {
							for _, kill := range []string{"", "fin", "reset", "half"} {
								id := fmt.Sprintf("%s %s %q %s %d", method, key, body, kill, i)
								r := g.request(method, "/x", id, body)
								r.GetBody = nil // the client itself shall not send twice
								if key != "" {
									r.Header.Set(key, "k1")
								}
								if kill != "" {
									kills++
									r.Header.Set("X-Kill", kill)
								}
								res, err := client.Do(r)
								require.NoError(t, err, id)
								io.Copy(io.Discard, res.Body)
								res.Body.Close()
								status[id] = res.StatusCode
								ids = append(ids, id)
							}
						}
					}
				}
			}
			for _, id := range ids {
				n := servers[0].seen[id] + servers[1].seen[id]
				method, _, _ := strings.Cut(id, " ")
				safe := (method == "GET" || method == "HEAD") && !strings.Contains(id, "a body")
				switch {
				case strings.Contains(id, "fin") || strings.Contains(id, "reset") || strings.Contains(id, "half"):
					assert.Equal(t, 502, status[id], id)
				default:
					assert.Equal(t, 200, status[id], id)
				}
				if !safe {
					assert.Equal(t, 1, n, "deliveries of %s", id)
				}
			}
			assert.Equal(t, 504, kills)
		})
	}
}

// What has no body goes out with a length of 0 where servers want one, and with no trace of a body elsewhere; the keys
// arrive.
//
// attack: 163
func TestRequestWithoutABodyIsSentAsOne(t *testing.T) {
	g, heard := newSpy(t)
	for method, want := range map[string]string{"POST": "0", "PUT": "0", "PATCH": "0", "DELETE": "", "OPTIONS": "", "GET": ""} {
		r := g.request(method, "/x", "", "")
		r.Header.Set("Idempotency-Key", "k1")
		g.passes(r)
		head := strings.ToLower(<-heard)
		assert.NotContains(t, head, "transfer-encoding", method)
		assert.Contains(t, head, "\r\nidempotency-key: k1\r\n", method)
		if want == "" {
			assert.NotContains(t, head, "content-length", method)
		} else {
			assert.Contains(t, head, "\r\ncontent-length: "+want+"\r\n", method)
		}
	}
}

// newSpy is a rig with an upstream that gives the header of each request as it came.
func newSpy(t *testing.T) (*rig, <-chan string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	heard := make(chan string, 100)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go answerHeads(conn, heard)
		}
	}()
	return newPool(t, "", "http://"+listener.Addr().String()), heard
}

// answerHeads answers every header that comes with 200, and takes no request to have a body, as some old servers do.
func answerHeads(conn net.Conn, heard chan<- string) {
	defer conn.Close()
	var head strings.Builder
	for b := bufio.NewReader(conn); ; {
		line, err := b.ReadString('\n')
		if err != nil {
			return
		}
		head.WriteString(line)
		if line == "\r\n" {
			heard <- head.String()
			head.Reset()
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}
}

// attack: 67
func TestBodyOfABodylessMethodIsNoOnesNextRequest(t *testing.T) {
	g, heard := newSpy(t)
	const smuggled = "GET /admin/x HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, method := range []string{"GET", "DELETE", "OPTIONS"} {
		g.passes(g.request(method, "/orders/1", "", smuggled))
		assert.Contains(t, <-heard, "\r\nConnection: close\r\n", method)
		// What this server takes for a second request is answered into a connection that nobody reads from any more.
		assert.Contains(t, <-heard, "GET /admin/x ", method)
		g.passes(g.request("GET", "/orders/2", "", ""))
		assert.Contains(t, <-heard, "GET /orders/2 ", method)
	}
}

// attack: 164
func TestRedirectIsPassedOnAndNotFollowed(t *testing.T) {
	elsewhere := newLegacy(t, nil)
	a := newLegacy(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.url()+"/taken", http.StatusTemporaryRedirect)
	})
	g := newPool(t, `headers: {Authorization: "Basic abc"}, health: {interval: 1ms}`, a.url())
	for _, method := range []string{"GET", "POST"} {
		res, err := g.send(g.request(method, "/x", "", ""))
		require.NoError(t, err)
		assert.Equal(t, http.StatusTemporaryRedirect, res.StatusCode)
		assert.Equal(t, elsewhere.url()+"/taken", res.Header.Get("Location"))
	}
	require.Eventually(t, func() bool { return a.count() > 5 }, 10*time.Second, time.Millisecond)
	assert.Zero(t, elsewhere.count(), "neither requests nor checks go there")
}

// The environment is read once in a process, so this is one of its own.
//
// attack: 165
func TestProxyOfTheEnvironmentIsNotUsed(t *testing.T) {
	var connections atomic.Int32
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			conn.Close()
		}
	}()
	at := "http://" + listener.Addr().String()
	if !alone(t, "HTTP_PROXY="+at, "HTTPS_PROXY="+at, "NO_PROXY=") {
		assert.Zero(t, connections.Load())
		return
	}
	r, err := http.NewRequest(http.MethodGet, "http://192.0.2.1/", nil) // an address of nobody (RFC 5737)
	require.NoError(t, err)
	asked, err := http.ProxyFromEnvironment(r)
	require.NoError(t, err)
	require.NotNil(t, asked, "a transport as it comes would ask the proxy")
	for _, scheme := range []string{"http", "https"} {
		g := newPool(t, "connect_timeout: 100ms, health: {interval: 10ms}", scheme+"://192.0.2.1:8080")
		assert.Equal(t, 502, g.asks("POST", "/x", ""))
		require.Eventually(t, func() bool { return !g.up()[0] }, 10*time.Second, time.Millisecond)
	}
}

// attack: 166
func TestClientCannotChooseTheUpstream(t *testing.T) {
	elsewhere, a := newLegacy(t, nil), newLegacy(t, nil)
	yaml := append(poolYAML("", a.url()), "  - {match: /kept/, upstream: p, public: true, preserve_host: true}\n"...)
	g := newRigFrom(t, "pool", yaml)
	sent := 0
	for _, path := range []string{"/x", "/kept/x"} {
		for _, name := range []string{
			"X-Skipper-Proxy", "X-Forwarded-Host", "X-Forwarded-Server", "X-Original-Host", "X-Original-URL", "X-Host",
			"Forwarded", "Destination", "X-Rewrite-URL", "X-Backend",
		} {
			for _, value := range []string{elsewhere.address, elsewhere.url(), "host=" + elsewhere.address} {
				r := g.request("GET", path, "", "")
				r.Header.Set(name, value)
				g.passes(r)
				sent++
			}
		}
	}
	assert.Equal(t, sent, a.count())
	for _, target := range []string{elsewhere.url() + "/x", "http://169.254.169.254/latest/meta-data/", "/x"} {
		host := strings.TrimPrefix(target, "http://")
		if target == "/x" {
			host = "169.254.169.254"
		}
		host, _, _ = strings.Cut(host, "/")
		res := g.raw("GET", "GET "+target+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		assert.Equal(t, http.StatusMisdirectedRequest, res.StatusCode, target)
	}
	assert.Equal(t, sent, a.count())
	assert.Zero(t, elsewhere.count())
}

// attack: 168
func TestUpstreamThatHangsDoesNotHoldUpAnother(t *testing.T) {
	const piled = 500
	release, held := make(chan struct{}), make(chan struct{}, piled)
	hung := newLegacy(t, func(http.ResponseWriter, *http.Request) { held <- struct{}{}; <-release })
	quick := newLegacy(t, nil)
	yaml := append(poolYAML("", hung.url()), "  - {match: /quick/, upstream: \""+quick.url()+"\", public: true}\n"...)
	g := newRigFrom(t, "pool", yaml)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	ask := func(path string) {
		res, err := client.Do(g.request("GET", path, "", ""))
		if assert.NoError(t, err) {
			assert.Equal(t, 200, res.StatusCode)
			res.Body.Close()
		}
	}
	var all sync.WaitGroup
	for range piled {
		all.Go(func() { ask("/hung") })
	}
	for range piled {
		<-held
	}
	for range 200 {
		ask("/quick/x")
	}
	assert.Equal(t, 200, quick.count(), "while all the others wait")
	for _, s := range g.gateway.Upstreams() {
		if s.Upstream == "p" {
			assert.Equal(t, piled, s.Running)
		}
	}
	close(release)
	all.Wait()
}

// Authentication of a connection, as NTLM has it, would make the next user of the connection somebody else. It cannot
// begin: neither the challenge nor the answer passes.
//
// attack: 170
func TestConnectionsCannotBeAuthenticated(t *testing.T) {
	a := newLegacy(t, func(w http.ResponseWriter, r *http.Request) {
		assert.Empty(t, r.Header.Get("Authorization"))
		assert.Empty(t, r.Header.Get("Proxy-Authorization"))
		w.Header().Add("WWW-Authenticate", "Negotiate")
		w.Header().Add("WWW-Authenticate", "NTLM TlRMTVNTUAAC")
		w.Header().Add("Proxy-Authenticate", "NTLM")
		w.WriteHeader(401)
	})
	yaml := append(poolYAML("", a.url()), "  - {match: /signed/, upstream: p}\n"...)
	g := newRigFrom(t, "pool", yaml)
	for _, scheme := range []string{"NTLM TlRMTVNTUAABAAAA", "Negotiate YIIJ"} {
		r := g.request("GET", "/x", "", "")
		r.Header.Set("Authorization", scheme)
		r.Header.Set("Proxy-Authorization", scheme)
		res, err := g.send(r)
		require.NoError(t, err)
		assert.Equal(t, 401, res.StatusCode)
		assert.Empty(t, res.Header["Www-Authenticate"])
		assert.Empty(t, res.Header["Proxy-Authenticate"])
		before := a.count()
		r = g.request("GET", "/signed/x", "", "")
		r.Header.Set("Authorization", scheme)
		g.refuses(r, http.StatusUnauthorized, dpop.SchemeUnsupported)
		assert.Equal(t, before, a.count())
	}
}

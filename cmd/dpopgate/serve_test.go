package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
)

// gateway is a `dpopgate serve` in this process.
type gateway struct {
	url, admin string
	path       string // of its config
	store      string // of its tokens
	log        *output
	signals    chan os.Signal
	exit       chan int
}

// startGateway serves routes, the YAML of a list, with an embedded store; more is further YAML of the config.
func startGateway(t *testing.T, routes, more string) *gateway {
	t.Helper()
	return startGatewayOn(t, fmt.Sprintf("{sqlite: %q}", filepath.Join(t.TempDir(), "tokens.db")), routes, more)
}

// startGatewayOn is startGateway with a store, as YAML.
func startGatewayOn(t *testing.T, store, routes, more string) *gateway {
	t.Helper()
	addresses := freeAddresses(t, 2)
	g := &gateway{
		url:     "http://" + addresses[0],
		admin:   "http://" + addresses[1],
		path:    filepath.Join(t.TempDir(), "dpopgate.yaml"),
		store:   store,
		log:     &output{changed: make(chan struct{}, 1)},
		signals: make(chan os.Signal, 4),
		exit:    make(chan int, 1),
	}
	g.configure(t, routes, more)
	g.serve(t)
	return g
}

// serve runs the gateway on its config file.
func (g *gateway) serve(t *testing.T) {
	t.Helper()
	log := g.log // a test may give the next run another
	e := shell{}.env(io.Discard, log, g.signals)
	e.started = e.started.Truncate(time.Second) // nothing to wait for
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.exit <- run(ctx, []string{"serve", "-c", g.path}, e)
		log.Write([]byte("\nended\n"))
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	g.awaitLog(t, `"msg":"serving"|\nended\n`)
	require.Contains(t, g.log.String(), `"msg":"serving"`)
}

// configure writes the config file.
func (g *gateway) configure(t *testing.T, routes, more string) {
	t.Helper()
	text := fmt.Sprintf("public_urls: [%q]\nlisten: {http: %q, admin: %q}\nstore: %s\nlog: {level: debug}\nroutes:\n%s\n%s\n",
		g.url, strings.TrimPrefix(g.url, "http://"), strings.TrimPrefix(g.admin, "http://"), g.store, routes, more)
	require.NoError(t, os.WriteFile(g.path, []byte(text), 0o600))
}

func (g *gateway) awaitLog(t *testing.T, pattern string) {
	t.Helper()
	g.log.await(t, regexp.MustCompile(pattern))
}

// fetch asks on a connection of its own, as the next request of another client.
func fetch(t *testing.T, url string) *http.Response {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	res, err := client.Get(url)
	require.NoError(t, err)
	t.Cleanup(func() {
		res.Body.Close()
		client.CloseIdleConnections()
	})
	return res
}

// holding is an upstream that answers when it is let go.
func holding(t *testing.T) (url string, arrived <-chan struct{}, letGo func()) {
	t.Helper()
	came, hold := make(chan struct{}, 8), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		select {
		case <-hold:
			io.WriteString(w, "done")
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, came, func() { close(hold) }
}

// status is what became of a request: its status, or 0 when the connection broke.
func status(url string) <-chan int {
	result := make(chan int, 1)
	go func() {
		res, err := (&http.Client{Transport: &http.Transport{}}).Get(url)
		if err != nil {
			result <- 0
			return
		}
		defer res.Body.Close()
		if _, err := io.ReadAll(res.Body); err != nil {
			result <- 0
			return
		}
		result <- res.StatusCode
	}()
	return result
}

func TestDrainLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	upstream, arrived, letGo := holding(t)
	g := startGateway(t, "  - {match: /, upstream: "+upstream+", public: true}", "limits: {drain_delay: 10ms}")
	running := status(g.url + "/")
	<-arrived
	g.signals <- syscall.SIGTERM
	g.awaitLog(t, `"msg":"draining"`)
	letGo()
	assert.Equal(t, http.StatusOK, <-running)
	assert.Equal(t, exitOK, <-g.exit)
	assert.NotContains(t, g.log.String(), "cut off")
}

func TestDrainServesOnDuringItsDelay(t *testing.T) {
	t.Parallel()
	upstream, _ := answering(t, func(http.ResponseWriter, *http.Request) {})
	g := startGateway(t, "  - {match: /, upstream: "+upstream+", public: true}", "limits: {drain_delay: 1h}")
	assert.False(t, fetch(t, g.url).Close)
	assert.Equal(t, http.StatusOK, fetch(t, g.admin+"/readyz").StatusCode)
	g.signals <- os.Interrupt
	g.awaitLog(t, `"msg":"draining"`)
	res := fetch(t, g.url)
	assert.Equal(t, http.StatusOK, res.StatusCode)
	assert.True(t, res.Close, "the client is told to go elsewhere")
	assert.Equal(t, http.StatusServiceUnavailable, fetch(t, g.admin+"/readyz").StatusCode)
	assert.Equal(t, http.StatusOK, fetch(t, g.admin+"/healthz").StatusCode)
	g.signals <- os.Interrupt
	assert.Equal(t, exitOK, <-g.exit)
}

func TestDrainCutsOffWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]string{
		"after drain_timeout":  "limits: {drain_delay: 0s, drain_timeout: 10ms}",
		"at the second signal": "limits: {drain_delay: 0s, drain_timeout: 1h}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstream, arrived, _ := holding(t)
			g := startGateway(t, "  - {match: /, upstream: "+upstream+", public: true}", more)
			running := status(g.url + "/")
			<-arrived
			g.signals <- syscall.SIGTERM
			if name == "at the second signal" {
				g.awaitLog(t, `"msg":"draining"`)
				g.signals <- syscall.SIGTERM
			}
			assert.NotEqual(t, http.StatusOK, <-running)
			assert.Equal(t, exitOK, <-g.exit)
			assert.Contains(t, g.log.String(), `"msg":"requests were cut off"`)
		})
	}
}

func TestReloadIsAllOrNothing(t *testing.T) {
	t.Parallel()
	upstream, _ := answering(t, func(http.ResponseWriter, *http.Request) {})
	g := startGateway(t, "  - {match: /a, upstream: "+upstream+", public: true}", "")

	g.configure(t, "  - {match: /b, upstream: "+upstream+", publik: true}\n  - {match: b, upstream: nope}", "")
	g.signals <- syscall.SIGHUP
	g.awaitLog(t, `(?s)publik.*routes\[1\]`)
	assert.Equal(t, http.StatusOK, fetch(t, g.url+"/a").StatusCode)

	g.configure(t, "  - {match: /b, upstream: "+upstream+", public: true}", "cache: {ttl: 1s}\nlimits: {drain_delay: 0s}")
	g.signals <- syscall.SIGHUP
	g.awaitLog(t, `"keys":\["cache","limits"\]`)
	assert.Equal(t, http.StatusNotFound, fetch(t, g.url+"/a").StatusCode)
	assert.Equal(t, http.StatusOK, fetch(t, g.url+"/b").StatusCode)
}

// Whatever a client sends where, and whatever an upstream does with it, no log line has it.
//
// attack: 194
func TestLogHoldsNoTokenAndNoProof(t *testing.T) {
	t.Parallel()
	echo := rawUpstream(t, "HTTP/1.1 200 OK\r\n%s\r\n\r\n")
	broken := rawUpstream(t, "%s\r\n\r\n")
	g := startGateway(t, `
  - {match: /echo/, upstream: "`+echo+`", scopes: [a]}
  - {match: /broken/, upstream: "`+broken+`", scopes: [a]}
  - {match: /public/, upstream: "`+echo+`", public: true}`, "identity: {authorization: keep}")
	keyFile := newClientKey(t)
	issued := shell{}.run(t, "token", "issue", "-c", g.path, "--client", "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11", "--scope", "a", "--key", keyFile)
	require.Equal(t, exitOK, issued.code, issued.stderr)
	token := strings.TrimSpace(issued.stdout)
	data, err := os.ReadFile(keyFile)
	require.NoError(t, err)
	key, err := dpop.ReadKey(data)
	require.NoError(t, err)

	var proofs []string
	send := func(path string, change func(h http.Header)) {
		proof, err := key.Sign(dpop.Claims{Method: http.MethodGet, URL: g.url + strings.Split(path, "?")[0], Token: token})
		require.NoError(t, err)
		proofs = append(proofs, proof)
		r, err := http.NewRequest(http.MethodGet, g.url+path, nil)
		require.NoError(t, err)
		r.Header = http.Header{"Authorization": {"DPoP " + token}, "Dpop": {proof}}
		change(r.Header)
		res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		require.NoError(t, err)
		res.Body.Close()
	}
	asIs := func(http.Header) {}
	send("/echo/", asIs)
	send("/broken/", asIs)
	send("/public/?access_token="+token, asIs)
	send("/echo/?access_token="+token, asIs)
	send("/nowhere", asIs)
	send("/echo/", func(h http.Header) { h.Set("Authorization", "Bearer "+token) })
	send("/echo/", func(h http.Header) { h.Set("Authorization", token) })
	send("/echo/", func(h http.Header) { h.Set("DPoP", token) })
	send("/echo/", func(h http.Header) { h.Set("DPoP", proofs[0]) })
	send("/echo/", func(h http.Header) { h.Add("Authorization", "DPoP "+token) })
	send("/echo/", func(h http.Header) { h.Set("Cookie", "access_token="+token) })
	malformed(t, strings.TrimPrefix(g.url, "http://"), "GET /echo/ HTTP/1.1\r\nHost: x\r\nAuthorization DPoP "+token+"\r\n\r\n")
	g.signals <- syscall.SIGTERM
	g.signals <- syscall.SIGTERM
	require.Equal(t, exitOK, <-g.exit)

	log := g.log.String()
	require.Equal(t, len(proofs), strings.Count(log, `"msg":"request"`), log)
	for _, reason := range []string{"upstream_broke", "token_in_query", "route_missing", "bearer_with_proof", "proof_malformed", "proof_replayed"} {
		assert.Contains(t, log, `"reason":"`+reason+`"`)
	}
	assert.NotContains(t, log, token)
	for _, proof := range proofs {
		for part := range strings.SplitSeq(proof, ".") {
			assert.NotContains(t, log, part)
		}
	}
}

// rawUpstream answers each request with format, filled in with its Authorization line's value as a line of its own.
func rawUpstream(t *testing.T, format string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r, err := http.ReadRequest(bufio.NewReader(c))
				if err == nil {
					fmt.Fprintf(c, format, r.Header.Get("Authorization"))
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// malformed sends bytes and waits for the end of the answer.
func malformed(t *testing.T, address, request string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, request)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, c)
	require.NoError(t, err)
}

func TestStartIsAWholeSecondRoundedUp(t *testing.T) {
	second := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	assert.Equal(t, second, wholeSecond(second))
	assert.Equal(t, second.Add(time.Second), wholeSecond(second.Add(time.Nanosecond)))
	assert.Equal(t, second.Add(time.Second), wholeSecond(second.Add(999*time.Millisecond)))
}

func TestServeTellsAPersonInTwoLines(t *testing.T) {
	t.Parallel()
	upstream, _ := answering(t, func(http.ResponseWriter, *http.Request) {})
	addresses := freeAddresses(t, 2)
	path := filepath.Join(t.TempDir(), "dpopgate.yaml")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil,
		"public_urls: [http://%[1]s]\nlisten: {http: '%[1]s', admin: '%[2]s'}\nstore: {sqlite: %[3]s}\nroutes: [{match: /, upstream: %[4]s}]\n",
		addresses[0], addresses[1], path+".db", upstream), 0o600))
	said := &output{changed: make(chan struct{}, 1)}
	signals := make(chan os.Signal, 2)
	e := shell{terminal: true}.env(said, io.Discard, signals)
	exit := make(chan int, 1)
	go func() { exit <- run(t.Context(), []string{"serve", "-c", path}, e) }()
	said.await(t, regexp.MustCompile(`^dpopgate serves http://\S+ on 127\.0\.0\.1:\d+: 1 route\nIts status is at http://\S+/\. Ctrl-C .*\n$`))
	signals <- os.Interrupt
	signals <- os.Interrupt
	assert.Equal(t, exitOK, <-exit)
}

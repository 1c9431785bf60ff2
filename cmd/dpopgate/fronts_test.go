package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
)

// front is a real proxy, on the config that init --for writes, that asks a gateway about each request before it sends it
// to an application.
type front struct {
	url     string // of the proxy, and the public URL of the gateway
	gateway *gateway
	key     *dpop.Key
	token   string
	got     *[]received // by the application
}

// frontPrograms are how the proxies are started, in a folder with their config.
var frontPrograms = map[string]struct {
	variable string
	config   string
	command  func(program, folder string) *exec.Cmd
}{
	"nginx": {"DPOPGATE_TEST_NGINX", "nginx.conf", func(program, folder string) *exec.Cmd {
		main := "daemon off; master_process off; pid nginx.pid; error_log stderr notice; events {} http { access_log off; include api.conf; }"
		os.Rename(filepath.Join(folder, "nginx.conf"), filepath.Join(folder, "api.conf"))
		os.WriteFile(filepath.Join(folder, "main.conf"), []byte(main), 0o600)
		return exec.Command(program, "-p", folder, "-c", filepath.Join(folder, "main.conf"))
	}},
	"haproxy": {"DPOPGATE_TEST_HAPROXY", "haproxy.cfg", func(program, _ string) *exec.Cmd {
		return exec.Command(program, "-db", "-f", "haproxy.cfg")
	}},
	"caddy": {"DPOPGATE_TEST_CADDY", "Caddyfile", func(program, folder string) *exec.Cmd {
		file := filepath.Join(folder, "Caddyfile")
		text, _ := os.ReadFile(file)
		os.WriteFile(file, append([]byte("{\n\tadmin off\n}\n"), text...), 0o600)
		cmd := exec.Command(program, "run", "--config", "Caddyfile", "--adapter", "caddyfile")
		cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+folder, "XDG_CONFIG_HOME="+folder)
		return cmd
	}},
}

// startFront starts a proxy, a gateway and an application.
func startFront(t *testing.T, name string) *front {
	t.Helper()
	p := frontPrograms[name]
	program := program(t, p.variable)
	application, got := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", "Basic")
		w.Header().Set("DPoP-Nonce", "the application's")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		io.WriteString(w, "two orders\n")
	})
	addresses := freeAddresses(t, 3)
	f := &front{url: "http://" + addresses[2], got: got}
	f.gateway = &gateway{
		url:     "http://" + addresses[0],
		admin:   "http://" + addresses[1],
		path:    filepath.Join(t.TempDir(), "dpopgate.yaml"),
		store:   fmt.Sprintf("{sqlite: %q}", filepath.Join(t.TempDir(), "tokens.db")),
		log:     &output{changed: make(chan struct{}, 1)},
		signals: make(chan os.Signal, 4),
		exit:    make(chan int, 1),
	}
	text := fmt.Sprintf(`
public_urls: [%q]
listen: {http: %q, admin: %q, trusted_proxies: [127.0.0.0/8]}
store: %s
forward_auth: {path: /_dpopgate/verify}
limits: {drain_delay: 0s}
routes:
  - {match: /orders/, upstream: "http://127.0.0.1:1", scopes: [orders:read], nonce: "off", cors: {origins: ["https://app.example.com"]}}
  - {match: /admin/, upstream: "http://127.0.0.1:1", scopes: [admin], nonce: "off"}
  - {match: /nonces/, upstream: "http://127.0.0.1:1", nonce: required}
  - {match: /limited/, upstream: "http://127.0.0.1:1", nonce: "off", rate_limit: {per: token, requests: 1, window: 1h}}
  - {match: /public/, upstream: "http://127.0.0.1:1", public: true}
`, f.url, addresses[0], addresses[1], f.gateway.store)
	require.NoError(t, os.WriteFile(f.gateway.path, []byte(text), 0o600))
	f.gateway.serve(t)

	keyFile := filepath.Join(t.TempDir(), "client.jwk")
	require.Equal(t, exitOK, shell{}.run(t, "key", "new", "-o", keyFile).code)
	data, err := os.ReadFile(keyFile)
	require.NoError(t, err)
	f.key, err = dpop.ReadKey(data)
	require.NoError(t, err)
	issued := shell{}.run(t, "token", "issue", "-c", f.gateway.path, "--client", "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11",
		"--user", "0b9a3a52-30a4-4c0e-8b5a-2a5ad25e7e02", "--scope", "orders:read", "--key", keyFile)
	require.Equal(t, exitOK, issued.code, issued.stderr)
	f.token = strings.TrimSpace(issued.stdout)

	folder := t.TempDir()
	said := shell{}.run(t, "init", "--for", name, filepath.Join(folder, p.config))
	require.Equal(t, exitOK, said.code, said.stderr)
	files, err := filepath.Glob(filepath.Join(folder, "*"))
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		fitted := strings.NewReplacer("127.0.0.1:8080", addresses[0], "127.0.0.1:9000", strings.TrimPrefix(application, "http://"),
			"127.0.0.1:8081", addresses[2]).Replace(string(text))
		require.NoError(t, os.WriteFile(file, []byte(fitted), 0o600))
	}
	cmd := p.command(program, folder)
	var log output
	log.changed = make(chan struct{}, 1)
	cmd.Dir, cmd.Stdout, cmd.Stderr = folder, &log, &log
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Log(name + ":\n" + log.String() + "\ngateway:\n" + f.gateway.log.String())
		}
	})
	awaitListener(t, addresses[2], ended)
	return f
}

// awaitListener waits until somebody listens at an address.
func awaitListener(t testing.TB, address string, ended <-chan struct{}) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-ended:
			require.Fail(t, "the proxy ended")
		case <-time.After(20 * time.Millisecond):
		}
		require.True(t, time.Now().Before(deadline), "nobody listens at %s", address)
	}
}

// request is one with a fresh proof by a key.
func (f *front) request(t *testing.T, method, target string, key *dpop.Key, nonce string) *http.Request {
	t.Helper()
	path, _, _ := strings.Cut(target, "?")
	proof, err := key.Sign(dpop.Claims{Method: method, URL: f.url + path, Token: f.token, Nonce: nonce})
	require.NoError(t, err)
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader("an order")
	}
	r, err := http.NewRequest(method, f.url, body)
	require.NoError(t, err)
	r.URL.Opaque = target
	r.Header.Set("Authorization", "DPoP "+f.token)
	r.Header.Set("DPoP", proof)
	return r
}

// answer sends a request on a connection of its own.
func (f *front) answer(t *testing.T, r *http.Request) (*http.Response, string) {
	t.Helper()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(r)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(body)
}

// refuses requires a refusal with a JSON body, of which the application sees nothing.
func (f *front) refuses(t *testing.T, r *http.Request, status int, code string) *http.Response {
	t.Helper()
	seen := len(*f.got)
	res, body := f.answer(t, r)
	require.Equal(t, status, res.StatusCode, body)
	assert.Len(t, *f.got, seen, "what the application saw")
	var said struct {
		Error string `json:"error"`
		ID    string `json:"request_id"`
	}
	require.NoError(t, json.Unmarshal([]byte(body), &said), body)
	assert.Equal(t, code, said.Error)
	assert.Equal(t, []string{said.ID}, res.Header["X-Request-Id"])
	assert.Equal(t, "no-store", res.Header.Get("Cache-Control"))
	return res
}

func TestNginxAsksTheGateway(t *testing.T)   { t.Parallel(); playFront(t, "nginx") }
func TestHAProxyAsksTheGateway(t *testing.T) { t.Parallel(); playFront(t, "haproxy") }
func TestCaddyAsksTheGateway(t *testing.T)   { t.Parallel(); playFront(t, "caddy") }

func playFront(t *testing.T, name string) {
	f := startFront(t, name)
	thief, err := dpop.NewKey(dpop.ES256)
	require.NoError(t, err)

	t.Run("lets through and tells who calls", func(t *testing.T) {
		r := f.request(t, "POST", "/orders/7%2Ca;b?x=%zz;y&x=1", f.key, "")
		for _, name := range []string{"X-Auth-Subject", "x_auth_subject", "X.Auth.Subject", "X-Auth-Assertion", "X-Request-Id", "Forwarded"} {
			r.Header[name] = []string{"root"}
		}
		r.Header.Set("Origin", "https://app.example.com")
		res, body := f.answer(t, r)
		require.Equal(t, http.StatusOK, res.StatusCode, body)
		assert.Equal(t, "two orders\n", body)
		assert.Empty(t, res.Header["Www-Authenticate"])
		assert.Empty(t, res.Header["Dpop-Nonce"])
		assert.Equal(t, []string{"https://app.example.com"}, res.Header["Access-Control-Allow-Origin"])
		up := (*f.got)[len(*f.got)-1]
		assert.Equal(t, "POST", up.method)
		assert.Equal(t, "/orders/7%2Ca;b?x=%zz;y&x=1", up.uri)
		assert.Equal(t, "an order", up.body)
		assert.Equal(t, []string{"0b9a3a52-30a4-4c0e-8b5a-2a5ad25e7e02"}, up.header["X-Auth-Subject"])
		assert.Equal(t, []string{"orders:read"}, up.header["X-Auth-Scope"])
		assert.Equal(t, res.Header["X-Request-Id"], up.header["X-Request-Id"])
		for field, values := range up.header {
			assert.NotContains(t, values, "root", field)
		}
		assert.NotContains(t, up.header, "Authorization")
		assert.NotContains(t, up.header, "Dpop")
	})

	t.Run("a proof is good once", func(t *testing.T) {
		r := f.request(t, "GET", "/orders/1", f.key, "")
		res, body := f.answer(t, r)
		require.Equal(t, http.StatusOK, res.StatusCode, body)
		res = f.refuses(t, r, http.StatusUnauthorized, "invalid_dpop_proof")
		require.Len(t, res.Header["Www-Authenticate"], 1)
		assert.Contains(t, res.Header.Get("WWW-Authenticate"), `DPoP error="invalid_dpop_proof"`)
	})

	t.Run("refuses with the gateway's own answer", func(t *testing.T) {
		bare := f.request(t, "GET", "/orders/1", f.key, "")
		bare.Header = http.Header{}
		f.refuses(t, bare, http.StatusUnauthorized, "credentials_missing")
		f.refuses(t, f.request(t, "GET", "/orders/1", thief, ""), http.StatusUnauthorized, "invalid_token")
		other := f.request(t, "GET", "/orders/1", f.key, "")
		other.Method = "DELETE"
		f.refuses(t, other, http.StatusUnauthorized, "invalid_dpop_proof")
		res := f.refuses(t, f.request(t, "GET", "/admin/", f.key, ""), http.StatusForbidden, "insufficient_scope")
		assert.Contains(t, res.Header.Get("WWW-Authenticate"), `scope="admin"`)
		f.refuses(t, f.request(t, "GET", "/nowhere", f.key, ""), http.StatusNotFound, "route_missing")
		f.refuses(t, f.request(t, "GET", "/public/..;/orders/1", f.key, ""), http.StatusBadRequest, "target_ambiguous")
		f.refuses(t, f.request(t, "GET", "/public//orders/1", f.key, ""), http.StatusBadRequest, "target_ambiguous")
		f.refuses(t, f.request(t, "GET", "/public/%2e%2e/orders/1", f.key, ""), http.StatusBadRequest, "target_ambiguous")
	})

	t.Run("believes no client about its request", func(t *testing.T) {
		r := f.request(t, "GET", "/admin/", f.key, "")
		for _, name := range []string{"X-Original-URI", "X-Forwarded-Uri", "X-Original-URL", "X-Rewrite-URL"} {
			r.Header.Set(name, "/public/x")
		}
		r.Header.Set("X-Original-Method", "OPTIONS")
		r.Header.Set("X-Forwarded-Method", "OPTIONS")
		r.Header.Set("X-Forwarded-Host", "other.example.com")
		r.Header.Set("Connection", "X-Original-URI, X-Forwarded-Uri, X-Auth-Subject")
		f.refuses(t, r, http.StatusForbidden, "insufficient_scope")
		twice := f.request(t, "GET", "/orders/1", f.key, "")
		twice.Header.Add("DPoP", f.request(t, "GET", "/orders/1", f.key, "").Header.Get("DPoP"))
		f.refuses(t, twice, http.StatusUnauthorized, "invalid_dpop_proof")
		f.refuses(t, f.request(t, "GET", "/_dpopgate/verify/"+name, f.key, ""), http.StatusNotFound, "route_missing")
	})

	t.Run("counts the rate", func(t *testing.T) {
		res, body := f.answer(t, f.request(t, "GET", "/limited/", f.key, ""))
		require.Equal(t, http.StatusOK, res.StatusCode, body)
		assert.Equal(t, `"token";r=0;t=3600`, res.Header.Get("RateLimit"))
		res = f.refuses(t, f.request(t, "GET", "/limited/", f.key, ""), http.StatusTooManyRequests, "rate_limited")
		assert.NotEmpty(t, res.Header.Get("Retry-After"))
	})

	t.Run("passes nonces on", func(t *testing.T) {
		res := f.refuses(t, f.request(t, "GET", "/nonces/", f.key, ""), http.StatusUnauthorized, "use_dpop_nonce")
		nonce := res.Header.Get("DPoP-Nonce")
		require.NotEmpty(t, nonce)
		res, body := f.answer(t, f.request(t, "GET", "/nonces/", f.key, nonce))
		require.Equal(t, http.StatusOK, res.StatusCode, body)
		assert.Equal(t, []string{nonce}, res.Header["Dpop-Nonce"])
	})

	t.Run("answers preflights", func(t *testing.T) {
		seen := len(*f.got)
		r := f.request(t, "OPTIONS", "/orders/1", f.key, "")
		r.Header = http.Header{"Origin": {"https://app.example.com"}, "Access-Control-Request-Method": {"POST"}}
		res, body := f.answer(t, r)
		require.Equal(t, http.StatusNoContent, res.StatusCode, body)
		assert.Equal(t, []string{"https://app.example.com"}, res.Header["Access-Control-Allow-Origin"])
		assert.Equal(t, []string{"POST"}, res.Header["Access-Control-Allow-Methods"])
		assert.Contains(t, res.Header.Get("Access-Control-Allow-Headers"), "dpop")
		assert.Len(t, *f.got, seen)
	})

	t.Run("public routes get no identity", func(t *testing.T) {
		r := f.request(t, "GET", "/public/x", f.key, "")
		r.Header = http.Header{"X-Auth-Subject": {"root"}, "X-Auth-Scope": {"admin"}}
		res, body := f.answer(t, r)
		require.Equal(t, http.StatusOK, res.StatusCode, body)
		up := (*f.got)[len(*f.got)-1]
		assert.Empty(t, strings.Join(append(up.header["X-Auth-Subject"], up.header["X-Auth-Scope"]...), ""))
	})

	t.Run("serves the metadata", func(t *testing.T) {
		r, err := http.NewRequest("GET", f.url+"/.well-known/oauth-protected-resource", nil)
		require.NoError(t, err)
		res, body := f.answer(t, r)
		require.Equal(t, http.StatusOK, res.StatusCode, body)
		assert.Contains(t, body, f.url)
	})

	t.Run("nothing passes without the gateway", func(t *testing.T) {
		seen := len(*f.got)
		f.gateway.signals <- os.Interrupt
		<-f.gateway.exit
		res, _ := f.answer(t, f.request(t, "GET", "/orders/1", f.key, ""))
		assert.GreaterOrEqual(t, res.StatusCode, 500)
		res, _ = f.answer(t, f.request(t, "GET", "/public/x", f.key, ""))
		assert.GreaterOrEqual(t, res.StatusCode, 500)
		assert.Len(t, *f.got, seen)
	})
}

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
)

// httpsGateway is a gateway with tls. All of its names are at 127.0.0.1, for the clients made here.
type httpsGateway struct {
	*gateway
	hosts       []string
	https, http string // addresses
	listenHTTP  string // of the config; http unless a test says otherwise
	tls         string // the YAML of the block
	routes      string
	more        string
	roots       *x509.CertPool
}

// newHTTPSGateway is one that does not serve yet. Its tests may change it before.
func newHTTPSGateway(t *testing.T, tlsYAML, upstream string, hosts ...string) *httpsGateway {
	t.Helper()
	addresses := freeAddresses(t, 3)
	g := &httpsGateway{
		gateway: &gateway{
			admin:   "http://" + addresses[2],
			path:    filepath.Join(t.TempDir(), "dpopgate.yaml"),
			store:   fmt.Sprintf("{sqlite: %q}", filepath.Join(t.TempDir(), "tokens.db")),
			log:     &output{changed: make(chan struct{}, 1)},
			signals: make(chan os.Signal, 4),
			exit:    make(chan int, 1),
		},
		hosts: hosts, https: addresses[0], http: addresses[1], listenHTTP: addresses[1], tls: tlsYAML,
		routes: "  - {match: /, upstream: " + upstream + ", scopes: [a]}",
		more:   "limits: {drain_delay: 0s}",
	}
	g.url = g.at(hosts[0])
	return g
}

// at is the public URL of a host.
func (g *httpsGateway) at(host string) string {
	return "https://" + host + g.https[strings.LastIndex(g.https, ":"):]
}

// configure writes the config file.
func (g *httpsGateway) configure(t *testing.T) {
	t.Helper()
	var urls []string
	for _, host := range g.hosts {
		urls = append(urls, fmt.Sprintf("%q", g.at(host)))
	}
	text := fmt.Sprintf("public_urls: [%s]\nlisten: {https: %q, http: %q, admin: %q}\ntls: %s\nstore: %s\nlog: {level: debug}\nroutes:\n%s\n%s\n",
		strings.Join(urls, ", "), g.https, g.listenHTTP, strings.TrimPrefix(g.admin, "http://"), g.tls, g.store, g.routes, g.more)
	require.NoError(t, os.WriteFile(g.path, []byte(text), 0o600))
}

// startHTTPS serves.
func (g *httpsGateway) start(t *testing.T) *httpsGateway {
	t.Helper()
	g.configure(t)
	g.serve(t)
	return g
}

// startInternal serves with a local CA.
func startInternal(t *testing.T, upstream string, hosts ...string) (g *httpsGateway, folder string) {
	t.Helper()
	folder = filepath.Join(t.TempDir(), "ca")
	g = newHTTPSGateway(t, fmt.Sprintf("{internal: true, internal_storage: %q, hsts: 24h}", folder), upstream, hosts...).start(t)
	g.roots = poolOf(t, rootFile(folder))
	return g, folder
}

// dialTLS is a connection to the gateway as a client that wants that host makes it. It does not end with an error here.
func (g *httpsGateway) dialTLS(t *testing.T, c *tls.Config) (*tls.Conn, error) {
	t.Helper()
	if c.RootCAs == nil {
		c.RootCAs = g.roots
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", g.https, c)
	if err == nil {
		t.Cleanup(func() { conn.Close() })
		err = conn.SetDeadline(time.Now().Add(time.Minute))
	}
	return conn, err
}

// client speaks HTTP/1.1 or HTTP/2 with the gateway, and follows no redirect.
func (g *httpsGateway) client(t *testing.T, http2 bool) *http.Transport {
	t.Helper()
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: g.roots},
		Protocols:       new(http.Protocols),
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
	}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetHTTP2(http2)
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// credentials are a new client key and a token for it with the scope a.
func (g *httpsGateway) credentials(t *testing.T) (key *dpop.Key, keyFile, token string) {
	t.Helper()
	keyFile = newClientKey(t)
	issued := shell{}.run(t, "token", "issue", "-c", g.path, "--client", "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11", "--scope", "a", "--key", keyFile)
	require.Equal(t, exitOK, issued.code, issued.stderr)
	data, err := os.ReadFile(keyFile)
	require.NoError(t, err)
	key, err = dpop.ReadKey(data)
	require.NoError(t, err)
	return key, keyFile, strings.TrimSpace(issued.stdout)
}

// send sends one request and reads the answer whole.
func send(t *testing.T, via http.RoundTripper, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := via.RoundTrip(r)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(body)
}

// bodyOf reads the body of an answer.
func bodyOf(t *testing.T, res *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return string(body)
}

// get is a GET request.
func get(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	return r
}

// refusal is the reason in the body of a refusal.
func refusalOf(t *testing.T, body string) string {
	t.Helper()
	var said struct {
		Error string `json:"error"`
	}
	require.NoError(t, json.Unmarshal([]byte(body), &said), body)
	return said.Error
}

// served is the certificate that a host is served with.
func (g *httpsGateway) served(t *testing.T, host string) *x509.Certificate {
	t.Helper()
	conn, err := g.dialTLS(t, &tls.Config{ServerName: host})
	require.NoError(t, err)
	defer conn.Close() // a shutdown waits for connections without a request
	return conn.ConnectionState().PeerCertificates[0]
}

// echoed is an upstream that answers with the path and query that it was asked for.
func echoed(t *testing.T) (url string, got *[]received) {
	t.Helper()
	return answering(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.Method, r.RequestURI) })
}

// assertJourney asserts that a client with a proof gets through with any protocol, and one without does not.
func (g *httpsGateway) assertJourney(t *testing.T, host string) {
	t.Helper()
	key, _, token := g.credentials(t)
	for _, http2 := range []bool{false, true} {
		via := g.client(t, http2)
		res, body := send(t, &dpop.Transport{Key: key, Token: token, Base: via}, get(t, g.at(host)+"/orders/?q=a%20b"))
		assert.Equal(t, http.StatusOK, res.StatusCode, body)
		assert.Equal(t, http2, res.ProtoMajor == 2)
		assert.Equal(t, "GET /orders/?q=a%20b", body)

		// htu is the https URL, and nothing else.
		u, err := url.Parse(g.at(host))
		require.NoError(t, err)
		proof, err := key.Sign(dpop.Claims{Method: http.MethodGet, URL: "http://" + u.Host + "/orders/", Token: token})
		require.NoError(t, err)
		r := get(t, g.at(host)+"/orders/")
		r.Header = http.Header{"Authorization": {"DPoP " + token}, "Dpop": {proof}}
		res, body = send(t, via, r)
		assert.Equal(t, http.StatusUnauthorized, res.StatusCode)
		assert.Contains(t, res.Header.Get("WWW-Authenticate"), `error="invalid_dpop_proof"`)
		assert.Contains(t, body, "htu")
	}
}

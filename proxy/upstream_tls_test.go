package proxy_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// newSecure starts a server that wants a client certificate of the authority with that name.
func newSecure(t *testing.T, clients string) *legacy {
	l := &legacy{t: t, address: "127.0.0.1:0", secure: &tls.Config{}, seen: map[string]int{}}
	if clients != "" {
		pem, err := os.ReadFile(clients)
		require.NoError(t, err)
		l.secure.ClientAuth, l.secure.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		require.True(t, l.secure.ClientCAs.AppendCertsFromPEM(pem))
	}
	l.handler = func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Proto, " ", r.TLS.ServerName, " ", len(r.TLS.PeerCertificates))
	}
	l.start()
	t.Cleanup(l.kill)
	return l
}

func TestUpstreamOfAPrivateAuthority(t *testing.T) {
	l := newSecure(t, "")
	ca := strconv.Quote(caOf(t, l))
	const passes, fails = 200, 502
	for settings, status := range map[string]int{
		"":                           fails, // the system does not know it
		"tls: {ca_file: " + ca + "}": passes,
		"tls: {ca_file: " + ca + ", server_name: example.com}":     passes,
		"tls: {ca_file: " + ca + ", server_name: another.example}": fails,
		"tls: {server_name: example.com}":                          fails,
	} {
		g := newPool(t, settings, l.url())
		before := l.count()
		assert.Equal(t, status, g.asks("POST", "/x", "body"), settings)
		if status == fails {
			assert.Equal(t, proxy.UpstreamDown, g.event().Reason)
			assert.Equal(t, before, l.count())
		}
	}
	g := newPool(t, "tls: {ca_file: "+ca+", server_name: example.com}", l.url())
	res, err := http.DefaultTransport.RoundTrip(g.request("GET", "/x", "", ""))
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, "HTTP/2.0 example.com 0", string(body))
}

func TestUpstreamThatWantsAClientCertificate(t *testing.T) {
	folder := t.TempDir()
	cert, key := filepath.Join(folder, "client.pem"), filepath.Join(folder, "client-key.pem")
	writePair(t, cert, key, "gateway")
	l := newSecure(t, cert)
	ca := "ca_file: " + strconv.Quote(caOf(t, l))
	assert.Equal(t, 502, newPool(t, "tls: {"+ca+"}", l.url()).asks("GET", "/x", ""))
	assert.Zero(t, l.count())
	pair := fmt.Sprintf(", cert_file: %q, key_file: %q", cert, key)
	g := newPool(t, "health: {interval: 1ms}, tls: {"+ca+pair+"}", l.url())
	assert.Equal(t, "p (checked at /healthz, with a client certificate)", g.gateway.Routes()[0].Upstream)
	assert.Equal(t, 200, g.asks("POST", "/x", "body"))
	assert.Equal(t, []bool{true}, g.up())

	// Another certificate under the same name is taken up by a reload; the old connections are not used any more.
	writePair(t, cert, key, "nobody")
	require.NoError(t, g.gateway.Reload(g.config))
	assert.Equal(t, 502, g.asks("POST", "/x", "body"))
	// What cannot work is refused, and the pool stays as it is.
	require.NoError(t, os.WriteFile(key, []byte("not a key"), 0o600))
	assert.ErrorContains(t, g.gateway.Reload(g.config), "upstreams.p: tls.cert_file and key_file: tls: ")
}

func TestUpstreamTLSFilesAreReadAtLoad(t *testing.T) {
	folder := t.TempDir()
	cert, key, other := filepath.Join(folder, "a.pem"), filepath.Join(folder, "a-key.pem"), filepath.Join(folder, "b-key.pem")
	writePair(t, cert, key, "a")
	writePair(t, filepath.Join(folder, "b.pem"), other, "b")
	for want, c := range map[string]config.UpstreamTLS{
		"tls.ca_file: open ":                  {CAFile: filepath.Join(folder, "absent")},
		"tls.ca_file: " + key + " holds no":   {CAFile: key},
		"tls.key_file: open ":                 {CertFile: cert, KeyFile: folder + "/absent"},
		"private key does not match public k": {CertFile: cert, KeyFile: other},
	} {
		_, err := proxy.UpstreamTLS(&c)
		assert.ErrorContains(t, err, want)
	}
}

func TestUpstreamOfCleartextHTTP2(t *testing.T) {
	l := &legacy{t: t, address: "127.0.0.1:0", h2c: true, seen: map[string]int{}}
	l.handler = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		io.Copy(w, r.Body)
		fmt.Fprint(w, r.Proto, " ", r.Header.Get("X-Key"), " ", r.RequestURI)
		w.Header().Set("Grpc-Status", "0")
	}
	l.start()
	t.Cleanup(l.kill)
	g := newPool(t, "h2c: true, headers: {X-Key: k}, health: {interval: 1ms}", l.url()+"/base")
	for method, body := range map[string]string{"GET": "", "POST": "", "PUT": "a body ", "DELETE": "", "OPTIONS": ""} {
		res, err := http.DefaultTransport.RoundTrip(g.request(method, "/x?a;b", "", body))
		require.NoError(t, err)
		got, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		assert.Equal(t, body+"HTTP/2.0 k /base/x?a;b", string(got), method)
		assert.Equal(t, "0", res.Trailer.Get("Grpc-Status"))
	}
	assert.Equal(t, []bool{true}, g.up())
	l.kill()
	assert.Equal(t, 502, g.asks("POST", "/x", ""))
	l.start()
	g.offset.Add(int64(time.Second))
	require.Eventually(t, func() bool { return g.up()[0] }, 10*time.Second, time.Millisecond)
	assert.Equal(t, 200, g.asks("POST", "/x", ""))
}

// An upstream that does not speak it is not asked in another way.
func TestUpstreamWithoutHTTP2InClearIsNotReached(t *testing.T) {
	l := newLegacy(t, func(_ http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "PRI", r.Method, "what HTTP/2 begins with") // (RFC 9113 §3.4)
	})
	g := newPool(t, "h2c: true", l.url())
	assert.Equal(t, 502, g.asks("POST", "/x", "body"))
}

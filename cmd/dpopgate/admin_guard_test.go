package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// adminPaths are what admin.auth guards, and probePaths what it lets everybody ask.
var (
	adminPaths = []string{"/metrics", "/report", "/readyz?verbose", "/nothing"}
	probePaths = []string{"/healthz", "/livez", "/ping", "/readyz"}
)

const anyRoute = `  - {match: /, upstream: "http://127.0.0.1:9"}`

// statusOf asks with a header line, and a client's TLS where there is one.
func statusOf(t *testing.T, url, header string, conf *tls.Config) *http.Response {
	t.Helper()
	r := asked(t, url)
	if name, value, ok := strings.Cut(header, ": "); ok {
		r.Header.Set(name, value)
	}
	transport := &http.Transport{TLSClientConfig: conf}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(r)
	require.NoError(t, err)
	res.Body.Close()
	return res
}

func TestAdminAuthLetsInTheBearerAndProbes(t *testing.T) {
	t.Parallel()
	const secret = "an-admin-secret-of-this-test"
	g := startGateway(t, anyRoute, "admin: {auth: {bearer: "+secret+"}}")
	basic := func(password string) string {
		r := &http.Request{Header: http.Header{}}
		r.SetBasicAuth("anybody", password)
		return "Authorization: " + r.Header.Get("Authorization")
	}
	for _, path := range adminPaths {
		for _, header := range []string{
			"", "Authorization: Bearer", "Authorization: Bearer x", "Authorization: Bearer " + secret + "x", "Authorization: " + secret,
			"Authorization: DPoP " + secret, basic(""), basic("x"), "Cookie: bearer=" + secret,
		} {
			res := statusOf(t, g.admin+path, header, nil)
			assert.Equal(t, http.StatusUnauthorized, res.StatusCode, "%s %s", path, header)
			assert.Equal(t, []string{`Bearer realm="dpopgate admin"`, `Basic realm="dpopgate admin", charset="UTF-8"`}, res.Header.Values("WWW-Authenticate"))
		}
		assert.Equal(t, http.StatusUnauthorized, statusOf(t, g.admin+strings.Split(path, "?")[0]+"?verbose&access_token="+secret, "", nil).StatusCode)
		for _, header := range []string{"Authorization: Bearer " + secret, "Authorization: bearer " + secret, basic(secret)} {
			assert.NotEqual(t, http.StatusUnauthorized, statusOf(t, g.admin+path, header, nil).StatusCode, "%s %s", path, header)
		}
	}
	for _, path := range probePaths {
		assert.Equal(t, http.StatusOK, statusOf(t, g.admin+path, "", nil).StatusCode, path)
	}
}

// newOperator is a client certificate that is its own CA.
func newOperator(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestAdminTLSTakesClientCertificatesOfItsCA(t *testing.T) {
	t.Parallel()
	own, friend, stranger := newLocalCA(t), newOperator(t), newOperator(t)
	files := issueFiles(t, own, "admin.example.test")
	roots := filepath.Join(t.TempDir(), "friends.pem")
	require.NoError(t, os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: friend.Certificate[0]}), 0o600))
	g := startGateway(t, anyRoute, fmt.Sprintf("admin: {auth: {client_ca: %q}, tls: {cert_file: %q, key_file: %q}}", roots, files.CertFile, files.KeyFile))
	admin := strings.Replace(g.admin, "http:", "https:", 1)
	client := func(shown *tls.Certificate) *tls.Config {
		pool := x509.NewCertPool()
		pool.AddCert(own.root)
		conf := &tls.Config{RootCAs: pool, ServerName: "admin.example.test"}
		if shown != nil {
			conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown, nil }
		}
		return conf
	}
	assert.Equal(t, http.StatusForbidden, statusOf(t, admin+"/metrics", "", client(nil)).StatusCode)
	assert.Equal(t, http.StatusForbidden, statusOf(t, admin+"/metrics", "Authorization: Bearer x", client(nil)).StatusCode)
	assert.Equal(t, http.StatusOK, statusOf(t, admin+"/healthz", "", client(nil)).StatusCode, "probes have no certificate")
	_, err := (&http.Transport{TLSClientConfig: client(&stranger)}).RoundTrip(asked(t, admin+"/healthz"))
	assert.Error(t, err, "a certificate of another CA")
	if res, err := (&http.Transport{TLSClientConfig: client(&friend)}).RoundTrip(asked(t, admin+"/metrics")); assert.NoError(t, err) {
		assert.Equal(t, http.StatusOK, res.StatusCode)
		res.Body.Close()
	}
}

func TestReportTrustsTheCertificateOfTheConfigAlone(t *testing.T) {
	t.Parallel()
	ca := newLocalCA(t)
	files, others := issueFiles(t, ca, "admin.example.test"), issueFiles(t, ca, "admin.example.test")
	const secret = "an-admin-secret-of-this-test"
	more := func(cert, key string) string {
		return fmt.Sprintf("admin: {auth: {bearer: %s}, tls: {cert_file: %q, key_file: %q}}", secret, cert, key)
	}
	g := startGateway(t, anyRoute, more(files.CertFile, files.KeyFile))
	got := shell{terminal: true}.run(t, "report", "-c", g.path)
	assert.Equal(t, exitOK, got.code, got.stderr)
	assert.Contains(t, got.stdout, "Nothing to say yet")
	g.configure(t, anyRoute, more(others.CertFile, others.KeyFile))
	got = shell{}.run(t, "report", "-c", g.path)
	assert.Equal(t, exitFailure, got.code)
	assert.Contains(t, got.stderr, "the certificate is not that of admin.tls")
}

func TestAdminRefusesPagesOfOtherOrigins(t *testing.T) {
	t.Parallel()
	g := startGateway(t, anyRoute, "")
	for header, want := range map[string]int{
		"Origin: http://evil.test":    http.StatusForbidden,
		"Origin: null":                http.StatusForbidden,
		"Origin: http://127.0.0.1:1":  http.StatusForbidden,
		"Sec-Fetch-Site: cross-site":  http.StatusForbidden,
		"Sec-Fetch-Site: same-site":   http.StatusForbidden,
		"Origin: " + g.admin:          http.StatusOK,
		"Sec-Fetch-Site: same-origin": http.StatusOK,
		"Sec-Fetch-Site: none":        http.StatusOK,
	} {
		res := statusOf(t, g.admin+"/metrics", header, nil)
		assert.Equal(t, want, res.StatusCode, header)
		assert.Empty(t, res.Header["Access-Control-Allow-Origin"])
	}
	r := asked(t, g.admin+"/metrics")
	r.Header = http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}
	assert.Contains(t, spoken(t, r), "200 OK", "a link leads here")
	r.Header.Set("Sec-Fetch-Dest", "iframe")
	assert.Contains(t, spoken(t, r), "403 Forbidden")
}

func TestAdminFilesThatAreNotGoodKeepTheGatewayFromStarting(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := filepath.Join(folder, "dpopgate.yaml")
	empty := filepath.Join(folder, "empty.pem")
	require.NoError(t, os.WriteFile(empty, []byte("nothing\n"), 0o600))
	good := issueFiles(t, newLocalCA(t), "admin.example.test")
	for more, want := range map[string]string{
		fmt.Sprintf("{tls: {cert_file: %q, key_file: %q}}", empty, empty):                                              "admin.tls.cert_file: " + empty + " holds no PEM block",
		fmt.Sprintf("{auth: {client_ca: %q}, tls: {cert_file: %q, key_file: %q}}", empty, good.CertFile, good.KeyFile): "admin.auth.client_ca: " + empty + " holds no certificate in PEM",
	} {
		text := fmt.Sprintf("public_urls: [http://localhost]\nlisten: {http: %q, admin: %q}\nstore: {sqlite: %q}\nadmin: %s\nroutes:\n%s\n",
			freeAddress(), freeAddress(), filepath.Join(folder, "t.db"), more, anyRoute)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		got := shell{}.run(t, "serve", "-c", file)
		assert.Equal(t, exitFailure, got.code)
		assert.Contains(t, got.stderr, want)
	}
}

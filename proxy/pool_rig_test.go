package proxy_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// legacy is a server behind the gateway that can be killed, and started again at its address.
type legacy struct {
	t       testing.TB
	address string
	secure  *tls.Config // nil: cleartext
	h2c     bool
	handler http.HandlerFunc

	mu     sync.Mutex
	server *httptest.Server
	seen   map[string]int // by X-Id, before anything is answered
	total  int
}

type connKey struct{}

// newLegacy starts a server. handler comes after the counting; nil: 200.
func newLegacy(t testing.TB, handler http.HandlerFunc) *legacy {
	l := &legacy{t: t, address: "127.0.0.1:0", handler: handler, seen: map[string]int{}}
	l.start()
	t.Cleanup(l.kill)
	return l
}

func (l *legacy) start() {
	listener, err := net.Listen("tcp", l.address)
	require.NoError(l.t, err)
	l.address = listener.Addr().String()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		l.mu.Lock()
		l.seen[r.Header.Get("X-Id")]++
		l.total++
		l.mu.Unlock()
		if l.handler != nil {
			r.Body = io.NopCloser(bytes.NewReader(body))
			l.handler(w, r)
		}
	}))
	s.Listener.Close()
	s.Listener = listener
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	if l.h2c {
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
	}
	if s.TLS = l.secure; l.secure != nil {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Start()
	}
	l.mu.Lock()
	l.server = s
	l.mu.Unlock()
}

// kill breaks all connections and stops listening.
func (l *legacy) kill() {
	l.mu.Lock()
	s := l.server
	l.server = nil
	l.mu.Unlock()
	if s != nil {
		s.Listener.Close()
		s.Config.Close()
	}
}

// url is its address as a target.
func (l *legacy) url() string {
	if l.secure != nil {
		return "https://" + l.address
	}
	return "http://" + l.address
}

func (l *legacy) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// drop ends the connection of a request in the middle: with a FIN, or a reset.
func drop(r *http.Request, reset bool) {
	conn := r.Context().Value(connKey{}).(net.Conn)
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok && reset {
		tcp.SetLinger(0)
	}
	conn.Close()
	panic(http.ErrAbortHandler)
}

// poolYAML is a config with the pool "p" for everything, without tokens.
func poolYAML(settings string, targets ...string) []byte {
	return fmt.Appendf(nil, `
public_urls: [https://api.example.test]
listen: {http: "127.0.0.1:0"}
store: {sqlite: unused.db}
upstreams:
  p: {targets: [%s], %s}
routes:
  - {match: /, upstream: p, public: true}
`, strings.Join(targets, ", "), settings)
}

// newPool is a rig with that pool.
func newPool(t *testing.T, settings string, targets ...string) *rig {
	return newRigFrom(t, "pool", poolYAML(settings, targets...))
}

// request is one for a public route of the rig. id is what the servers count it by.
func (g *rig) request(method, path, id, body string) *http.Request {
	r, err := http.NewRequest(method, g.server.URL+path, strings.NewReader(body))
	require.NoError(g.t, err)
	if body == "" {
		r.Body, r.GetBody = nil, nil
	}
	r.Host = strings.TrimPrefix(apiURL, "https://")
	r.Header.Set("X-Id", id)
	return r
}

// asks sends a request, and returns the status.
func (g *rig) asks(method, path, body string) int {
	g.t.Helper()
	res, err := g.send(g.request(method, path, "", body))
	require.NoError(g.t, err)
	return res.StatusCode
}

// up is whether each target is, in the order of the file.
func (g *rig) up() (all []bool) {
	for _, s := range g.gateway.Upstreams() {
		all = append(all, s.Up)
	}
	return all
}

// goroutines is the stacks of all goroutines.
func goroutines() string {
	var b bytes.Buffer
	pprof.Lookup("goroutine").WriteTo(&b, 1)
	return b.String()
}

// caOf writes the certificate of a server that is its own authority, and gives the file's name. It is good for
// example.com and 127.0.0.1.
func caOf(t testing.TB, l *legacy) string {
	name := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.server.Certificate().Raw})
	require.NoError(t, os.WriteFile(name, block, 0o600))
	return name
}

// writePair writes a certificate that is its own authority, good for clients, and its key.
func writePair(t testing.TB, cert, key, name string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// pebbleOptions are what a test may want of its ACME server. The zero value is a CA that refuses one good nonce in five and
// issues for 90 days.
type pebbleOptions struct {
	// Lifetime is that of certificates, in whole seconds; 0: 90 days. For one of less than two days Pebble suggests to
	// renew at any time from its first second on; suggestRenewal says otherwise.
	Lifetime    time.Duration
	NonceReject string            // how many percent of good nonces are refused; empty: 20
	Accounts    map[string]string // MAC keys in base64url by key ID; without one of them no account is made (RFC 8555 §7.3.4)
	Blocked     []string          // domains that it issues no certificate for
	Vars        []string          // NAME=value, of Pebble's further environment variables, such as PEBBLE_CHAIN_LENGTH=2
}

// pebble is a real ACME server, in processes of its own. For its DNS every name is at 127.0.0.1.
type pebble struct {
	directory string                // its URL
	caRoot    string                // a PEM file with what to trust for the directory; it does not issue
	network   *tokenstoretest.Relay // before the directory: refuse for a CA that is down, freeze for one that hangs
	http, tls *tokenstoretest.Relay // where validations by HTTP-01 and TLS-ALPN-01 arrive; until to is called, they wait

	folder, management, listen, dns string
	environment                     []string
	client                          *http.Client
	log                             *output
	processes                       []*exec.Cmd
}

// startPebble starts an ACME server for one test.
func startPebble(t *testing.T, o pebbleOptions) *pebble {
	t.Helper()
	program(t, "DPOPGATE_TEST_PEBBLE")
	addresses := freeAddresses(t, 3)
	p := &pebble{
		folder: t.TempDir(), listen: addresses[0], management: addresses[1], dns: addresses[2],
		network: tokenstoretest.NewRelay(t, addresses[0]), http: tokenstoretest.NewRelay(t), tls: tokenstoretest.NewRelay(t),
		log: &output{changed: make(chan struct{}, 1)},
	}
	p.directory = "https://" + p.network.Address() + "/dir"
	p.trust(t)
	p.configure(t, o)
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Log("Pebble:\n" + p.log.String())
		}
	})
	p.start(t)
	return p
}

// program is the path of a program that ./test installs or builds.
func program(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not set: this test needs a real one", variable)
		}
		t.Skipf("%s is not set: ./test installs or builds it, and sets it", variable)
	}
	return path
}

// trust makes a certificate for the directory, which is its own root.
func (p *pebble) trust(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Pebble's directory"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	p.caRoot = p.write(t, "directory.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
	p.write(t, "directory-key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	p.client = &http.Client{Timeout: certPatience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: poolOf(t, p.caRoot)}}}
	t.Cleanup(p.client.CloseIdleConnections)
}

func (p *pebble) write(t *testing.T, name string, data []byte) (path string) {
	t.Helper()
	path = filepath.Join(p.folder, name)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// poolOf reads a PEM file of certificates.
func poolOf(t *testing.T, path string) *x509.CertPool {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(data))
	return pool
}

// configure writes Pebble's config file.
func (p *pebble) configure(t *testing.T, o pebbleOptions) {
	t.Helper()
	if o.Lifetime == 0 {
		o.Lifetime = 90 * 24 * time.Hour
	}
	if o.NonceReject == "" {
		o.NonceReject = "20"
	}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": p.listen, "managementListenAddress": p.management,
		"certificate": p.caRoot, "privateKey": filepath.Join(p.folder, "directory-key.pem"),
		"httpPort": p.http.Port(), "tlsPort": p.tls.Port(), "keyAlgorithm": "ecdsa", "domainBlocklist": o.Blocked,
		"externalAccountBindingRequired": len(o.Accounts) > 0, "externalAccountMACKeys": o.Accounts,
		"retryAfter": map[string]int{"authz": 1, "order": 1}, // seconds
		"profiles": map[string]any{
			"default": map[string]any{"description": "the only one", "validityPeriod": int(o.Lifetime.Seconds())},
		},
	}})
	require.NoError(t, err)
	p.write(t, "pebble.json", config)
	p.environment = append([]string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=" + o.NonceReject}, o.Vars...)
}

// start starts the server, with empty hands: it knows no account, no order and no certificate of before, and has new roots.
func (p *pebble) start(t *testing.T) {
	t.Helper()
	p.run(t, program(t, "DPOPGATE_TEST_CHALLTESTSRV"), "-dnsserver", p.dns, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "",
		"-management", "127.0.0.1:0", "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
	p.run(t, program(t, "DPOPGATE_TEST_PEBBLE"), "-config", filepath.Join(p.folder, "pebble.json"), "-dnsserver", p.dns)
	for _, address := range []string{p.dns, p.management, p.listen} {
		require.Eventually(t, func() bool {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return false
			}
			return conn.Close() == nil
		}, certPatience, 10*time.Millisecond, "Pebble does not listen:\n%s", p.log)
	}
}

func (p *pebble) run(t *testing.T, name string, args ...string) {
	t.Helper()
	process := exec.Command(name, args...)
	process.Env = p.environment
	process.Stdout, process.Stderr = p.log, p.log
	require.NoError(t, process.Start())
	p.processes = append(p.processes, process)
}

// stop ends the server; start brings it back on the same address. A CA that is down and remembers is network.Refuse.
func (p *pebble) stop() {
	for _, process := range p.processes {
		process.Process.Kill()
		process.Wait()
	}
	p.processes = nil
}

// root is what the certificates it issues lead to, in PEM.
func (p *pebble) root(t *testing.T) []byte {
	t.Helper()
	return p.manage(t, http.MethodGet, "/roots/0", nil)
}

// roots are the root, to verify with.
func (p *pebble) roots(t *testing.T) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(p.root(t)))
	return pool
}

// revocation says what the CA thinks of a certificate: Valid or Revoked.
func (p *pebble) revocation(t *testing.T, certificate *x509.Certificate) string {
	t.Helper()
	var status struct{ Status string }
	answer := p.manage(t, http.MethodGet, fmt.Sprintf("/cert-status-by-serial/%x", certificate.SerialNumber), nil)
	require.NoError(t, json.Unmarshal(answer, &status))
	return status.Status
}

// suggestRenewal has the CA suggest that a certificate be renewed within a window (RFC 9773) of two seconds or more:
// acmez takes no shorter one.
func (p *pebble) suggestRenewal(t *testing.T, certificate *x509.Certificate, start, end time.Time) {
	t.Helper()
	window, err := json.Marshal(map[string]any{"suggestedWindow": map[string]time.Time{"start": start, "end": end}})
	require.NoError(t, err)
	body, err := json.Marshal(map[string]string{
		"certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})),
		"ariResponse": string(window),
	})
	require.NoError(t, err)
	p.manage(t, http.MethodPost, "/set-renewal-info/", body)
}

func (p *pebble) manage(t *testing.T, method, path string, body []byte) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+p.management+path, bytes.NewReader(body))
	require.NoError(t, err)
	res, err := p.client.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode, "%s %s: %s", method, path, answer)
	return answer
}

// orders, issued and accounts say how many there were since the test began.
func (p *pebble) orders() int { return strings.Count(p.log.String(), " Added order ") }

func (p *pebble) issued() int   { return strings.Count(p.log.String(), " Issued certificate serial ") }
func (p *pebble) accounts() int { return strings.Count(p.log.String(), " accounts in memory") }

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// acmeYAML is a tls block for Pebble, with a storage.
func acmeYAML(p *pebble, storage string) string {
	return fmt.Sprintf("{acme: {email: ops@example.com, directory: %q, ca_root: %q, storage: %q}}", p.directory, p.caRoot, storage)
}

// newACMEGateway is a gateway that does not serve yet, with Pebble as its CA and a folder for certificates.
func newACMEGateway(t *testing.T, p *pebble, upstream string, hosts ...string) (g *httpsGateway, folder string) {
	t.Helper()
	folder = t.TempDir()
	g = newHTTPSGateway(t, acmeYAML(p, folder), upstream, hosts...)
	g.roots = p.roots(t)
	p.http.To(g.http)
	p.tls.To(g.https)
	return g, folder
}

// awaitReady waits until the gateway has all that it needs.
func (g *httpsGateway) awaitReady(t *testing.T) {
	t.Helper()
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		res, err := http.Get(g.admin + "/readyz")
		require.NoError(t, err)
		res.Body.Close()
		assert.Equal(t, http.StatusOK, res.StatusCode)
	}, certPatience, 20*time.Millisecond)
}

// ask asks the admin listener.
func (g *httpsGateway) ask(t *testing.T, path string) *http.Response {
	t.Helper()
	return fetch(t, g.admin+path)
}

// stop ends the gateway as an init system does.
func (g *httpsGateway) stop(t *testing.T) {
	t.Helper()
	g.signals <- syscall.SIGTERM
	require.Equal(t, exitOK, <-g.exit)
}

// again serves once more after stop, with the same files and a new log.
func (g *httpsGateway) again(t *testing.T) {
	t.Helper()
	g.log = &output{changed: make(chan struct{}, 1)}
	g.serve(t)
}

// certFile is where the folder of a storage has what Pebble issued for a host: its .crt, .key or .json.
func certFile(p *pebble, folder, host, suffix string) string {
	issuer := (&certmagic.ACMEIssuer{CA: p.directory}).IssuerKey()
	return filepath.Join(folder, strings.TrimSuffix(certmagic.StorageKeys.SiteCert(issuer, host), ".crt")+suffix)
}

// setRenewalInfo changes what is stored about when a certificate is to be renewed.
func setRenewalInfo(t *testing.T, p *pebble, folder, host string, set map[string]any) {
	t.Helper()
	path := certFile(p, folder, host, ".json")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var meta map[string]any
	require.NoError(t, json.Unmarshal(data, &meta))
	info, ok := meta["issuer_data"].(map[string]any)["renewal_info"].(map[string]any)
	require.True(t, ok, "%s", data)
	for name, value := range set {
		require.Contains(t, info, name)
		info[name] = value
	}
	data, err = json.Marshal(meta)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

func TestACMEGetsACertificateByEitherChallenge(t *testing.T) {
	t.Parallel()
	for challenge, host := range map[string]string{"http-01": "http.first.example.com", "tls-alpn-01": "alpn.first.example.com"} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			p := startPebble(t, pebbleOptions{NonceReject: "30"})
			upstream, _ := echoed(t)
			g, folder := newACMEGateway(t, p, upstream, host)
			if challenge == "http-01" {
				p.tls.To(freeAddresses(t, 1)[0]) // nobody is there
			} else {
				g.listenHTTP = ""
			}
			g.start(t)
			g.awaitReady(t)
			g.assertJourney(t, host)
			assert.Contains(t, g.log.String(), `"challenge":"`+challenge+`"`)
			leaf := g.served(t, host)
			assert.Equal(t, x509.ECDSA, leaf.PublicKeyAlgorithm)
			assert.Equal(t, 1, p.issued())
			info, err := os.Stat(certFile(p, folder, host, ".key"))
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
			g.stop(t)
			assert.NotContains(t, g.log.String(), "PRIVATE KEY")
		})
	}
}

func TestACMEShowsWhatItHas(t *testing.T) {
	t.Parallel()
	p := startPebble(t, pebbleOptions{})
	const host = "shown.example.com"
	g, _ := newACMEGateway(t, p, "http://127.0.0.1:1", host)
	p.network.Refuse()
	g.start(t) // although the CA is down

	res := g.ask(t, "/readyz?verbose")
	assert.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	assert.Contains(t, bodyOf(t, res), "certificate "+host+" failed: there is none yet\n")
	_, err := g.dialTLS(t, &tls.Config{ServerName: host})
	require.ErrorContains(t, err, "internal error")
	g.awaitLog(t, `"msg":"certificate not obtained"`)
	metrics := bodyOf(t, g.ask(t, "/metrics"))
	assert.Contains(t, metrics, `dpopgate_certificate_failures_total{host="`+host+`"} 1`)
	assert.NotContains(t, metrics, "dpopgate_certificate_expiry_seconds{")
	g.stop(t)

	p.network.Restore()
	g.again(t)
	g.awaitReady(t)
	assert.Contains(t, bodyOf(t, g.ask(t, "/readyz?verbose")), "certificate "+host+" ok\n")
	metrics = bodyOf(t, g.ask(t, "/metrics"))
	assert.Contains(t, metrics, `dpopgate_certificate_failures_total{host="`+host+`"} 0`)
	assert.Regexp(t, `dpopgate_certificate_expiry_seconds\{host="`+host+`"\} 7\.7\d+e\+06\n`, metrics)
	assert.Regexp(t, `dpopgate_certificate_lifetime_seconds\{host="`+host+`"\} 7\.77\d+e\+06\n`, metrics)
}

func TestACMERenewsWhatDoesNotLiveLong(t *testing.T) {
	t.Parallel()
	p := startPebble(t, pebbleOptions{Lifetime: 20 * time.Second})
	const host = "short.example.com"
	g, _ := newACMEGateway(t, p, "http://127.0.0.1:1", host)
	g.start(t)
	g.awaitReady(t)
	seen := map[string]bool{}
	require.Eventually(t, func() bool { // each handshake is with a certificate that is good
		seen[g.served(t, host).SerialNumber.String()] = true
		return len(seen) == 3
	}, certPatience, 100*time.Millisecond)
	assert.LessOrEqual(t, p.orders(), 5, "renewed, and not ordered all the time")
	assert.Contains(t, g.log.String(), `"msg":"certificate obtained","host":"`+host+`","renewal":true`)
}

func TestACMEServesWhatIsStoredWithoutItsCA(t *testing.T) {
	t.Parallel()
	p := startPebble(t, pebbleOptions{})
	const host = "restart.example.com"
	g, _ := newACMEGateway(t, p, "http://127.0.0.1:1", host)
	g.start(t)
	g.awaitReady(t)
	before := g.served(t, host)
	g.stop(t)
	for _, down := range []func(){p.network.Refuse, func() { p.network.Restore(); p.network.Freeze() }} {
		down()
		g.again(t)
		// Ready as soon as it serves: nothing has been asked of the CA.
		assert.Equal(t, http.StatusOK, g.ask(t, "/readyz").StatusCode)
		assert.True(t, before.Equal(g.served(t, host)))
		g.stop(t)
	}
	assert.Equal(t, 1, p.orders())
}

// attack: 189
func TestACMEServesOnWhileItsCAIsDown(t *testing.T) {
	t.Parallel()
	p := startPebble(t, pebbleOptions{})
	const host = "down.example.com"
	g, folder := newACMEGateway(t, p, "http://127.0.0.1:1", host)
	g.start(t)
	g.awaitReady(t)
	before := g.served(t, host)
	g.stop(t)

	p.network.Refuse()
	setRenewalInfo(t, p, folder, host, map[string]any{"_selectedTime": time.Now().Add(-time.Hour)}) // due
	g.again(t)
	g.awaitLog(t, `"msg":"certificate not obtained","host":"`+host+`","renewal":true`)
	assert.True(t, before.Equal(g.served(t, host)))
	assert.Equal(t, http.StatusOK, g.ask(t, "/readyz").StatusCode)
	assert.Contains(t, bodyOf(t, g.ask(t, "/metrics")), `dpopgate_certificate_failures_total{host="`+host+`"} 1`)

	p.network.Restore() // and the next try, a minute later, gets it
	require.Eventually(t, func() bool { return !before.Equal(g.served(t, host)) }, 2*certPatience, 100*time.Millisecond)
	assert.Equal(t, 2, p.issued())
}

func TestACMEReplacesWhatWasRevoked(t *testing.T) {
	t.Parallel()
	p := startPebble(t, pebbleOptions{})
	const host = "revoked.example.com"
	g, folder := newACMEGateway(t, p, "http://127.0.0.1:1", host)
	g.start(t)
	g.awaitReady(t)
	before := g.served(t, host)
	g.stop(t)

	pair, err := tls.LoadX509KeyPair(certFile(p, folder, host, ".crt"), certFile(p, folder, host, ".key"))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), certPatience)
	defer cancel()
	ca := &acme.Client{Directory: p.directory, HTTPClient: p.client}
	key, ok := pair.PrivateKey.(crypto.Signer)
	require.True(t, ok)
	require.NoError(t, ca.RevokeCertificate(ctx, acme.Account{}, before, key, acme.ReasonKeyCompromise))
	require.Equal(t, "Revoked", p.revocation(t, before))

	// A CA tells by its renewal information (Pebble's own for this case is shorter than acmez takes), and asks to be asked
	// every six hours. They are over.
	p.suggestRenewal(t, before, time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))
	setRenewalInfo(t, p, folder, host, map[string]any{"_retryAfter": time.Now().Add(-time.Second)})
	g.again(t)
	require.Eventually(t, func() bool { return !before.Equal(g.served(t, host)) }, certPatience, 50*time.Millisecond)
	assert.Equal(t, "Valid", p.revocation(t, g.served(t, host)))
}

func TestACMEFleetOrdersOnce(t *testing.T) {
	t.Parallel()
	p := startPebble(t, pebbleOptions{NonceReject: "30"})
	const host = "fleet.example.com"
	upstream, _ := echoed(t)
	dsn := tokenstoretest.Postgres(t)
	fleet := make([]*httpsGateway, 2)
	for i := range fleet {
		storage := strings.TrimSuffix(acmeYAML(p, "store"), "}}") + fmt.Sprintf(", storage_key: %q}}", storageKey)
		fleet[i] = newHTTPSGateway(t, storage, upstream, host)
		fleet[i].roots = p.roots(t)
		fleet[i].store = fmt.Sprintf("{postgres: %q}", dsn)
		fleet[i].configure(t)
	}
	made := shell{}.run(t, "migrate", "-c", fleet[0].path)
	require.Equal(t, exitOK, made.code, made.stderr)
	tokenstoretest.Exec(t, dsn, "INSERT INTO oauth_clients (id) VALUES ('7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11')")
	fleet[0].serve(t)
	other := fleet[1].serveElsewhere(t)
	// Validations arrive anywhere: at the instance that ordered, and at the other.
	p.http.To(fleet[0].http, fleet[1].http)
	p.tls.To(fleet[0].https, fleet[1].https)
	for _, g := range fleet {
		g.awaitReady(t)
		g.assertJourney(t, host)
	}
	assert.True(t, fleet[0].served(t, host).Equal(fleet[1].served(t, host)))
	assert.Equal(t, []int{1, 1, 1}, []int{p.accounts(), p.orders(), p.issued()})

	require.NoError(t, other.Process.Kill())
	_ = other.Wait()
	p.network.Refuse()
	fleet[1].serveElsewhere(t)
	fleet[1].awaitReady(t)
	assert.True(t, fleet[0].served(t, host).Equal(fleet[1].served(t, host)))
	assert.Equal(t, 1, p.orders(), "a restart orders nothing")
}

// serveElsewhere serves in a process of its own: certmagic keeps challenges by name for a whole process.
func (g *httpsGateway) serveElsewhere(t *testing.T) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	g.log = &output{changed: make(chan struct{}, 1)}
	process := exec.Command(self)
	process.Args = []string{"dpopgate", "serve", "-c", g.path} // which is how TestMain knows what to be
	process.Stdout, process.Stderr = g.log, g.log
	require.NoError(t, process.Start())
	t.Cleanup(func() {
		process.Process.Kill()
		process.Wait()
	})
	g.awaitLog(t, `"msg":"serving"`)
	return process
}

// Not in parallel with others, whose goroutines would be taken for those that are left.
func TestACMEStopsAllThatItHasStarted(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	g, _ := newACMEGateway(t, p, "http://127.0.0.1:1", "stopped.example.com")
	g.start(t)
	g.awaitReady(t)
	g.stop(t)
	p.network.Freeze() // and in the middle of an order too
	g.tls = acmeYAML(p, t.TempDir())
	g.configure(t)
	g.again(t)
	g.awaitLog(t, "certmagic: obtaining certificate")
	g.stop(t)
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		stacks := make([]byte, 4<<20)
		for stack := range bytes.SplitSeq(stacks[:runtime.Stack(stacks, true)], []byte("\n\n")) {
			// certmagic has one limiter for each CA, for as long as the process lives.
			if !bytes.Contains(stack, []byte("RateLimiter")) {
				assert.NotContains(t, string(stack), "certmagic")
			}
		}
	}, certPatience, 20*time.Millisecond)
	assert.NotContains(t, g.log.String(), "cut off")
}

// attack: 200
func TestACMEOrdersNothingForStrangers(t *testing.T) {
	t.Parallel()
	p := startPebble(t, pebbleOptions{})
	const host = "only.example.com"
	g, folder := newACMEGateway(t, p, "http://127.0.0.1:1", host)
	g.start(t)
	g.awaitReady(t)
	before := filesIn(t, folder)
	for i := range 50 {
		name := fmt.Sprintf("%d.example.com", i)
		_, err := g.dialTLS(t, &tls.Config{ServerName: name})
		require.ErrorContains(t, err, "unrecognized name")
		_, err = g.dialTLS(t, &tls.Config{ServerName: name, NextProtos: []string{"acme-tls/1"}})
		require.ErrorContains(t, err, "unrecognized name")
	}
	// Who only pretends to check a challenge gets nothing either.
	_, err := g.dialTLS(t, &tls.Config{ServerName: host, NextProtos: []string{"acme-tls/1"}})
	require.ErrorContains(t, err, "internal error")
	conn, err := g.dialTLS(t, &tls.Config{ServerName: host, NextProtos: []string{"acme-tls/1", "http/1.1"}})
	require.NoError(t, err)
	assert.Equal(t, "http/1.1", conn.ConnectionState().NegotiatedProtocol)
	assert.Equal(t, 1, p.orders())
	assert.Equal(t, before, filesIn(t, folder))
	assert.NotContains(t, g.log.String(), `"level":"ERROR"`)
}

func TestValidateLooksAtWhatCertificatesAreMadeFrom(t *testing.T) {
	t.Parallel()
	p := startPebble(t, pebbleOptions{})
	g, folder := newACMEGateway(t, p, "http://127.0.0.1:1", "validated.example.com")
	g.configure(t)
	said := shell{}.run(t, "validate", "--connect", "-c", g.path)
	assert.Regexp(t, `certificate authority +`+p.directory+` +ok\n`, said.stdout)
	assert.Regexp(t, `certificate storage +`+folder+` +ok\n`, said.stdout)
	assert.Empty(t, filesIn(t, folder))
	assert.Zero(t, p.accounts())

	p.network.Refuse()
	g.tls = strings.Replace(acmeYAML(p, folder), p.caRoot, g.path, 1)
	g.configure(t)
	said = shell{}.run(t, "validate", "--connect", "-c", g.path)
	assert.Equal(t, exitFailure, said.code)
	assert.Regexp(t, `certificate authority .* failed: tls.acme.ca_root: .* holds no certificate in PEM\n`, said.stdout)
	started := shell{}.run(t, "serve", "-c", g.path)
	assert.Equal(t, exitFailure, started.code)
	assert.Contains(t, started.stderr, "tls.acme.ca_root: ")

	g.tls = acmeYAML(p, g.path) // a file where a folder is wanted
	g.configure(t)
	said = shell{}.run(t, "validate", "--connect", "-c", g.path)
	assert.Regexp(t, `certificate authority .* failed: .*(EOF|reset by peer)\n`, said.stdout)
	assert.Regexp(t, `certificate storage .* failed: .*not a directory\n`, said.stdout)
}

func TestACMEBindsAnExternalAccount(t *testing.T) {
	t.Parallel()
	const macKey = "c2VjcmV0IG9mIHRoZSBhY2NvdW50LCAzMiBieXRlcyEh"
	p := startPebble(t, pebbleOptions{Accounts: map[string]string{"kid-1": macKey}})
	const host = "bound.example.com"
	g, folder := newACMEGateway(t, p, "http://127.0.0.1:1", host)
	g.tls = strings.TrimSuffix(acmeYAML(p, folder), "}}") + ", eab: {key_id: kid-1, hmac_key: " + macKey + "}}}"
	g.start(t)
	g.awaitReady(t)
	g.served(t, host)
	assert.NotContains(t, g.log.String(), macKey)
}

// filesIn lists all files in a folder, without the locks, which come and go.
func filesIn(t *testing.T, folder string) (names []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !strings.Contains(path, "/locks/") {
			names = append(names, path)
		}
		return err
	}))
	return names
}

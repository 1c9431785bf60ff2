package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/dpopgate/dpopgate/config"
)

const (
	// longestRenewInterval is how often it is looked whether a certificate is to be renewed; more often for those that do
	// not live long.
	longestRenewInterval = 10 * time.Minute
	// loadTimeout bounds the wait for stored certificates before the first connection is taken.
	loadTimeout = time.Second
	// longestPause is the pause between two tries to get at the storage of certificates.
	longestPause = time.Minute
	// stopTimeout bounds the wait for what may be in the middle of asking a CA.
	stopTimeout = 5 * time.Second
)

// acmeCertificates are the certificates of tls.acme, from their order to their renewal. certmagic does the work: ordering
// and renewing with back-off, one at a time in a fleet, ACME renewal information (RFC 9773), OCSP staples, and
// replacing what was revoked.
type acmeCertificates struct {
	acme    config.ACME
	hosts   []string
	roots   *x509.CertPool // of the CA's own server; nil: those of the system
	storage certmagic.Storage
	failed  func(host string) // hears of each order that failed
	log     *slog.Logger

	cache   *certmagic.Cache
	options certmagic.CacheOptions
	magic   *certmagic.Config
	issuer  *certmagic.ACMEIssuer

	changed chan struct{} // has room for one: certificates are not what they were
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	stored map[string]*tls.Certificate // what was in the storage at the start, until certmagic has looked at it
}

// newACMECertificates opens the storage. Neither it nor the CA need be there yet.
func newACMECertificates(ctx context.Context, c *config.Config, hosts []string, failed func(host string), log *slog.Logger, read again) (*acmeCertificates, error) {
	a := &acmeCertificates{
		acme: *c.TLS.ACME, hosts: hosts, failed: failed, log: log,
		changed: make(chan struct{}, 1), stored: map[string]*tls.Certificate{},
	}
	var err error
	if a.roots, err = readRoots(a.acme.CARoot); err != nil {
		return nil, err
	}
	a.storage, err = openCertificateStorage(ctx, c, log, read)
	return a, err
}

// readRoots reads the CAs in tls.acme.ca_root; nil for no file.
func readRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	const key = "tls.acme.ca_root"
	data, err := readPEMFile(key, path)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s: %s holds no certificate in PEM", key, path)
	}
	return roots, nil
}

// openCertificateStorage is the folder or the database of tls.acme.storage.
func openCertificateStorage(ctx context.Context, c *config.Config, log *slog.Logger, read again) (certmagic.Storage, error) {
	a := c.TLS.ACME
	if a.Storage != "store" {
		return &certmagic.FileStorage{Path: a.Storage}, nil
	}
	return openCertStore(ctx, string(c.Store.Postgres), certStoreOptions{Key: a.StorageKey, Log: log, Again: read.postgres()})
}

// start implements certificateSource. What is stored is served from the first connection on; everything else is done
// beside the listeners.
func (a *acmeCertificates) start(at boundAddresses) {
	a.configure(at)
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	loading, done := context.WithTimeout(ctx, loadTimeout)
	defer done()
	var loaded sync.WaitGroup
	for _, host := range a.hosts {
		loaded.Go(func() {
			if err := a.load(loading, host); err != nil && !errors.Is(err, fs.ErrNotExist) {
				a.log.Warn("stored certificate not loaded yet", "host", host, "error", err)
			}
		})
	}
	loaded.Wait()
	a.running.Go(func() { a.maintain(ctx) })
	for _, host := range a.hosts {
		a.running.Go(func() { a.manage(ctx, host) })
	}
}

// configure makes a cache, a config and an issuer of our own: certmagic's package-level ones stay as they are.
func (a *acmeCertificates) configure(at boundAddresses) {
	log := newZapLogger(a.log)
	a.options = certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return a.magic, nil },
		RenewCheckInterval: longestRenewInterval,
		Logger:             log,
	}
	a.cache = certmagic.NewCache(a.options)
	a.magic = certmagic.New(a.cache, certmagic.Config{
		Storage:   a.storage,
		KeySource: certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
		OnEvent:   a.observe,
		Logger:    log,
	})
	template := certmagic.ACMEIssuer{
		CA:           directoryOf(a.acme),
		Email:        a.acme.Email,
		Agreed:       true,
		TrustedRoots: a.roots,
		Logger:       log,
	}
	if eab := a.acme.EAB; eab != nil {
		template.ExternalAccount = &acme.EAB{KeyID: eab.KeyID, MACKey: strings.TrimRight(string(eab.HMACKey), "=")}
	}
	// certmagic would listen by itself where nobody does. With our own addresses it finds that somebody does: these
	// listeners, which ask it for the answers.
	template.ListenHost, template.AltTLSALPNPort = splitAddress(at.https)
	if _, port := splitAddress(at.http); port != 0 {
		template.AltHTTPPort = port
	} else {
		template.DisableHTTPChallenge = true
	}
	a.issuer = certmagic.NewACMEIssuer(a.magic, template)
	a.magic.Issuers = []certmagic.Issuer{a.issuer}
}

// splitAddress is the host and the port of a bound address; 0 for none.
func splitAddress(address string) (host string, port int) {
	host, text, _ := net.SplitHostPort(address)
	port, _ = strconv.Atoi(text)
	return host, port
}

// manage sees to it that a host has a certificate, and then leaves it to maintain. It only ends before that with ctx.
func (a *acmeCertificates) manage(ctx context.Context, host string) {
	for pause := time.Second; ; pause = min(2*pause, longestPause) {
		// Tries again by itself for 30 days when the CA is in the way, and comes back at once when the storage is.
		err := a.magic.ObtainCertAsync(ctx, host)
		if err == nil {
			if err = a.load(ctx, host); err == nil {
				err = a.magic.ManageAsync(ctx, []string{host})
			}
		}
		if err != nil && ctx.Err() == nil {
			a.log.Error("certificate not available", "host", host, "retry_in", pause.String(), "error", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		if len(a.cache.AllMatchingCertificates(host)) > 0 {
			return
		}
	}
}

// load reads a host's certificate as it is stored, without asking anybody whether it is still good.
func (a *acmeCertificates) load(ctx context.Context, host string) error {
	issuer := a.issuer.IssuerKey()
	cert, err := a.storage.Load(ctx, certmagic.StorageKeys.SiteCert(issuer, host))
	if err != nil {
		return err
	}
	key, err := a.storage.Load(ctx, certmagic.StorageKeys.SitePrivateKey(issuer, host))
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("the stored certificate of %s: %w", host, err)
	}
	a.mu.Lock()
	a.stored[host] = &pair
	a.mu.Unlock()
	a.adapt()
	return nil
}

// maintain renews certificates that do not live long. For others certmagic looks often enough by itself.
func (a *acmeCertificates) maintain(ctx context.Context) {
	for {
		interval := a.adapt()
		select {
		case <-time.After(interval):
			if interval < longestRenewInterval {
				if err := a.cache.RenewManagedCertificates(ctx); err != nil {
					a.log.Error("certificates not looked after", "error", err)
				}
			}
		case <-a.changed:
		case <-ctx.Done():
			return
		}
	}
}

// adapt sets, and returns, how often it is looked whether a certificate is to be renewed: a hundred times in the life of
// the one that lives the shortest.
func (a *acmeCertificates) adapt() time.Duration {
	interval := longestRenewInterval
	for _, host := range a.hosts {
		if leaf := a.leaf(host); leaf != nil {
			interval = min(interval, max(leaf.NotAfter.Sub(leaf.NotBefore)/100, time.Second))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if interval != a.options.RenewCheckInterval {
		a.options.RenewCheckInterval = interval
		a.cache.SetOptions(a.options)
	}
	return interval
}

// observe hears what certmagic has done.
func (a *acmeCertificates) observe(_ context.Context, event string, data map[string]any) error {
	host, _ := data["identifier"].(string)
	switch event {
	case "cert_obtained":
		a.log.Info("certificate obtained", "host", host, "renewal", data["renewal"], "issuer", data["issuer"])
	case "cert_failed":
		a.failed(host)
		a.log.Error("certificate not obtained", "host", host, "renewal", data["renewal"], "error", fmt.Sprint(data["error"]))
	case "cert_ocsp_revoked":
		a.log.Error("certificate was revoked, a new one is ordered", "hosts", data["subjects"])
	case "cached_managed_cert":
		select {
		case a.changed <- struct{}{}:
		default:
		}
	}
	return nil
}

// certificate implements certificateSource. A CA that checks a challenge gets what it came for.
func (a *acmeCertificates) certificate(hello *tls.ClientHelloInfo, host string) (*tls.Certificate, error) {
	if hello.ServerName == "" {
		named := *hello
		named.ServerName = host
		hello = &named
	}
	cert, err := a.magic.GetCertificateWithContext(hello.Context(), hello)
	if err == nil || isChallenge(hello) {
		return cert, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if cert := a.stored[host]; cert != nil {
		return cert, nil
	}
	return nil, fmt.Errorf("no certificate for %s yet", host)
}

func (a *acmeCertificates) leaf(host string) *x509.Certificate {
	var newest *x509.Certificate
	a.mu.Lock()
	if cert := a.stored[host]; cert != nil {
		newest = cert.Leaf
	}
	a.mu.Unlock()
	for _, cert := range a.cache.AllMatchingCertificates(host) {
		if leaf := cert.Leaf; leaf != nil && (newest == nil || leaf.NotAfter.After(newest.NotAfter)) {
			newest = leaf
		}
	}
	return newest
}

// solve answers a CA that checks an HTTP-01 challenge of ours, or of another instance on the same storage.
func (a *acmeCertificates) solve(w http.ResponseWriter, r *http.Request) bool {
	return a.issuer.HandleHTTPChallenge(w, r)
}

func (a *acmeCertificates) reread() {}

// close stops orders and renewals, and gives up their locks. It waits for them, but not for ever.
func (a *acmeCertificates) close() {
	if a.cancel != nil {
		a.cancel()
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			a.running.Wait()
			a.cache.Stop()
		}()
		select {
		case <-stopped:
		case <-time.After(stopTimeout):
			a.log.Warn("a certificate order was cut off")
		}
	}
	if c, ok := a.storage.(io.Closer); ok {
		if err := c.Close(); err != nil {
			a.log.Error("closing the certificate storage", "error", err)
		}
	}
}

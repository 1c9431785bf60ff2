package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// acmeClient is certmagic by itself, with a server that answers HTTP-01 challenges. certmagic remembers challenges, locks
// and failures by name for the whole process, so tests that run at the same time need names of their own.
func acmeClient(t *testing.T, p *pebble, storage certmagic.Storage) *certmagic.Config {
	t.Helper()
	log := zap.NewNop()
	var magic *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return magic, nil },
		Logger:           log,
	})
	t.Cleanup(cache.Stop)
	magic = certmagic.New(cache, certmagic.Config{Storage: storage, Logger: log})
	var answer http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	issuer := certmagic.NewACMEIssuer(magic, certmagic.ACMEIssuer{
		CA: p.directory, TestCA: p.directory, TrustedRoots: poolOf(t, p.caRoot), Email: "ops@example.com", Agreed: true,
		DisableTLSALPNChallenge: true, ListenHost: "127.0.0.1", AltHTTPPort: server.Listener.Addr().(*net.TCPAddr).Port,
		Logger: log,
	})
	answer = issuer.HTTPChallengeHandler(http.NotFoundHandler())
	magic.Issuers = []certmagic.Issuer{issuer}
	p.http.To(server.Listener.Addr().String())
	return magic
}

// leafOf is the certificate that is served for a name, verified.
func leafOf(t *testing.T, p *pebble, magic *certmagic.Config, name string) *x509.Certificate {
	t.Helper()
	served, err := magic.GetCertificate(&tls.ClientHelloInfo{ServerName: name})
	require.NoError(t, err)
	intermediates := x509.NewCertPool()
	for _, der := range served.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		intermediates.AddCert(c)
	}
	_, err = served.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: p.roots(t), Intermediates: intermediates})
	require.NoError(t, err)
	return served.Leaf
}

func TestPebbleIssuesByHTTPOnceForAllOnOneStore(t *testing.T) {
	t.Parallel()
	p := startPebble(t, pebbleOptions{NonceReject: "30", Lifetime: 30 * 24 * time.Hour})
	dsn := migratedDatabase(t)
	ctx, cancel := context.WithTimeout(t.Context(), certPatience)
	defer cancel()
	one := acmeClient(t, p, newCertStore(t, dsn, certStoreOptions{Key: storageKey}))
	require.NoError(t, one.ManageSync(ctx, []string{"one.example.com"}))
	leaf := leafOf(t, p, one, "one.example.com")
	assert.LessOrEqual(t, leaf.NotAfter.Sub(leaf.NotBefore), 30*24*time.Hour)
	assert.Equal(t, "Valid", p.revocation(t, leaf))

	soon := time.Now().Add(time.Minute).UTC().Truncate(time.Second)
	p.suggestRenewal(t, leaf, soon, soon.Add(time.Minute))
	info, err := (&acme.Client{Directory: p.directory, HTTPClient: p.client}).GetRenewalInfo(ctx, leaf)
	require.NoError(t, err)
	assert.True(t, soon.Equal(info.SuggestedWindow.Start), "%s", info.SuggestedWindow.Start)

	// Another instance finds it in the store, while the CA is down.
	p.network.Refuse()
	other := acmeClient(t, p, newCertStore(t, dsn, certStoreOptions{Key: storageKey}))
	require.NoError(t, other.ManageSync(ctx, []string{"one.example.com"}))
	assert.True(t, leaf.Equal(leafOf(t, p, other, "one.example.com")))
	assert.Equal(t, []int{1, 1, 1}, []int{p.accounts(), p.orders(), p.issued()})

	// The CA is back, and remembers.
	p.network.Restore()
	require.NoError(t, other.ManageSync(ctx, []string{"two.example.com"}))
	leafOf(t, p, other, "two.example.com")
	assert.Equal(t, []int{1, 2, 2}, []int{p.accounts(), p.orders(), p.issued()})
}

func TestPebbleAsksForAnExternalAccount(t *testing.T) {
	t.Parallel()
	const macKey = "c2VjcmV0IG9mIHRoZSBhY2NvdW50LCAzMiBieXRlcyEh"
	p := startPebble(t, pebbleOptions{Accounts: map[string]string{"kid-1": macKey}, Blocked: []string{"blocked.example.com"}})
	ctx, cancel := context.WithTimeout(t.Context(), certPatience)
	defer cancel()
	magic := acmeClient(t, p, &certmagic.FileStorage{Path: t.TempDir()})
	require.ErrorContains(t, magic.ManageSync(ctx, []string{"eab.example.com"}), "externalAccountRequired")
	magic.Issuers[0].(*certmagic.ACMEIssuer).ExternalAccount = &acme.EAB{KeyID: "kid-1", MACKey: macKey}
	require.NoError(t, magic.ManageSync(ctx, []string{"eab.example.com"}))
	leafOf(t, p, magic, "eab.example.com")
	require.ErrorContains(t, magic.ManageSync(ctx, []string{"blocked.example.com"}), "rejectedIdentifier")
}

func TestPebbleStartsAnewOnTheSameAddress(t *testing.T) {
	t.Parallel()
	p := startPebble(t, pebbleOptions{})
	before := p.root(t)
	p.stop()
	_, err := p.client.Get(p.directory)
	require.Error(t, err)
	p.start(t)
	res, err := p.client.Get(p.directory)
	require.NoError(t, err)
	res.Body.Close()
	assert.NotEqual(t, before, p.root(t))
}

package main

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLocalCAIsMadeOnce(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "a", "ca")
	roots := make([]*x509.Certificate, 8)
	var all sync.WaitGroup
	for i := range roots { // as when several processes start at once
		all.Go(func() {
			ca, err := openLocalCA(folder, time.Now)
			if assert.NoError(t, err) {
				roots[i] = ca.root
			}
		})
	}
	all.Wait()
	for _, root := range roots {
		assert.True(t, roots[0].Equal(root))
	}
	for path, mode := range map[string]os.FileMode{folder: 0o700, rootKeyFile(folder): 0o600, rootFile(folder): 0o644} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, mode, info.Mode().Perm(), path)
	}
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Len(t, entries, 2, "nothing is left over")
}

func TestLocalCACertificatesAreVerifiedAndRenewed(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ca, err := openLocalCA(t.TempDir(), func() time.Time { return now })
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(ca.root)
	for _, host := range []string{"localhost", "api.example.test", "127.0.0.1", "::1"} {
		leaf := ca.leaf(host)
		_, err := leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: now})
		require.NoError(t, err, host)
		assert.Equal(t, x509.ECDSA, leaf.PublicKeyAlgorithm)
	}
	first := ca.leaf("localhost")
	now = now.Add(leafLifetime / 2)
	assert.True(t, first.Equal(ca.leaf("localhost")))
	now = now.Add(leafLifetime / 4)
	second := ca.leaf("localhost")
	assert.False(t, first.Equal(second), "well before its end")
	assert.True(t, second.NotAfter.After(first.NotAfter))
}

func TestLocalCAThatIsBrokenIsNamed(t *testing.T) {
	t.Parallel()
	for want, spoil := range map[string]func(t *testing.T, folder string){
		"root.key holds no PRIVATE KEY": func(t *testing.T, folder string) {
			require.NoError(t, os.WriteFile(rootKeyFile(folder), []byte("x"), 0o600))
		},
		"root.crt holds no CERTIFICATE": func(t *testing.T, folder string) { copyFile(t, rootKeyFile(folder), rootFile(folder)) },
		"root.crt is not for the key beside it": func(t *testing.T, folder string) {
			other := t.TempDir()
			_, err := openLocalCA(other, time.Now)
			require.NoError(t, err)
			copyFile(t, rootFile(other), rootFile(folder))
		},
	} {
		folder := t.TempDir()
		_, err := openLocalCA(folder, time.Now)
		require.NoError(t, err)
		spoil(t, folder)
		_, err = openLocalCA(folder, time.Now)
		require.ErrorContains(t, err, "tls.internal_storage: ")
		assert.ErrorContains(t, err, want)
		assert.ErrorContains(t, err, "remove the folder for a new CA")
	}
	folder := t.TempDir()
	_, err := openLocalCA(folder, func() time.Time { return time.Now().Add(-rootLifetime) })
	require.NoError(t, err)
	_, err = openLocalCA(folder, time.Now)
	assert.ErrorContains(t, err, "expires on")
}

func TestTrustShowsTheRootAndChangesNothing(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "it's here")
	g := newHTTPSGateway(t, "{internal: true, internal_storage: \""+folder+"\"}", "http://127.0.0.1:1", "localhost")
	g.configure(t)
	early := shell{}.run(t, "trust", "-c", g.path)
	assert.Equal(t, exitFailure, early.code)
	assert.Contains(t, early.stderr, "root.crt is not there yet; dpopgate serve makes it at its first start")
	assert.NoDirExists(t, folder)

	ca, err := openLocalCA(folder, time.Now)
	require.NoError(t, err)
	said := shell{}.run(t, "trust", "-c", g.path)
	require.Equal(t, exitOK, said.code, said.stderr)
	assert.Contains(t, said.stdout, rootFile(folder)+"\n")
	assert.Contains(t, said.stdout, "SHA-256 "+ca.fingerprint())
	assert.Contains(t, said.stdout, `curl --cacert '`+filepath.Dir(folder)+`/it'\''s here/root.crt' `+g.url+"/")
	for _, system := range []string{"update-ca-certificates", "update-ca-trust", "security add-trusted-cert", "certutil", "Firefox", "NODE_EXTRA_CA_CERTS"} {
		assert.Contains(t, said.stdout, system)
	}
	assert.NotContains(t, said.stdout, "PRIVATE")

	other := startGateway(t, `  - {match: /, upstream: "http://127.0.0.1:1"}`, "")
	none := shell{}.run(t, "trust", "-c", other.path)
	assert.Equal(t, exitFailure, none.code)
	assert.Contains(t, none.stderr, "tls.internal is not on")
}

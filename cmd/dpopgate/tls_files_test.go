package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/config"
)

// issueFiles writes a new certificate of a CA for a host, and its key, into a new folder.
func issueFiles(t *testing.T, ca *localCA, host string) config.Certificate {
	t.Helper()
	cert, err := ca.issue(host)
	require.NoError(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	folder := t.TempDir()
	files := config.Certificate{CertFile: filepath.Join(folder, "tls.crt"), KeyFile: filepath.Join(folder, "tls.key")}
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	require.NoError(t, os.WriteFile(files.CertFile, chain, 0o600))
	require.NoError(t, os.WriteFile(files.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	return files
}

// copyFile replaces a file's content.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, data, 0o600))
}

func newLocalCA(t *testing.T) *localCA {
	t.Helper()
	ca, err := openLocalCA(t.TempDir(), time.Now)
	require.NoError(t, err)
	return ca
}

func TestCertificateFilesAreRereadWhenTheyChange(t *testing.T) {
	t.Parallel()
	ca := newLocalCA(t)
	files, next := issueFiles(t, ca, "api.example.test"), issueFiles(t, ca, "api.example.test")
	g := newHTTPSGateway(t, fmt.Sprintf("{certificate: {cert_file: %q, key_file: %q}}", files.CertFile, files.KeyFile), "http://127.0.0.1:1", "api.example.test")
	g.roots = x509.NewCertPool()
	g.roots.AddCert(ca.root)
	g.start(t)
	before := g.served(t, "api.example.test")
	rest := g.log.String()
	hup := func(pattern string) {
		t.Helper()
		rest = g.log.String()
		g.signals <- syscall.SIGHUP
		g.awaitLog(t, pattern)
	}

	// Half of the new pair: the old one stays, and the log says so once.
	copyFile(t, next.CertFile, files.CertFile)
	hup(`certificate files not taken, the old certificate stays.*private key does not match`)
	assert.True(t, before.Equal(g.served(t, "api.example.test")))
	copyFile(t, next.KeyFile, files.KeyFile)
	hup(`"msg":"certificate files taken"`)
	after := g.served(t, "api.example.test")
	assert.False(t, before.Equal(after))

	require.NoError(t, os.Remove(files.KeyFile))
	hup(`tls.certificate.key_file: open .*no such file`)
	require.NoError(t, os.WriteFile(files.KeyFile, []byte("rubbish"), 0o600))
	hup(`failed to find any PEM data in key`)
	assert.True(t, after.Equal(g.served(t, "api.example.test")))
	assert.NotContains(t, rest, "rubbish")
}

func TestCertificateFilesAreLookedAtWithoutBeingAsked(t *testing.T) {
	t.Parallel()
	ca := newLocalCA(t)
	one, two := issueFiles(t, ca, "api.example.test"), issueFiles(t, ca, "api.example.test")
	// As Kubernetes does: the files are links into a folder that is a link.
	folder := t.TempDir()
	require.NoError(t, os.Symlink(filepath.Dir(one.CertFile), filepath.Join(folder, "..data")))
	files := config.Certificate{CertFile: filepath.Join(folder, "tls.crt"), KeyFile: filepath.Join(folder, "tls.key")}
	require.NoError(t, os.Symlink("..data/tls.crt", files.CertFile))
	require.NoError(t, os.Symlink("..data/tls.key", files.KeyFile))

	synctest.Test(t, func(t *testing.T) {
		log := &output{changed: make(chan struct{}, 1)}
		logger, _ := newLogger(log, config.Log{Level: "info", Format: "json"})
		f, err := openCertificateFiles("tls.certificate", files, []string{"api.example.test", "other.example.test"}, logger)
		require.NoError(t, err)
		assert.Contains(t, log.String(), `"msg":"certificate is not for all hosts of public_urls"`)
		assert.Contains(t, log.String(), `"missing":["other.example.test"]`)
		f.start(boundAddresses{})
		defer f.close()
		before := f.leaf("")

		require.NoError(t, os.Symlink(filepath.Dir(two.CertFile), filepath.Join(folder, "new")))
		require.NoError(t, os.Rename(filepath.Join(folder, "new"), filepath.Join(folder, "..data")))
		time.Sleep(filesInterval)
		synctest.Wait()
		after := f.leaf("")
		assert.False(t, before.Equal(after))

		require.NoError(t, os.Remove(files.CertFile))
		time.Sleep(10 * filesInterval)
		synctest.Wait()
		assert.True(t, after.Equal(f.leaf("")))
		assert.Equal(t, 1, strings.Count(log.String(), `"level":"ERROR"`), "once for each change")
	})
}

func TestServeRefusesABadCertificatePair(t *testing.T) {
	t.Parallel()
	ca := newLocalCA(t)
	good, other := issueFiles(t, ca, "localhost"), issueFiles(t, ca, "localhost")
	rubbish := filepath.Join(t.TempDir(), "rubbish.pem")
	require.NoError(t, os.WriteFile(rubbish, []byte("hunter2"), 0o600))
	for want, files := range map[string]config.Certificate{
		"tls.certificate.cert_file: open /nowhere.crt: no such file": {CertFile: "/nowhere.crt", KeyFile: good.KeyFile},
		"tls.certificate.key_file: open /nowhere.key: no such file":  {CertFile: good.CertFile, KeyFile: "/nowhere.key"},
		"tls.certificate.cert_file: " + rubbish + " holds no PEM":    {CertFile: rubbish, KeyFile: good.KeyFile},
		"tls.certificate: cert_file " + good.CertFile + " with key_file " + other.KeyFile + ": tls: private key does not match": {
			CertFile: good.CertFile, KeyFile: other.KeyFile,
		},
		"tls.certificate: cert_file " + good.CertFile + " with key_file " + rubbish + ": tls: failed to find any PEM": {
			CertFile: good.CertFile, KeyFile: rubbish,
		},
	} {
		g := newHTTPSGateway(t, fmt.Sprintf("{certificate: {cert_file: %q, key_file: %q}}", files.CertFile, files.KeyFile), "http://127.0.0.1:1", "localhost")
		g.configure(t)
		said := shell{}.run(t, "serve", "-c", g.path)
		assert.Equal(t, exitFailure, said.code)
		assert.Contains(t, said.stderr, want)
		assert.NotContains(t, said.stderr, "hunter2")
		reached := shell{}.run(t, "validate", "--connect", "-c", g.path)
		assert.Equal(t, exitFailure, reached.code)
		assert.Contains(t, reached.stdout, "failed: "+want)
	}
}

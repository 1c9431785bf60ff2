package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dpopgate/dpopgate/config"
)

const (
	// filesInterval is how often the files of a certificate are looked at. They are small, and are read whole:
	// whatever replaces them, and however, is seen, symbolic links that change direction included.
	filesInterval = 5 * time.Second
	// maxCertificateFile bounds a PEM file.
	maxCertificateFile = 1 << 20
)

// certificateFiles is the certificate of tls.certificate or of admin.tls. Files that change are taken when they are good, as a pair;
// until then the old certificate stays.
type certificateFiles struct {
	key   string // of the config
	files config.Certificate
	hosts []string
	log   *slog.Logger

	current atomic.Pointer[tls.Certificate]
	mu      sync.Mutex        // one look at a time
	seen    [sha256.Size]byte // what the last look saw, good or not
	stop    chan struct{}
	stopped sync.WaitGroup
}

// openCertificateFiles reads both files, which must be good.
func openCertificateFiles(key string, files config.Certificate, hosts []string, log *slog.Logger) (*certificateFiles, error) {
	f := &certificateFiles{key: key, files: files, hosts: hosts, log: log, stop: make(chan struct{})}
	pair, seen, err := loadCertificateFiles(key, files)
	if err != nil {
		return nil, err
	}
	f.seen = seen
	f.take(pair)
	return f, nil
}

// loadCertificateFiles reads a certificate and its key. Errors name the key of the config and the file. seen differs when
// the files, or what is wrong with them, do.
func loadCertificateFiles(key string, files config.Certificate) (pair *tls.Certificate, seen [sha256.Size]byte, err error) {
	cert, err := readPEMFile(key+".cert_file", files.CertFile)
	if err != nil {
		return nil, sha256.Sum256([]byte(err.Error())), err
	}
	private, err := readPEMFile(key+".key_file", files.KeyFile)
	if err != nil {
		return nil, sha256.Sum256([]byte(err.Error())), err
	}
	certSum, keySum := sha256.Sum256(cert), sha256.Sum256(private)
	seen = sha256.Sum256(append(certSum[:], keySum[:]...))
	if block, _ := pem.Decode(cert); block == nil {
		return nil, seen, fmt.Errorf("%s.cert_file: %s holds no PEM block", key, files.CertFile)
	}
	p, err := tls.X509KeyPair(cert, private)
	if err != nil {
		return nil, seen, fmt.Errorf("%s: cert_file %s with key_file %s: %w", key, files.CertFile, files.KeyFile, err)
	}
	return &p, seen, nil
}

// readPEMFile reads a file that a config key names.
func readPEMFile(key, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCertificateFile+1))
	if err == nil && len(data) > maxCertificateFile {
		err = errors.New("larger than 1 MiB")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: reading %s: %w", key, path, err)
	}
	return data, nil
}

// take puts a certificate in force, and says what clients will not like about it.
func (f *certificateFiles) take(pair *tls.Certificate) {
	f.current.Store(pair)
	if missing := uncovered(pair.Leaf, f.hosts); len(missing) > 0 {
		f.log.Warn("certificate is not for all hosts of public_urls", "file", f.files.CertFile, "missing", missing)
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		f.log.Warn("certificate has expired", "file", f.files.CertFile, "not_after", pair.Leaf.NotAfter)
	}
}

// start looks at the files again and again.
func (f *certificateFiles) start(boundAddresses) {
	f.stopped.Go(func() {
		tick := time.NewTicker(filesInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				f.reread()
			case <-f.stop:
				return
			}
		}
	})
}

// reread takes the files if they have changed and are good. It says once what is wrong with them.
func (f *certificateFiles) reread() {
	f.mu.Lock()
	defer f.mu.Unlock()
	pair, seen, err := loadCertificateFiles(f.key, f.files)
	if seen == f.seen {
		return
	}
	f.seen = seen
	if err != nil {
		f.log.Error("certificate files not taken, the old certificate stays", "error", err)
		return
	}
	f.take(pair)
	f.log.Info("certificate files taken", "file", f.files.CertFile, "not_after", pair.Leaf.NotAfter)
}

// certificate is the same for all hosts.
func (f *certificateFiles) certificate(*tls.ClientHelloInfo, string) (*tls.Certificate, error) {
	return f.current.Load(), nil
}

func (f *certificateFiles) leaf(string) *x509.Certificate { return f.current.Load().Leaf }

func (f *certificateFiles) close() {
	close(f.stop)
	f.stopped.Wait()
}

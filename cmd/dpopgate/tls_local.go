package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// The lifetimes of the local CA. A leaf is in memory only and is made anew well before its end.
const (
	rootLifetime = 10 * 365 * 24 * time.Hour
	leafLifetime = 7 * 24 * time.Hour
	clockSlack   = time.Hour // between us and clients whose clock is behind
)

// localCA is the CA of tls.internal: a root that is made once, and certificates by it for whatever host is asked for.
type localCA struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey
	now  func() time.Time

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
}

// rootFile is the certificate that clients are to trust, in the folder of the CA.
func rootFile(folder string) string { return filepath.Join(folder, "root.crt") }

func rootKeyFile(folder string) string { return filepath.Join(folder, "root.key") }

// openLocalCA opens the CA in a folder, and makes it where there is none. Processes that do so at once agree on one.
func openLocalCA(folder string, now func() time.Time) (*localCA, error) {
	ca := &localCA{now: now, leaves: map[string]*tls.Certificate{}}
	var err error
	if err = os.MkdirAll(folder, 0o700); err == nil {
		if ca.key, err = openRootKey(rootKeyFile(folder)); err == nil {
			ca.root, err = openRoot(rootFile(folder), ca.key, now())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("tls.internal_storage: %w", err)
	}
	return ca, nil
}

// openRootKey reads the key of the CA, or makes it.
func openRootKey(path string) (*ecdsa.PrivateKey, error) {
	der, err := readOrMake(path, 0o600, "PRIVATE KEY", func() ([]byte, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		return x509.MarshalPKCS8PrivateKey(key)
	})
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s holds no ECDSA key in PKCS #8; remove the folder for a new CA", path)
	}
	return key, nil
}

// openRoot reads the certificate of the CA, or makes it.
func openRoot(path string, key *ecdsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	der, err := readOrMake(path, 0o644, "CERTIFICATE", func() ([]byte, error) {
		host, _ := os.Hostname() // which only tells one root from another in a list of them
		root := &x509.Certificate{
			Subject:               pkix.Name{Organization: []string{"dpopgate local CA"}, CommonName: "dpopgate local CA " + host},
			NotBefore:             now.Add(-clockSlack),
			NotAfter:              now.Add(rootLifetime),
			KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
			BasicConstraintsValid: true,
			IsCA:                  true,
			MaxPathLenZero:        true,
		}
		return signCertificate(root, root, key, key)
	})
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w; remove the folder for a new CA", path, err)
	case !key.PublicKey.Equal(root.PublicKey):
		return nil, fmt.Errorf("%s is not for the key beside it; remove the folder for a new CA", path)
	case now.After(root.NotAfter.Add(-leafLifetime)):
		return nil, fmt.Errorf("%s expires on %s; remove the folder for a new CA", path, root.NotAfter.Format(time.DateOnly))
	}
	return root, nil
}

// readOrMake reads the one PEM block of a file. Where there is no file it makes one, whole or not at all; of several
// that do so at once all get the block of the first.
func readOrMake(path string, mode fs.FileMode, kind string, create func() ([]byte, error)) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		der, err := create()
		if err != nil {
			return nil, err
		}
		if err := writeOnce(path, mode, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})); err != nil {
			return nil, err
		}
		if data, err = os.ReadFile(path); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s holds no %s in PEM; remove the folder for a new CA", path, kind)
	}
	return block.Bytes, nil
}

// writeOnce creates a file with that content, unless it is there already.
func writeOnce(path string, mode fs.FileMode, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// signCertificate makes a certificate for subject's key.
func signCertificate(template, issuer *x509.Certificate, subject, signer *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	return x509.CreateCertificate(rand.Reader, template, issuer, &subject.PublicKey, signer)
}

// certificate is the one for a host, made when it is first asked for and again before it ends.
func (ca *localCA) certificate(_ *tls.ClientHelloInfo, host string) (*tls.Certificate, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if cert := ca.leaves[host]; cert != nil && !inLastThird(cert.Leaf, ca.now()) {
		return cert, nil
	}
	cert, err := ca.issue(host)
	if err != nil {
		return nil, fmt.Errorf("making a certificate for %s: %w", host, err)
	}
	ca.leaves[host] = cert
	return cert, nil
}

func (ca *localCA) issue(host string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := ca.now()
	template := &x509.Certificate{
		NotBefore:   now.Add(-clockSlack),
		NotAfter:    now.Add(leafLifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := signCertificate(template, ca.root, key, ca.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, ca.root.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func (ca *localCA) leaf(host string) *x509.Certificate {
	cert, err := ca.certificate(nil, host)
	if err != nil {
		return nil
	}
	return cert.Leaf
}

// fingerprint is how people compare the root: its SHA-256 in hexadecimal.
func (ca *localCA) fingerprint() string { return fmt.Sprintf("%X", sha256.Sum256(ca.root.Raw)) }

func (ca *localCA) start(boundAddresses) {}
func (ca *localCA) reread()              {}
func (ca *localCA) close()               {}

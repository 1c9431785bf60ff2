package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	neturl "net/url"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/dpopgate/dpopgate/config"
)

const (
	maxDirectory     = 64 << 10 // of the answer of a CA
	directoryTimeout = 15 * time.Second
)

// tryCertificates looks at what the certificates of the config are made from. Nothing is ordered.
func tryCertificates(ctx context.Context, c *config.Config) []connection {
	switch t := c.TLS; {
	case t == nil:
		return nil
	case t.Certificate != nil:
		return []connection{{"certificate", t.Certificate.CertFile, textOf(tryCertificateFiles(c))}}
	case t.Internal:
		_, err := openLocalCA(t.InternalStorage, time.Now)
		return []connection{{"local CA", t.InternalStorage, textOf(err)}}
	default:
		directory := directoryOf(*t.ACME)
		return []connection{
			{"certificate authority", directory, textOf(tryDirectory(ctx, directory, t.ACME.CARoot))},
			{"certificate storage", t.ACME.Storage, textOf(tryCertificateStorage(ctx, c))},
		}
	}
}

// directoryOf is the ACME directory of a config.
func directoryOf(a config.ACME) string {
	if a.Directory == "" {
		return certmagic.LetsEncryptProductionCA
	}
	return a.Directory
}

// tryCertificateFiles loads the certificate, and says which hosts it is not for.
func tryCertificateFiles(c *config.Config) error {
	pair, _, err := loadCertificateFiles("tls.certificate", *c.TLS.Certificate)
	if err != nil {
		return err
	}
	if missing := uncovered(pair.Leaf, c.PublicHosts()); len(missing) > 0 {
		err = fmt.Errorf("is not for %s", strings.Join(missing, ", "))
	}
	if now := time.Now(); now.After(pair.Leaf.NotAfter) || now.Before(pair.Leaf.NotBefore) {
		err = errors.Join(err, fmt.Errorf("is good from %s to %s", pair.Leaf.NotBefore.Format(time.RFC3339), pair.Leaf.NotAfter.Format(time.RFC3339)))
	}
	return err
}

// tryDirectory asks a CA for its directory, which takes no account.
func tryDirectory(ctx context.Context, url, caRoot string) error {
	roots, err := readRoots(caRoot)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport, Timeout: directoryTimeout}).Do(r)
	if e, ok := errors.AsType[*neturl.Error](err); ok {
		return e.Err // without the URL, which stands beside it
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var directory struct {
		NewOrder string `json:"newOrder"`
	}
	err = json.NewDecoder(io.LimitReader(res.Body, maxDirectory)).Decode(&directory)
	if res.StatusCode != http.StatusOK || err != nil || directory.NewOrder == "" {
		return fmt.Errorf("answers %s, and no ACME directory (RFC 8555 §7.1.1)", res.Status)
	}
	return nil
}

// tryCertificateStorage writes a value, reads it and takes it out again.
func tryCertificateStorage(ctx context.Context, c *config.Config) error {
	storage, err := openCertificateStorage(ctx, c, nil, nil)
	if err != nil {
		return err
	}
	if closer, ok := storage.(io.Closer); ok {
		defer closer.Close()
	}
	key, value := "validate/"+rand.Text(), rand.Text()
	if err := storage.Store(ctx, key, []byte(value)); err != nil {
		return err
	}
	got, err := storage.Load(ctx, key)
	if err == nil && string(got) != value {
		err = errors.New("gives back something else than was stored")
	}
	return errors.Join(err, storage.Delete(ctx, key))
}

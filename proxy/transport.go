package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/dpopgate/dpopgate/config"
)

// Bounds of the connections to one upstream.
const (
	maxIdlePerHost = 1024             // as many as run at a time stay open
	idleTimeout    = 30 * time.Second // below what servers use, so that we are the one to close
	maxAnswerBytes = 256 << 10        // of a response header
	silence        = 15 * time.Second // on an HTTP/2 connection until it is asked for a sign of life, and until it is closed
)

// newTransport is a Transport for a proxy: no proxy of its own from the environment, no compression of its own, no
// wait without an end.
func (u *upstream) newTransport(c config.Upstream, tlsConfig *tls.Config) *http.Transport {
	d := &dialer{
		Dialer:  net.Dialer{Timeout: c.ConnectTimeout.Std(), KeepAlive: 15 * time.Second},
		tls:     tlsConfig,
		learned: func(protocol string) { u.http1.Store(protocol != "h2") },
	}
	t := &http.Transport{
		DialContext:            d.dial,
		DialTLSContext:         d.dialTLS,
		ResponseHeaderTimeout:  c.ResponseTimeout.Std(),
		ExpectContinueTimeout:  time.Second,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxAnswerBytes,
		DisableCompression:     true,
		Protocols:              new(http.Protocols),
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: silence, PingTimeout: silence},
	}
	if c.H2C {
		t.Protocols.SetUnencryptedHTTP2(true)
	} else {
		t.Protocols.SetHTTP1(true)
		t.Protocols.SetHTTP2(true)
	}
	return t
}

// unreachable is the error of a connection that could not be made: nothing of the request has been sent.
type unreachable struct{ error }

func (e *unreachable) Unwrap() error { return e.error }

// dialer makes connections within Timeout, TLS included.
type dialer struct {
	net.Dialer
	tls     *tls.Config
	learned func(protocol string) // hears which one was agreed on
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, &unreachable{err}
	}
	return conn, nil
}

func (d *dialer) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	upgrade, conf := x != nil && x.upgrade, d.tls
	if upgrade { // which HTTP/2 does not have
		conf = conf.Clone()
		conf.NextProtos = []string{"http/1.1"}
	}
	conn, err := (&tls.Dialer{NetDialer: &d.Dialer, Config: conf}).DialContext(ctx, network, address)
	if err != nil {
		return nil, &unreachable{err}
	}
	if upgrade {
		return conn, nil
	}
	d.learned(conn.(*tls.Conn).ConnectionState().NegotiatedProtocol)
	return conn, nil
}

// UpstreamTLS is how connections to an upstream's https targets are made; c may be nil. It reads the files that c
// names, and its errors begin with the key.
func UpstreamTLS(c *config.UpstreamTLS) (*tls.Config, error) {
	conf, _, err := readUpstreamTLS(c)
	return conf, err
}

// readUpstreamTLS also gives a digest of the files, to see whether they have changed.
func readUpstreamTLS(c *config.UpstreamTLS) (conf *tls.Config, digest [32]byte, err error) {
	conf = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if c == nil {
		return conf, digest, nil
	}
	conf.ServerName = c.ServerName
	var all [][]byte
	read := func(key, name string) []byte {
		if name == "" || err != nil {
			return nil
		}
		data, failed := os.ReadFile(name)
		if failed != nil {
			err = fmt.Errorf("%s: %w", key, failed)
		}
		all = append(all, data)
		return data
	}
	ca, cert, key := read("tls.ca_file", c.CAFile), read("tls.cert_file", c.CertFile), read("tls.key_file", c.KeyFile)
	if err != nil {
		return nil, digest, err
	}
	if c.CAFile != "" {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(ca) {
			return nil, digest, fmt.Errorf("tls.ca_file: %s holds no certificate in PEM", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, digest, fmt.Errorf("tls.cert_file and key_file: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, sha256.Sum256(bytes.Join(all, []byte{0})), nil
}

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dpopgate/dpopgate/config"
)

// certificateSource is where certificates come from. All but start and close may be called concurrently.
type certificateSource interface {
	// start begins what runs beside the listeners. They are bound by then, and not served yet. It does not wait for a
	// CA.
	start(at boundAddresses)
	// certificate is the one for a client that has come for host, which is one of the config's.
	certificate(hello *tls.ClientHelloInfo, host string) (*tls.Certificate, error)
	// leaf is the certificate that a host is served with now; nil for none.
	leaf(host string) *x509.Certificate
	// reread looks at once whether the operator has put something new in place.
	reread()
	// close ends what start began.
	close()
}

// boundAddresses are those of the listeners, as host:port; empty where there is none.
type boundAddresses struct{ https, http string }

// certificates choose the certificate for a client. Only the hosts of the config ever have one.
type certificates struct {
	hosts  []string // names in lower case, and IP addresses; the first is for clients that name none
	source certificateSource
	// failures counts by host what could not be ordered or renewed.
	failures *prometheus.CounterVec
}

// newCertificates opens the source that the config names. It is nil where the config has no tls. Files of the config
// that are not good are errors; what a CA or a database says is not asked for yet.
func newCertificates(ctx context.Context, c *config.Config, log *slog.Logger, read again) (*certificates, error) {
	if c.TLS == nil {
		return nil, nil
	}
	certs := &certificates{hosts: c.PublicHosts()}
	var err error
	switch {
	case c.TLS.Certificate != nil:
		certs.source, err = openCertificateFiles("tls.certificate", *c.TLS.Certificate, certs.hosts, log)
	case c.TLS.Internal:
		certs.source, err = openLocalCA(c.TLS.InternalStorage, time.Now)
	default:
		if len(c.TLS.ACME.Domains) > 0 {
			certs.hosts = c.TLS.ACME.Domains
		}
		failed := func(host string) { certs.failures.WithLabelValues(host).Inc() }
		certs.source, err = newACMECertificates(ctx, c, certs.hosts, failed, log, read)
	}
	certs.failures = newCertificateFailures(certs.hosts)
	if err != nil {
		return nil, err
	}
	return certs, nil
}

// tlsConfig is TLS 1.2 and 1.3 with Go's cipher suites, and no early data: crypto/tls takes none.
func (c *certificates) tlsConfig() *tls.Config {
	usual := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.choose}
	if _, ok := c.source.(*acmeCertificates); !ok {
		return usual
	}
	// A CA that checks a TLS-ALPN-01 challenge offers this one protocol (RFC 8737 §4), and nobody else gets to speak it:
	// net/http ends a connection with a protocol that it does not know.
	challenge := usual.Clone()
	challenge.NextProtos = []string{acmez.ACMETLS1Protocol}
	usual.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if isChallenge(hello) {
			return challenge, nil
		}
		return nil, nil
	}
	return usual
}

// solver answers HTTP-01 challenges, where the source has any; else it is nil.
func (c *certificates) solver() func(http.ResponseWriter, *http.Request) bool {
	if acme, ok := c.source.(*acmeCertificates); ok {
		return acme.solve
	}
	return nil
}

// isChallenge says whether a client is a CA that checks a TLS-ALPN-01 challenge, or pretends to be one.
func isChallenge(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmez.ACMETLS1Protocol
}

// choose implements tls.Config.GetCertificate. Without a certificate and an error, as for a name that is not served, a
// client is told unrecognized_name.
func (c *certificates) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	host := c.hostOf(hello)
	if host == "" {
		return nil, nil
	}
	return c.source.certificate(hello, host)
}

// hostOf is the host that a client has come for, empty for one that is not served. Clients name no IP addresses (RFC
// 6066 §3): one that names nothing has come for the address that it has reached, if that is served, or else for the
// first host.
func (c *certificates) hostOf(hello *tls.ClientHelloInfo) string {
	name := strings.ToLower(hello.ServerName)
	if name == "" {
		name = c.hosts[0]
		if hello.Conn != nil {
			if ip, _, err := net.SplitHostPort(hello.Conn.LocalAddr().String()); err == nil && slices.Contains(c.hosts, ip) {
				name = ip
			}
		}
	}
	if !slices.Contains(c.hosts, name) {
		return ""
	}
	return name
}

// uncovered are the hosts that a certificate is not for.
func uncovered(leaf *x509.Certificate, hosts []string) []string {
	return slices.DeleteFunc(slices.Clone(hosts), func(host string) bool { return leaf.VerifyHostname(host) == nil })
}

// inLastThird says whether a certificate that renews itself should have been renewed by now.
func inLastThird(leaf *x509.Certificate, now time.Time) bool {
	return leaf.NotAfter.Sub(now) < leaf.NotAfter.Sub(leaf.NotBefore)/3
}

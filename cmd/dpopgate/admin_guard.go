package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/dpopgate/dpopgate/config"
)

// adminGuard lets people and programs into the admin listener.
type adminGuard struct {
	address string
	bearer  *[sha256.Size]byte // nil: none
	clients *x509.CertPool     // whose certificates are let in; nil: nobody's
	files   *certificateFiles  // nil: cleartext
}

// newAdminGuard reads the files that the config names, and begins to look at its certificate.
func newAdminGuard(c *config.Config, log *slog.Logger) (*adminGuard, error) {
	g := &adminGuard{address: c.Listen.Admin}
	if c.Admin.Auth.Bearer != "" {
		sum := sha256.Sum256([]byte(c.Admin.Auth.Bearer))
		g.bearer = &sum
	}
	if file := c.Admin.Auth.ClientCA; file != "" {
		pem, err := readPEMFile("admin.auth.client_ca", file)
		if err != nil {
			return nil, err
		}
		if g.clients = x509.NewCertPool(); !g.clients.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("admin.auth.client_ca: %s holds no certificate in PEM", file)
		}
	}
	if c.Admin.TLS == nil {
		return g, nil
	}
	var err error
	if g.files, err = openCertificateFiles("admin.tls", *c.Admin.TLS, nil, log); err != nil {
		return nil, err
	}
	g.files.start(boundAddresses{})
	return g, nil
}

// close ends the look at the certificate.
func (g *adminGuard) close() {
	if g.files != nil {
		g.files.close()
	}
}

// url is where a person finds the status page.
func (g *adminGuard) url(address string) string {
	if g.files != nil {
		return "https://" + address + "/"
	}
	return "http://" + address + "/"
}

// tlsConfig is nil for cleartext. A client certificate is asked for and not insisted on: probes have none.
func (g *adminGuard) tlsConfig() *tls.Config {
	if g.files == nil {
		return nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return g.files.certificate(hello, "")
	}}
	if g.clients != nil {
		t.ClientCAs, t.ClientAuth = g.clients, tls.VerifyClientCertIfGiven
	}
	return t
}

// protect puts the guard in front of a handler. A web page of another origin is not let in whoever's browser it is in:
// neither by a host name of its own (DNS rebinding), nor by a fetch, a script or an image. A link to the page is.
func (g *adminGuard) protect(next http.Handler) http.Handler {
	return onlyNamed(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case foreign(r):
			answerProbe(w, http.StatusForbidden, "not for pages of other origins\n")
		case isProbe(r) || g.lets(r):
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
			next.ServeHTTP(w, r)
		case g.bearer != nil:
			w.Header().Add("WWW-Authenticate", `Bearer realm="dpopgate admin"`)
			w.Header().Add("WWW-Authenticate", `Basic realm="dpopgate admin", charset="UTF-8"`)
			answerProbe(w, http.StatusUnauthorized, "admin.auth.bearer is wanted, as Bearer or as the password\n")
		default:
			answerProbe(w, http.StatusForbidden, "a client certificate of admin.auth.client_ca is wanted\n")
		}
	}), g.address)
}

// lets says whether a request comes with what admin.auth wants, if it wants anything.
func (g *adminGuard) lets(r *http.Request) bool {
	if g.bearer == nil && g.clients == nil {
		return true
	}
	if g.clients != nil && r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return true
	}
	secret, ok := shownSecret(r)
	if g.bearer == nil || !ok {
		return false
	}
	sum := sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(sum[:], g.bearer[:]) == 1
}

// shownSecret is the bearer of a request, or the password that a browser has asked for.
func shownSecret(r *http.Request) (string, bool) {
	if _, password, ok := r.BasicAuth(); ok {
		return password, true
	}
	scheme, secret, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.TrimSpace(secret), ok && strings.EqualFold(scheme, "Bearer")
}

// isProbe says whether a request asks no more than whether the process lives or is ready: what orchestrators and load
// balancers ask without credentials.
func isProbe(r *http.Request) bool {
	switch r.URL.Path {
	case "/healthz", "/livez", "/ping":
		return true
	case "/readyz":
		return r.URL.RawQuery == ""
	}
	return false
}

// foreign says whether a browser sends a request for a page of another origin. Programs say nothing of origins.
func foreign(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		return err != nil || !strings.EqualFold(u.Host, r.Host)
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		return r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
	}
	return false
}

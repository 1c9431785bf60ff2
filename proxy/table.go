package proxy

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
)

// table is a config in its compiled form. A request uses one table from its first step to its last, so that a reload
// never mixes two. It is immutable.
type table struct {
	origins  map[string]*origin // by host, and by host:port
	mux      *http.ServeMux
	routes   []*route
	methods  map[string]bool // that may be used at all
	verifier *dpop.Verifier
	algs     string
	identity *identity
	trusted  peers
	asserter *asserter // nil: no assertion is sent

	forwardAuth string // path below which proxies ask for the decision alone; empty: none can
	pools       map[string]*upstream
	nonces      nonceSource
	revoke      bool     // misuse: revoke
	hsts        []string // what Strict-Transport-Security says on TLS connections; nil: it is not sent
}

// nonceSource is what a Nonces was made from: a reload that changes neither keeps it, and so the nonces in use.
type nonceSource struct {
	key config.Secret
	ttl time.Duration
}

// origin is one public URL.
type origin struct {
	dpop.Origin
	scheme       string   // https or http
	host         string   // without a default port, for patterns
	audience     []string // the URL as an audience: with and without a slash at its end where those are the same
	metadataURL  string
	metadataPath [2]string // where the metadata is asked for: with the prefix, and with it stripped in front
	document     []byte
}

// methods that routes without a method take.
var httpMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// compile makes a table. before is the one in force, or nil.
func compile(c *config.Config, o Options, before *table) (*table, error) {
	t := &table{
		origins:  map[string]*origin{},
		mux:      http.NewServeMux(),
		methods:  map[string]bool{},
		identity: compileIdentity(c.Identity, c.Upstreams),
		revoke:   c.Misuse == "revoke",
		nonces:   nonceSource{c.DPoP.NonceKey, c.DPoP.NonceTTL.Std()},
	}
	t.verifier = &dpop.Verifier{
		MaxAge:       c.DPoP.MaxAge.Std(),
		MaxSkew:      c.DPoP.MaxSkew.Std(),
		MaxProofSize: int(c.DPoP.MaxProofSize),
		Started:      o.Started,
		Replay:       o.Replay,
		Headers:      o.Headers,
		Fallback:     o.Fallback,
	}
	if before != nil {
		t.verifier.Shorter = before.verifier.Raise(t.verifier.MaxAge, o.Now())
	}
	for _, name := range c.DPoP.Algorithms {
		if !dpop.Known(dpop.Algorithm(name)) {
			return nil, fmt.Errorf("dpop.algorithms: %q cannot be verified", name)
		}
		t.verifier.Algorithms = append(t.verifier.Algorithms, dpop.Algorithm(name))
	}
	if c.TLS != nil && c.TLS.HSTS > 0 {
		t.hsts = []string{fmt.Sprintf("max-age=%d", int64(c.TLS.HSTS.Std().Seconds()))}
	}
	t.algs = t.verifier.Algorithms.String()
	if before != nil && before.nonces == t.nonces {
		t.verifier.Nonces = before.verifier.Nonces
	} else {
		t.verifier.Nonces = dpop.NewNonces([]byte(cmp.Or(string(t.nonces.key), string(o.NonceKey))), t.nonces.ttl)
	}
	var err error
	if t.asserter, err = compileAsserter(c.Identity.Assertion, before, o.Now()); err != nil {
		return nil, fmt.Errorf("identity.assertion.key_file: %w", err)
	}
	if err := t.compileUpstreams(c, o, before); err != nil {
		return nil, err
	}
	for _, text := range c.Listen.TrustedProxies {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("listen.trusted_proxies: %q is not a CIDR", text)
		}
		t.trusted = append(t.trusted, prefix.Masked())
	}
	t.forwardAuth = c.ForwardAuth.Path
	for _, method := range httpMethods {
		t.methods[method] = true
	}
	for _, cr := range c.Routes {
		rt, err := compileRoute(cr, c.DPoP.Nonce, t.pools)
		if err != nil {
			return nil, err
		}
		rt.limit = newLimiter(cr.RateLimit, before.limiter(cr.Match), o.Now())
		if err := register(t.mux, rt); err != nil {
			return nil, err
		}
		if method, _, ok := strings.Cut(cr.Match, " "); ok {
			t.methods[method] = true
		}
		t.routes = append(t.routes, rt)
	}
	return t, t.compileOrigins(c)
}

func (t *table) compileOrigins(c *config.Config) error {
	for _, text := range c.PublicURLs {
		o, err := dpop.ParseOrigin(text)
		if err != nil {
			return fmt.Errorf("public_urls: %q: %w", text, err)
		}
		here := &origin{Origin: o, host: o.Host(), audience: []string{o.String()}}
		here.scheme, _, _ = strings.Cut(o.String(), ":")
		if o.Prefix() == "" {
			here.audience = append(here.audience, o.String()+"/")
		}
		here.describe(c, t)
		names := []string{here.host}
		if _, _, err := net.SplitHostPort(here.host); err != nil {
			names = append(names, net.JoinHostPort(strings.Trim(here.host, "[]"), o.Port()))
		}
		for _, name := range names {
			if t.origins[name] != nil {
				return fmt.Errorf("public_urls: two URLs for the host %q", name)
			}
			t.origins[name] = here
		}
	}
	return nil
}

// here finds the public URL that a request is for by its Host, or nil.
func (t *table) here(host string) *origin {
	if o := t.origins[host]; o != nil {
		return o
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r >= 0x80 }) {
		return nil // some other letters have ASCII lower cases
	}
	return t.origins[strings.ToLower(host)]
}

// scopesNamed is every scope that a route names, sorted.
func (t *table) scopesNamed() []string {
	var all []string
	for _, rt := range t.routes {
		all = append(append(all, rt.scopes...), rt.anyScope...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

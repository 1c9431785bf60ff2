package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// problem is why a value is no good, and what would be. The two say nothing of the value itself.
type problem struct{ message, hint string }

// withHint adds a hint that repeats a part of the value at key, unless that came out of a reference.
func (f *file) withHint(key string, p problem, hint string) *problem {
	if pl := f.places[key]; pl != nil && !f.expanded[pl.node] {
		p.hint = hint
	}
	return &p
}

// validate checks what the types cannot say, and brings hosts, URLs and client ids into their canonical spelling.
// A key that could not be read is passed over: its error is there already.
func (f *file) validate(c *Config) {
	for _, e := range f.errs {
		f.broken[e.Key] = true
	}
	f.checkPublicURLs(c)
	f.checkListen(c)
	f.checkAdmin(c)
	f.checkTLS(c)
	f.checkStore(&c.Store)
	f.checkDPoP(c)
	f.checkIdentity(&c.Identity)
	f.checkUpstreams(c)
	f.checkRoutes(c)
	f.checkMetadata(&c.Metadata)
	f.checkForwardAuth(c)
	if c.Tracing.OTLPEndpoint != "" {
		_, p := baseURL(c.Tracing.OTLPEndpoint)
		f.rejectProblem("tracing.otlp_endpoint", p)
	}
	if c.Log.Sample < 1 {
		f.reject("log.sample", "want 1 for each request, or 100 for every hundredth", "must be 1 or more")
	}
	f.checkDurations(c)
	f.checkSizes(c)
}

// reject adds an error at the value of a key; when the file has no such key, at the nearest one around it.
func (f *file) reject(key, hint, format string, args ...any) {
	if !f.broken[key] && !f.full() {
		f.addAt(f.nodeOf(key), key, fmt.Sprintf(format, args...), hint)
	}
}

// rejectProblem adds the problem at a key, if there is one.
func (f *file) rejectProblem(key string, p *problem) {
	if p == nil || f.full() {
		return
	}
	subject := "the value"
	if pl := f.places[key]; pl != nil {
		subject = f.quote(pl.node, pl.node.Value)
	}
	f.reject(key, p.hint, "%s %s", subject, p.message)
}

// nodeOf is where an error about a key is shown.
func (f *file) nodeOf(key string) *yaml.Node {
	if pl := f.places[key]; pl != nil {
		return pl.node
	}
	for key != "" {
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
		if pl := f.places[key]; pl != nil && pl.name != nil {
			return pl.name
		} else if pl != nil {
			return pl.node
		}
	}
	return &yaml.Node{Line: 1, Column: 1}
}

// isSet says whether the file has a key, whatever its value.
func (f *file) isSet(key string) bool { return f.places[key] != nil }

// quoted is how a message names the value of a key.
func (f *file) quoted(key, text string) string {
	if pl := f.places[key]; pl != nil {
		return f.quote(pl.node, text)
	}
	return strconv.Quote(text)
}

// where is the position of a key, for messages about another one.
func (f *file) where(key string) string {
	n := f.nodeOf(key)
	return fmt.Sprintf("%s at %d:%d", key, n.Line, n.Column)
}

func (f *file) checkPublicURLs(c *Config) {
	if len(c.PublicURLs) == 0 {
		f.reject("public_urls", "want a list such as [https://api.example.com]", "no public URL; the base of every htu is needed")
	}
	taken := map[string]string{} // spelling of a Host header → key
	for i, raw := range c.PublicURLs {
		key := fmt.Sprintf("public_urls[%d]", i)
		u, p := baseURL(raw)
		if p != nil {
			f.rejectProblem(key, p)
			continue
		}
		c.PublicURLs[i] = u.String()
		if u.Scheme == "http" && !isLoopback(u.Hostname()) {
			f.reject(key, "want https://, or a loopback host: localhost, 127.0.0.1, [::1]",
				"cleartext http is taken for loopback hosts only")
		}
		for _, host := range hostSpellings(u) {
			if first, found := taken[host]; found {
				f.reject(key, "one public URL for each host", "the same host as %s", f.where(first))
				break
			}
			taken[host] = key
		}
	}
}

// hostSpellings are the Host headers that mean a public URL: its default port may be written or not.
func hostSpellings(u *url.URL) []string {
	if u.Port() != "" {
		return []string{u.Host}
	}
	return []string{u.Host, u.Host + map[string]string{"http": ":80", "https": ":443"}[u.Scheme]}
}

func (f *file) checkListen(c *Config) {
	l := &c.Listen
	switch {
	case c.TLS == nil && !f.isSet("listen.https"):
		l.HTTPS = "" // the default is for tls
	case c.TLS == nil && l.HTTPS != "":
		f.reject("listen.https", "add tls, or leave it out", "needs tls")
	case c.TLS != nil && l.HTTPS == "":
		f.reject("listen.https", "want an address such as :443", "empty, so nothing would be served with tls")
	}
	if c.TLS == nil && l.HTTP == "" {
		f.reject("listen.http", "want an address such as :80", "empty, so nothing would be served without tls")
	}
	taken := map[string]string{}
	for _, at := range []struct{ key, address string }{
		{"listen.https", l.HTTPS}, {"listen.http", l.HTTP}, {"listen.admin", l.Admin},
	} {
		if at.address == "" {
			continue
		}
		if !isListenAddress(at.address) {
			f.reject(at.key, "want host:port, such as :80, 127.0.0.1:8080 or [::1]:8080",
				"%s is no address to listen on", f.quoted(at.key, at.address))
			continue
		}
		if first, found := taken[at.address]; found && !strings.HasSuffix(at.address, ":0") {
			f.reject(at.key, "give each its own port", "the same address as %s", first)
		}
		taken[at.address] = at.key
	}
	for i, cidr := range l.TrustedProxies {
		key := fmt.Sprintf("listen.trusted_proxies[%d]", i)
		f.rejectProblem(key, f.cidrProblem(key, cidr))
	}
}

// isListenAddress takes host:port with a numeric port; 0 is any free one.
func isListenAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != port {
		return false
	}
	if host == "" {
		return true
	}
	_, p := canonicalHost(host)
	return p == nil
}

func (f *file) cidrProblem(key, s string) *problem {
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		if ip, err := netip.ParseAddr(s); err == nil {
			return f.withHint(key, problem{"is an address, not a CIDR", "add the length of the network, such as /24"},
				fmt.Sprintf("for this one address: %s/%d", ip, ip.BitLen()))
		}
		return &problem{"is not a CIDR", "want a network such as 10.0.0.0/8"}
	}
	switch {
	case prefix.Bits() == 0:
		return &problem{"is every address there is, so anyone could claim to be anyone", "name the networks of your own proxies"}
	case prefix.Masked() != prefix:
		return f.withHint(key, problem{"has bits outside its mask", "set them to 0"}, "did you mean "+prefix.Masked().String()+"?")
	}
	return nil
}

// require refuses an empty value.
func (f *file) require(key, value string) {
	if value == "" {
		message := "missing"
		if f.isSet(key) {
			message = "empty"
		}
		f.reject(key, "give a value", "%s", message)
	}
}

func count(conditions ...bool) int {
	n := 0
	for _, c := range conditions {
		if c {
			n++
		}
	}
	return n
}

func (f *file) checkStore(s *Store) {
	// A reference that could not be replaced still says which store is meant.
	sqlite := s.SQLite != "" || f.broken["store.sqlite"]
	postgres := s.Postgres != "" || f.broken["store.postgres"]
	switch {
	case !sqlite && !postgres:
		f.reject("store", "give store.sqlite, a file, or store.postgres, a URL", "no store")
	case sqlite && postgres:
		f.reject("store.postgres", "leave one out", "two stores: %s is the other", f.where("store.sqlite"))
	}
	for _, dsn := range []struct {
		key   string
		value Secret
	}{{"store.postgres", s.Postgres}, {"store.listen", s.Listen}} {
		if dsn.value != "" && !isPostgresDSN(string(dsn.value)) {
			f.reject(dsn.key, "want postgres://user:password@host/database, or a DSN such as host=… dbname=…", "not a Postgres URL or DSN")
		}
	}
	if s.Listen != "" && !postgres {
		f.reject("store.listen", "leave it out with store.sqlite", "is for store.postgres only")
	}
	switch {
	case !postgres && f.isSet("store.table") && s.Table != "public.oauth_access_tokens":
		f.reject("store.table", "leave it out with store.sqlite", "is for store.postgres only")
	case !isTableName(s.Table):
		f.reject("store.table", "want a name such as oauth_access_tokens or public.oauth_access_tokens",
			"%s is not the name of a table", f.quoted("store.table", s.Table))
	}
	switch hmac := s.Digest == "hmac-sha256"; {
	case hmac && s.DigestKey == "":
		f.reject("store.digest_key", "give the key, such as ${file:/run/secrets/token_pepper}", "missing, and digest hmac-sha256 needs it")
	case !hmac && s.DigestKey != "":
		f.reject("store.digest_key", "leave it out, or set digest: hmac-sha256", "is for digest hmac-sha256 only")
	case hmac:
		f.checkKeyLength("store.digest_key", s.DigestKey)
	}
}

// checkKeyLength refuses keys that could be guessed.
func (f *file) checkKeyLength(key string, secret Secret) {
	const shortest = 16
	if len(secret) < shortest {
		f.reject(key, "make one with: openssl rand -hex 32", "shorter than %d bytes", shortest)
	}
}

func isPostgresDSN(s string) bool {
	return strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://") ||
		!strings.Contains(s, "://") && strings.Contains(s, "=")
}

// isTableName takes a name or schema.name, without quotes; Postgres cuts names after 63 bytes.
func isTableName(s string) bool {
	parts := strings.Split(s, ".")
	bad := func(part string) bool {
		return part == "" || len(part) > 63 || strings.ContainsFunc(part, func(r rune) bool { return r <= ' ' || r == '"' || r == '\'' || r == ';' })
	}
	return len(parts) <= 2 && !slices.ContainsFunc(parts, bad)
}

func (f *file) checkDPoP(c *Config) {
	d := &c.DPoP
	if len(d.Algorithms) == 0 {
		f.reject("dpop.algorithms", "leave it out for the default list", "no algorithm, so no proof could pass")
	}
	f.checkNoRepeats("dpop.algorithms", d.Algorithms)
	if d.NonceKey != "" {
		f.checkKeyLength("dpop.nonce_key", d.NonceKey)
	}
	f.checkReplay(c)
}

// checkNoRepeats refuses a value that a list has twice.
func (f *file) checkNoRepeats(key string, values []string) {
	seen := map[string]bool{}
	for i, value := range values {
		if at := fmt.Sprintf("%s[%d]", key, i); seen[value] && value != "" {
			f.reject(at, "leave it out", "%s is in the list already", f.quoted(at, value))
		}
		seen[value] = true
	}
}

func (f *file) checkMetadata(m *Metadata) {
	for i, issuer := range m.AuthorizationServers {
		key := fmt.Sprintf("metadata.authorization_servers[%d]", i)
		u, p := baseURL(issuer)
		f.rejectProblem(key, p)
		if p == nil && u.Scheme != "https" && !isLoopback(u.Hostname()) {
			f.reject(key, "want https://", "an issuer is an https URL (RFC 8414 §2)")
		}
	}
	if m.Documentation == "" {
		return
	}
	if u, err := url.Parse(m.Documentation); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		f.rejectProblem("metadata.documentation", &problem{"is not a URL", "want one such as https://docs.example.com"})
	}
}

// checkDurations holds the bounds of all durations outside the lists; most of these keep a slip of the unit from
// becoming an open door or a closed one.
func (f *file) checkDurations(c *Config) {
	const none = Duration(1<<63 - 1)
	const some = Duration(1)
	hour := Duration(time.Hour)
	for _, d := range []struct {
		key        string
		value      Duration
		least, top Duration
	}{
		{"store.timeout", c.Store.Timeout, some, Duration(time.Minute)},
		{"cache.ttl", c.Cache.TTL, 0, hour},
		{"cache.negative_ttl", c.Cache.NegativeTTL, 0, hour},
		{"cache.stale_on_error", c.Cache.StaleOnError, 0, hour},
		{"dpop.max_age", c.DPoP.MaxAge, some, hour},
		{"dpop.max_skew", c.DPoP.MaxSkew, 0, Duration(5 * time.Minute)},
		{"dpop.nonce_ttl", c.DPoP.NonceTTL, Duration(10 * time.Second), 24 * hour},
		{"limits.header_timeout", c.Limits.HeaderTimeout, some, none},
		{"limits.idle_timeout", c.Limits.IdleTimeout, some, none},
	} {
		f.checkDuration(d.key, d.value, d.least, d.top)
	}
	if c.Cache.StaleOnError > 0 && c.Cache.TTL == 0 {
		f.reject("cache.stale_on_error", "leave it out, or give cache.ttl a duration", "with cache.ttl 0 there is no cached token to serve")
	}
}

func (f *file) checkDuration(key string, d, least, top Duration) {
	switch {
	case d < least && least == 1:
		f.reject(key, "want a duration such as 10s", "must be more than 0")
	case d < least:
		f.reject(key, "want "+least.String()+" or more", "too short")
	case d > top:
		f.reject(key, "want "+top.String()+" or less", "too long")
	}
}

func (f *file) checkSizes(c *Config) {
	const top = Size(1 << 40)
	for _, s := range []struct {
		key        string
		value      Size
		least, top Size
	}{
		{"cache.max_size", c.Cache.MaxSize, 1 << 20, top},
		{"dpop.replay_memory", c.DPoP.ReplayMemory, 1 << 20, top},
		{"dpop.max_proof_size", c.DPoP.MaxProofSize, 1 << 10, 64 << 10},
		{"limits.header_bytes", c.Limits.HeaderBytes, 4 << 10, 1 << 20},
	} {
		switch {
		case s.value < s.least:
			f.reject(s.key, "want "+s.least.String()+" or more", "too small")
		case s.value > s.top:
			f.reject(s.key, "want "+s.top.String()+" or less", "too large")
		}
	}
	if c.DPoP.MaxProofSize >= c.Limits.HeaderBytes {
		key := "dpop.max_proof_size"
		if !f.isSet(key) {
			key = "limits.header_bytes"
		}
		f.reject(key, "make max_proof_size smaller or header_bytes larger",
			"a proof of %s does not fit into limits.header_bytes, %s", c.DPoP.MaxProofSize, c.Limits.HeaderBytes)
	}
}

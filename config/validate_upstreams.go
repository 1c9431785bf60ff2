package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

func (f *file) checkUpstreams(c *Config) {
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		u, key := c.Upstreams[name], path{key: "upstreams"}.entry(name).key
		f.checkTargets(&u, key)
		f.checkUpstreamHeaders(&c.Identity, u.Headers, key+".headers")
		f.checkDuration(key+".connect_timeout", u.ConnectTimeout, 1, Duration(1<<63-1))
		f.checkDuration(key+".response_timeout", u.ResponseTimeout, 1, Duration(1<<63-1))
		if u.TLS != nil && (u.TLS.CertFile == "") != (u.TLS.KeyFile == "") {
			f.reject(key+".tls", "give both cert_file and key_file, or neither", "a client certificate without its other half")
		}
		f.checkHealth(u.Health, key+".health")
	}
}

func (f *file) checkTargets(u *Upstream, key string) {
	if len(u.Targets) == 0 {
		f.reject(key+".targets", "want a list such as [http://10.0.0.5:8080]", "no target")
	}
	for i, raw := range u.Targets {
		at := fmt.Sprintf("%s.targets[%d]", key, i)
		target, p := baseURL(raw)
		if p != nil {
			f.rejectProblem(at, p)
			continue
		}
		u.Targets[i] = target.String()
		switch {
		case u.H2C && target.Scheme != "http":
			f.reject(at, "want http://, or leave h2c out", "h2c is HTTP/2 in cleartext")
		case u.TLS != nil && target.Scheme != "https":
			f.reject(at, "want https://, or leave tls out", "tls has nothing to do for a cleartext target")
		}
	}
	f.checkNoRepeats(key+".targets", u.Targets)
}

func (f *file) checkHealth(h *Health, key string) {
	if h == nil {
		return
	}
	f.rejectProblem(key+".path", pathProblem(h.Path))
	f.checkDuration(key+".interval", h.Interval, 1, Duration(1<<63-1))
	f.checkDuration(key+".timeout", h.Timeout, 1, Duration(1<<63-1))
	if h.UnhealthyAfter < 1 {
		f.reject(key+".unhealthy_after", "want 1 or more", "a target would be out before its first check")
	}
	if h.HealthyAfter < 1 {
		f.reject(key+".healthy_after", "want 1 or more", "a target would be back without a check")
	}
}

// framing is the headers that belong to one connection or to the message's own framing (RFC 9110 §7.6.1), so that
// nobody can set them for an upstream.
var framing = []string{
	"connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
	"proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// gatewayHeaders is what the gateway itself removes or writes, under a meaning of its own.
var gatewayHeaders = []string{
	"authorization", "dpop", "cookie", "content-type", "forwarded", "traceparent", "x-forwarded-for", "x-forwarded-host",
	"x-forwarded-proto", "x-request-id",
}

// fold brings header names that some upstream takes for the same into one spelling: X-User, x_user and X.User. CGI and
// its like see only letters and digits in a name.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
}

func (f *file) checkUpstreamHeaders(identity *Identity, headers map[string]Secret, key string) {
	identityNames := map[string]bool{}
	for _, name := range identity.Names().all() {
		identityNames[fold(name)] = true
	}
	seen := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		at, value := path{key: key}.entry(name).key, string(headers[name])
		switch {
		case slices.Contains(framing, fold(name)):
			f.reject(at, "leave it out; for Host there is the route's preserve_host", "belongs to the connection, not to the request")
		case identityNames[fold(name)]:
			f.reject(at, "name it differently, or the identity header", "is an identity header, which the gateway sets itself")
		case seen[fold(name)] != "":
			f.reject(at, "keep one", "the same header as %s", f.where(seen[fold(name)]))
		case strings.ContainsAny(value, "\r\n\x00"):
			f.reject(at, "a header value is one line", "the value has a line break or a NUL in it")
		}
		seen[fold(name)] = at
	}
}

func (f *file) checkIdentity(i *Identity) {
	names := i.Names()
	seen := map[string]string{} // folded name → key
	check := func(key, name string) {
		if name == "" {
			return
		}
		switch {
		case !isToken(name):
			f.reject(key, "want letters, digits and -", "%s is not a header name", f.quoted(key, name))
		case slices.Contains(framing, fold(name)), slices.Contains(gatewayHeaders, fold(name)):
			f.reject(key, "want a name of its own, such as X-Auth-Subject", "%s has another meaning already", f.quoted(key, name))
		case seen[fold(name)] != "":
			f.reject(key, "want a name of its own", "%s is the header of %s too", f.quoted(key, name), seen[fold(name)])
		}
		seen[fold(name)] = key
	}
	check("identity.subject", names.Subject)
	check("identity.scope", names.Scope)
	check("identity.client", names.Client)
	check("identity.token_id", names.TokenID)
	check("identity.token_type", names.TokenType)
	check("identity.expires", names.Expires)
	for _, name := range slices.Sorted(maps.Keys(names.Metadata)) {
		key := path{key: "identity.metadata"}.entry(name).key
		check(key, name)
		f.require(key, names.Metadata[name])
	}
	check("identity.assertion.header", i.Assertion.Header)
	if a := i.Assertion; a != (Assertion{}) {
		f.require("identity.assertion.header", a.Header)
		f.require("identity.assertion.key_file", a.KeyFile)
	}
}

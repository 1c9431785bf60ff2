package config

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

func (f *file) checkRoutes(c *Config) {
	if len(c.Routes) == 0 {
		f.reject("routes", "want a list with a match and an upstream each", "no route, so every request would be 404")
	}
	patterns := newPatternSet()
	for i := range c.Routes {
		r, key := &c.Routes[i], fmt.Sprintf("routes[%d]", i)
		if r.Match == "" {
			f.reject(key+".match", "want a pattern such as GET /orders/", "match is missing")
		} else if p := f.checkMatch(c, r, key, patterns); p != nil {
			f.rejectProblem(key+".match", p)
		}
		f.checkRouteUpstream(c, r, key)
		f.checkPolicy(r, key)
		f.checkRateLimit(r.RateLimit, key+".rate_limit")
		f.checkCORS(r.CORS, key+".cors")
	}
}

// checkMatch checks a pattern by itself, then against those before it.
func (f *file) checkMatch(c *Config, r *Route, key string, patterns *patternSet) *problem {
	method, host, path := splitPattern(r.Match)
	if p := methodProblem(method); p != nil {
		return p
	}
	if host != "" {
		if p := patternHostProblem(host, c.PublicURLs); p != nil {
			return p
		}
	}
	if p := patternPathProblem(path); p != nil {
		return p
	}
	if r.StripPrefix != "" {
		f.rejectProblem(key+".strip_prefix", stripProblem(r.StripPrefix, path))
	}
	rival, err := patterns.add(r.Match, key+".match")
	switch {
	case err != nil:
		return &problem{"is no pattern: " + err.Error(), "want [METHOD ][HOST]/PATH, such as GET /orders/{id}"}
	case rival != "":
		f.reject(key+".match", "make one of them more specific",
			"both this and %s match some requests, and neither is more specific", f.where(rival))
	}
	return nil
}

// splitPattern takes a ServeMux pattern, "[METHOD ][HOST]/PATH", apart.
func splitPattern(pattern string) (method, host, path string) {
	rest := pattern
	if i := strings.IndexAny(pattern, " \t"); i >= 0 {
		method, rest = pattern[:i], strings.TrimLeft(pattern[i:], " \t")
	}
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return method, rest[:i], rest[i:]
	}
	return method, rest, ""
}

func methodProblem(method string) *problem {
	switch {
	case method == "":
		return nil
	case !isToken(method):
		return &problem{"does not begin with a method or a path", "want [METHOD ][HOST]/PATH, such as GET /orders/"}
	case method != strings.ToUpper(method):
		return &problem{"has a method in lower case, and such requests are refused", "did you mean " + strings.ToUpper(method) + "?"}
	case method == http.MethodConnect || method == http.MethodTrace:
		return &problem{"has the method " + method + ", and such requests are refused", "leave the route out"}
	}
	return nil
}

// patternHostProblem refuses a host that no request can have. A ServeMux pattern has a host without a port.
func patternHostProblem(host string, publicURLs []string) *problem {
	var hosts []string
	for _, raw := range publicURLs {
		if u, err := url.Parse(raw); err == nil {
			hosts = append(hosts, u.Hostname())
		}
	}
	switch {
	case strings.Contains(host, ":"):
		return &problem{"has a host with a port or an IPv6 address", "leave the port out; for an IPv6 address, the whole host"}
	case strings.Contains(host, "{"):
		return &problem{"has a wildcard in its host", "wildcards are for path segments"}
	case !slices.Contains(hosts, host):
		hint := didYouMean(host, hosts)
		if hint == "" {
			hint = "the hosts there are " + strings.Join(hosts, ", ")
		}
		return &problem{"has a host that is in none of public_urls", hint}
	}
	return nil
}

// patternPathProblem refuses a path that no request can have. Wildcards are left to ServeMux.
func patternPathProblem(path string) *problem {
	if path == "" {
		return &problem{"has no path", "want one such as /orders/, or / for all"}
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") {
			segments[i] = "wildcard"
		}
	}
	return pathProblem(strings.Join(segments, "/"))
}

// stripProblem checks that every path matched begins with the prefix.
func stripProblem(prefix, path string) *problem {
	literal, _, _ := strings.Cut(path, "{")
	if p := pathProblem(prefix); p != nil {
		return p
	}
	switch {
	case strings.HasSuffix(prefix, "/"):
		return &problem{"ends in a slash", "want " + strings.TrimRight(prefix, "/") + " without it"}
	case literal != prefix && !strings.HasPrefix(literal, prefix+"/"):
		return &problem{"is not how the path of match begins", "want whole segments of " + literal}
	}
	return nil
}

// patternSet finds patterns that are in each other's way, by asking ServeMux itself.
type patternSet struct {
	mux      *http.ServeMux
	patterns map[string]string // key → pattern
}

func newPatternSet() *patternSet {
	return &patternSet{mux: http.NewServeMux(), patterns: map[string]string{}}
}

// add takes in a pattern. It returns the key of a pattern that conflicts with it, or why it is none.
func (s *patternSet) add(pattern, key string) (rival string, err error) {
	if err := register(http.NewServeMux(), pattern); err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner // without the pattern itself
		}
		return "", err
	}
	if register(s.mux, pattern) == nil {
		s.patterns[key] = pattern
		return "", nil
	}
	for _, other := range slices.Sorted(maps.Keys(s.patterns)) {
		pair := http.NewServeMux()
		if register(pair, s.patterns[other]) == nil && register(pair, pattern) != nil {
			return other, nil
		}
	}
	return key, nil
}

// register adds a pattern to a mux; its panic becomes an error.
func register(mux *http.ServeMux, pattern string) (err error) {
	defer func() {
		switch reason := recover().(type) {
		case nil:
		case error:
			err = reason
		default:
			err = fmt.Errorf("%v", reason)
		}
	}()
	mux.Handle(pattern, http.NotFoundHandler())
	return nil
}

// checkRouteUpstream checks that a route has somewhere to go.
func (f *file) checkRouteUpstream(c *Config, r *Route, key string) {
	key += ".upstream"
	names := slices.Sorted(maps.Keys(c.Upstreams))
	_, named := c.Upstreams[r.Upstream]
	switch {
	case named:
	case r.Upstream == "":
		f.reject(key, "want a name from upstreams, or a URL such as http://127.0.0.1:9000", "upstream is missing")
	case strings.Contains(r.Upstream, "://"):
		u, p := baseURL(r.Upstream)
		f.rejectProblem(key, p)
		if p == nil {
			r.Upstream = u.String()
		}
	default:
		hint := didYouMean(r.Upstream, names)
		if hint == "" {
			hint = "want a URL such as http://127.0.0.1:9000, or a name from upstreams: " + strings.Join(names, ", ")
		}
		if len(names) == 0 {
			hint = "want a URL such as http://127.0.0.1:9000; there are no upstreams with a name"
		}
		f.reject(key, hint, "there is no upstream %s", f.quoted(key, r.Upstream))
	}
}

// checkPolicy checks the rules of who may pass.
func (f *file) checkPolicy(r *Route, key string) {
	if r.Public {
		for _, rule := range []string{"scopes", "any_scope", "audience", "clients", "require_user", "nonce", "token_types"} {
			if f.isSet(key + "." + rule) {
				f.reject(key+"."+rule, "leave it out, or public", "a public route asks for no token, so this would do nothing")
			}
		}
	}
	f.checkScopes(key+".scopes", r.Scopes)
	f.checkScopes(key+".any_scope", r.AnyScope)
	for i, audience := range r.Audience {
		f.require(fmt.Sprintf("%s.audience[%d]", key, i), audience)
	}
	for i, client := range r.Clients {
		if !isUUID(client) {
			f.rejectProblem(fmt.Sprintf("%s.clients[%d]", key, i),
				&problem{"is not a UUID", "want a client_id such as 6f1c2b1e-8f1e-4a8e-9d59-0a9a3f0c2b11"})
		}
		r.Clients[i] = strings.ToLower(client)
	}
	f.checkNoRepeats(key+".clients", r.Clients)
	f.checkNoRepeats(key+".token_types", r.TokenTypes)
	if len(r.TokenTypes) == 0 {
		f.reject(key+".token_types", "leave it out for DPoP alone", "no token type, so no token could pass")
	}
}

// checkScopes holds scopes to the scope-token rule of RFC 6749, appendix A.4.
func (f *file) checkScopes(key string, scopes []string) {
	bad := func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }
	for i, scope := range scopes {
		if scope == "" || strings.ContainsFunc(scope, bad) {
			hint := `want printable ASCII without spaces, " and \`
			if strings.Contains(scope, " ") {
				hint = "one scope for each list item"
			}
			f.rejectProblem(fmt.Sprintf("%s[%d]", key, i), &problem{"is not a scope", hint})
		}
	}
	f.checkNoRepeats(key, scopes)
}

// isUUID takes the 36 characters of RFC 9562 §4, and no other spelling.
func isUUID(s string) bool {
	for i, r := range s {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		hex := '0' <= r && r <= '9' || 'a' <= r && r <= 'f' || 'A' <= r && r <= 'F'
		if dash != (r == '-') || !dash && !hex {
			return false
		}
	}
	return len(s) == 36
}

func (f *file) checkRateLimit(l *RateLimit, key string) {
	if l == nil {
		return
	}
	if l.Per == "" {
		f.reject(key+".per", "want subject, client, token or ip", "per is missing")
	}
	if l.Requests < 1 {
		f.reject(key+".requests", "want 1 or more", "no request would be let through")
	}
	f.checkDuration(key+".window", l.Window, 1, Duration(1<<63-1))
}

func (f *file) checkCORS(c *CORS, key string) {
	if c == nil {
		return
	}
	key += ".origins"
	if len(c.Origins) == 0 {
		f.reject(key, "want a list such as [https://app.example.com]", "no origin")
	}
	for i, origin := range c.Origins {
		if origin == "*" {
			continue
		}
		u, p := baseURL(origin)
		if p == nil && u.Path != "" {
			p = &problem{"has a path", "an origin is scheme://host[:port]"}
		}
		f.rejectProblem(fmt.Sprintf("%s[%d]", key, i), p)
		if p == nil {
			c.Origins[i] = u.String()
		}
	}
}

package config

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

func (f *file) checkRoutes(c *Config) {
	if len(c.Routes) == 0 {
		f.reject("routes", "want a list with a match and an upstream each", "no route, so every request would be 404")
	}
	patterns := newPatternSet()
	for i := range c.Routes {
		if f.full() {
			return
		}
		r, key := &c.Routes[i], fmt.Sprintf("routes[%d]", i)
		if r.Match == "" {
			f.reject(key+".match", "want a pattern such as GET /orders/", "missing")
		} else if p := f.checkMatch(c, r, key, patterns); p != nil {
			f.rejectProblem(key+".match", p)
		}
		f.checkRouteUpstream(c, r, key)
		f.checkPolicy(r, key)
		f.checkRateLimit(r, key+".rate_limit")
		f.checkCORS(r.CORS, key+".cors")
	}
}

// checkMatch checks a pattern by itself, then against those before it.
func (f *file) checkMatch(c *Config, r *Route, key string, patterns *patternSet) *problem {
	method, host, path := splitPattern(r.Match)
	if p := f.methodProblem(key+".match", method); p != nil {
		return p
	}
	if p := patternPathProblem(path); p != nil {
		return p
	}
	if host != "" {
		if p := f.patternHostProblem(host, c.PublicURLs); p != nil {
			return p
		}
	}
	if r.StripPrefix != "" {
		f.rejectProblem(key+".strip_prefix", stripProblem(r.StripPrefix, path))
	}
	rival, err := patterns.add(r.Match, key+".match")
	switch {
	case err != nil:
		return f.withHint(key+".match", problem{"is no pattern", "want [METHOD ][HOST]/PATH, such as GET /orders/{id}"}, err.Error())
	case rival != "":
		f.reject(key+".match", "make one of them more specific",
			"both this and %s match some requests, and neither is more specific", f.where(rival))
	}
	return nil
}

// splitPattern takes a ServeMux pattern, "[METHOD ][HOST]/PATH", apart. ServeMux would take more white space than the
// one space, which only hides slips.
func splitPattern(pattern string) (method, host, path string) {
	method, rest, found := strings.Cut(pattern, " ")
	if !found {
		method, rest = "", pattern
	}
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return method, rest[:i], rest[i:]
	}
	return method, rest, ""
}

func (f *file) methodProblem(key, method string) *problem {
	switch {
	case method == "":
		return nil
	case !isToken(method):
		return &problem{"does not begin with a method or a path", "want [METHOD ][HOST]/PATH, such as GET /orders/"}
	case method != strings.ToUpper(method):
		return f.withHint(key, problem{"has a method in lower case, and such requests are refused", "methods are upper case"},
			"did you mean "+strings.ToUpper(method)+"?")
	case method == http.MethodConnect || method == http.MethodTrace:
		return &problem{"has the method CONNECT or TRACE, and such requests are refused", "leave the route out"}
	}
	return nil
}

// patternHostProblem refuses a host that no request can have. A ServeMux pattern has a host without a port.
func (f *file) patternHostProblem(host string, publicURLs []string) *problem {
	var hosts, shown []string
	for i, raw := range publicURLs {
		u, err := url.Parse(raw)
		if err != nil {
			continue
		}
		hosts = append(hosts, u.Hostname())
		if pl := f.places[fmt.Sprintf("public_urls[%d]", i)]; pl != nil && !f.expanded[pl.node] {
			shown = append(shown, u.Hostname())
		}
	}
	switch {
	case strings.ContainsAny(host, " \t"):
		return &problem{"has stray white space", "want one space between method and path, and no other"}
	case strings.Contains(host, ":"):
		return &problem{"has a host with a port or an IPv6 address", "leave the port out; for an IPv6 address, the whole host"}
	case strings.Contains(host, "{"):
		return &problem{"has a wildcard in its host", "wildcards are for path segments"}
	case !slices.Contains(hosts, host):
		hint := didYouMean(host, shown)
		if hint == "" {
			hint = "the hosts there are " + strings.Join(shown, ", ")
		}
		if len(shown) == 0 {
			hint = "want a host of public_urls, or leave it out"
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
		return &problem{"ends in a slash", "leave the last slash out"}
	case literal != prefix && !strings.HasPrefix(literal, prefix+"/"):
		return &problem{"is not how the path of match begins", "want the first segments of match, whole ones, without a wildcard"}
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
	names := slices.Sorted(maps.Keys(c.Upstreams))
	pool, named := c.Upstreams[r.Upstream]
	if r.WebSocket && pool.H2C {
		f.reject(key+".websocket", "leave it out, or h2c of that upstream", "upstreams.%s is h2c, and WebSockets are for HTTP/1.1", r.Upstream)
	}
	key += ".upstream"
	switch {
	case named:
	case r.Upstream == "":
		f.reject(key, "want a name from upstreams, or a URL such as http://127.0.0.1:9000", "missing")
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
		f.rejectProblem(key, &problem{"is not the name of an upstream", hint})
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
	if r.Public && r.Mode == "report" {
		f.reject(key+".mode", "leave it out, or public", "a public route has nothing to report")
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

func (f *file) checkRateLimit(r *Route, key string) {
	l := r.RateLimit
	if l == nil {
		return
	}
	const day = Duration(24 * time.Hour)
	switch {
	case l.Per == "":
		f.reject(key+".per", "want subject, client, token or ip", "missing")
	case r.Public && l.Per != "ip":
		f.reject(key+".per", "want ip, or no public", "a public route asks for no token, so there is no %s to count for", l.Per)
	}
	f.checkDuration(key+".window", l.Window, 1, day)
	switch {
	case l.Requests < 1:
		f.reject(key+".requests", "want 1 or more", "no request would be let through")
	case int64(l.Requests) > l.Window.Std().Microseconds() && l.Window > 0:
		f.reject(key+".requests", "leave the limit out", "more than a million requests a second")
	case float64(l.Burst)/float64(l.Requests)*float64(l.Window) > float64(day):
		f.reject(key+".burst", "want fewer, or more requests in the window", "takes longer than %s to be there again", day)
	}
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

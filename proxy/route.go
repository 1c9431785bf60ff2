package proxy

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/google/uuid"
)

// route is one compiled rule.
type route struct {
	match          string
	public         bool
	schemes        []string // taken, DPoP first
	scopes         []string
	anyScope       []string
	wants          string   // every scope named, for a challenge
	audience       []string // nil: the public URL of the request
	clients        []uuid.UUID
	requireUser    bool
	nonce          dpop.NonceMode
	encodedSlashes bool
	stripPrefix    string
	preserveHost   bool
	webSocket      bool
	maxBody        int64 // bytes; 0: no bound
	cors           *cors
	upstream       *upstream
	limit          *limiter // nil: none
	report         bool     // check, and refuse nothing
}

// ServeHTTP is never called: the route table is asked which handler matches and nothing more. A ServeMux that serves
// would redirect, clean paths and answer 404 and 405 by itself.
func (*route) ServeHTTP(http.ResponseWriter, *http.Request) {
	panic("routes are looked up, not served")
}

// takes says whether credentials of that scheme may pass here.
func (rt *route) takes(scheme string) bool { return slices.Contains(rt.schemes, scheme) }

// allows applies the policy to a token that is otherwise good.
func (rt *route) allows(rec *tokenstore.Record) *refusal {
	for _, scope := range rt.scopes {
		if !slices.Contains(rec.Scopes, scope) {
			return refuseScope(rt, ScopeMissing, "the token lacks the scope "+scope)
		}
	}
	has := func(scope string) bool { return slices.Contains(rec.Scopes, scope) }
	if len(rt.anyScope) > 0 && !slices.ContainsFunc(rt.anyScope, has) {
		return refuseScope(rt, ScopeMissing, "the token has none of the scopes "+strings.Join(rt.anyScope, ", "))
	}
	if len(rt.clients) > 0 && !slices.Contains(rt.clients, rec.ClientID) {
		return refuseScope(rt, ClientRefused, "this route is not for this client")
	}
	if rt.requireUser && !rec.UserID.Valid {
		return refuseScope(rt, UserMissing, "this route is for tokens of a user")
	}
	return nil
}

// serves says whether a token with that audience is good here; one without is good anywhere.
func (rt *route) serves(audience []string, here *origin) bool {
	if audience == nil {
		return true
	}
	served := rt.audience
	if served == nil {
		served = here.audience
	}
	return slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(served, a) })
}

// compileRoute checks what only the whole file can say. Errors name the route.
func compileRoute(c config.Route, defaultNonce string, pools map[string]*upstream) (*route, error) {
	rt := &route{
		match:          c.Match,
		public:         c.Public,
		scopes:         c.Scopes,
		anyScope:       c.AnyScope,
		audience:       c.Audience,
		requireUser:    c.RequireUser,
		nonce:          dpop.NonceMode(cmp.Or(c.Nonce, defaultNonce)),
		encodedSlashes: c.EncodedSlashes,
		stripPrefix:    c.StripPrefix,
		preserveHost:   c.PreserveHost,
		webSocket:      c.WebSocket,
		maxBody:        int64(c.MaxBody),
		cors:           compileCORS(c.CORS),
		report:         c.Mode == "report",
		upstream:       pools[c.Upstream],
	}
	if rt.upstream == nil {
		return nil, fmt.Errorf("route %q: upstream %q is neither a name from upstreams nor a URL", c.Match, c.Upstream)
	}
	wants := slices.Concat(c.Scopes, c.AnyScope)
	rt.wants = strings.Join(slices.Compact(wants), " ")
	for _, scheme := range []string{dpop.SchemeDPoP, dpop.SchemeBearer} {
		if slices.Contains(c.TokenTypes, scheme) {
			rt.schemes = append(rt.schemes, scheme)
		}
	}
	for _, text := range c.Clients {
		id, err := uuid.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("route %q: clients: %q is not a UUID", c.Match, text)
		}
		rt.clients = append(rt.clients, id)
	}
	return rt, nil
}

// register puts a route on the mux, whose panics about patterns are the only way it says no.
func register(mux *http.ServeMux, rt *route) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("route %q: %v", rt.match, p)
		}
	}()
	mux.Handle(rt.match, rt)
	return nil
}

// find looks a request up. Without a route it says which refusal that is.
func (t *table) find(r *http.Request, here *origin) (*route, *refusal) {
	if r.Host != here.host || r.URL.Path == "" {
		probe := *r
		probe.Host = here.host // as the patterns spell it
		if r.URL.Path == "" {  // as an absolute target may have it (RFC 9112 §3.2.2)
			probe.URL = &url.URL{Path: "/"}
		}
		r = &probe
	}
	h, pattern := t.mux.Handler(r)
	if rt, ok := h.(*route); ok {
		return rt, nil
	}
	if pattern == "" { // not the redirect to a path with a slash at its end
		var said allow
		h.ServeHTTP(&said, r)
		if said.status == http.StatusMethodNotAllowed {
			f := refuseRequest(http.StatusMethodNotAllowed, MethodMissing, "no route takes this method on this path")
			f.allow = said.header.Get("Allow")
			return nil, f
		}
	}
	return nil, refuseRequest(http.StatusNotFound, RouteMissing, "no route matches this path")
}

// allow is a ResponseWriter that learns the methods that the mux knows for a path.
type allow struct {
	header http.Header
	status int
}

func (a *allow) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}
func (a *allow) Write(b []byte) (int, error) { return len(b), nil }
func (a *allow) WriteHeader(status int)      { a.status = status }

// RouteInfo describes a route as it is enforced.
type RouteInfo struct {
	Match    string `json:"match"`
	Upstream string `json:"upstream"`
	Access   string `json:"access"` // who may pass, in words
	Mode     string `json:"mode"`   // enforce, report, or public: no token is asked for
	Nonce    string `json:"nonce,omitempty"`
}

// Routes is the route table as enforced, in the order of the file.
func (g *Gateway) Routes() []RouteInfo {
	t := g.table.Load()
	infos := make([]RouteInfo, len(t.routes))
	for i, rt := range t.routes {
		infos[i] = RouteInfo{Match: rt.match, Upstream: rt.upstream.String(), Access: rt.access(), Nonce: string(rt.nonce), Mode: "enforce"}
		switch {
		case rt.public:
			infos[i].Nonce, infos[i].Mode = "", "public"
		case rt.report:
			infos[i].Mode = "report"
		}
	}
	return infos
}

// access says who may pass.
func (rt *route) access() string {
	var limits []string
	if rt.limit != nil {
		limits = append(limits, rt.limit.words())
	}
	if rt.maxBody > 0 {
		limits = append(limits, fmt.Sprintf("bodies up to %s", config.Size(rt.maxBody)))
	}
	if rt.webSocket {
		limits = append(limits, "WebSocket")
	}
	if rt.public {
		return strings.Join(append([]string{"public: anyone, without a token"}, limits...), ", ")
	}
	parts := []string{strings.Join(rt.schemes, " or ") + " token"}
	if len(rt.scopes) > 0 {
		parts = append(parts, "scope "+strings.Join(rt.scopes, " "))
	}
	if len(rt.anyScope) > 0 {
		parts = append(parts, "one of the scopes "+strings.Join(rt.anyScope, " "))
	}
	if rt.audience != nil {
		parts = append(parts, "audience "+strings.Join(rt.audience, " "))
	}
	if len(rt.clients) > 0 {
		parts = append(parts, fmt.Sprintf("%d clients", len(rt.clients)))
	}
	if rt.requireUser {
		parts = append(parts, "a user")
	}
	words := strings.Join(append(parts, limits...), ", ")
	if rt.report {
		return "ANYONE: mode report refuses nothing, and only tells who would lack: " + words
	}
	return words
}

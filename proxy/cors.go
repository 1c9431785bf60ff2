package proxy

import (
	"net/http"
	"slices"
	"strings"

	"github.com/dpopgate/dpopgate/config"
)

// cors is which browser pages of other origins may call a route. No cookies are involved, so a page can do nothing
// here that a program without a browser could not.
type cors struct {
	any     bool
	origins []string
}

func compileCORS(c *config.CORS) *cors {
	if c == nil {
		return nil
	}
	return &cors{any: slices.Contains(c.Origins, "*"), origins: c.Origins}
}

// allows says what Access-Control-Allow-Origin is for a page of that origin; empty when it may not call.
func (c *cors) allows(origin string) string {
	switch {
	case c == nil || origin == "":
		return ""
	case c.any:
		return "*"
	case slices.Contains(c.origins, origin):
		return origin
	}
	return ""
}

// The parts of answers to browsers. Without the exposed names a page cannot see a nonce or a challenge.
const (
	exposed       = "DPoP-Nonce, WWW-Authenticate, X-Request-Id"
	alwaysAllowed = "authorization, dpop"
	preflightAge  = "7200" // seconds: the most that browsers keep
	maxAskedNames = 1024   // bytes of Access-Control-Request-Headers
)

// preflight says which method a request asks about, if it is a CORS preflight (Fetch standard, CORS-preflight fetch).
func preflight(r *http.Request) string {
	if r.Method != http.MethodOptions || r.Header.Get("Origin") == "" {
		return ""
	}
	return r.Header.Get("Access-Control-Request-Method")
}

// locatePreflight finds the route that a preflight asks about and that lets its origin in.
func (x *exchange) locatePreflight(r *http.Request, method string) bool {
	asked := *r
	asked.Method = method
	rt, _ := x.table.find(&asked, x.origin)
	if rt == nil || rt.cors.allows(r.Header.Get("Origin")) == "" {
		return false
	}
	x.route, x.event.Route, x.asked = rt, rt.match, method
	return true
}

// allowOrigin says on every answer of a route, refusals too, that the page that asked may read it.
func (x *exchange) allowOrigin(h http.Header, origin string) {
	if x.route == nil || x.route.cors == nil {
		return
	}
	allowed := x.route.cors.allows(origin)
	if allowed != "*" {
		h.Add("Vary", "Origin")
	}
	if allowed != "" {
		h.Set("Access-Control-Allow-Origin", allowed)
		h.Set("Access-Control-Expose-Headers", exposed)
	}
}

// answerPreflight answers before any authentication: browsers send no credentials with it.
func (x *exchange) answerPreflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Del("Access-Control-Expose-Headers")
	h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
	h.Set("Access-Control-Allow-Methods", x.asked)
	h.Set("Access-Control-Allow-Headers", askedHeaders(r.Header.Get("Access-Control-Request-Headers")))
	h.Set("Access-Control-Max-Age", preflightAge)
	w.WriteHeader(http.StatusNoContent)
}

// askedHeaders is the names that a page wants to send, those of ours first. Names that are none are left out.
func askedHeaders(asked string) string {
	names := []string{alwaysAllowed}
	if len(asked) <= maxAskedNames {
		for name := range strings.SplitSeq(asked, ",") {
			name = strings.ToLower(strings.TrimSpace(name))
			if name != "" && name != "authorization" && name != "dpop" && fold(name) == name {
				names = append(names, name)
			}
		}
	}
	return strings.Join(names, ", ")
}

// ownCORS takes an upstream's own answer to the same question out, so that there is one.
func (x *exchange) ownCORS(h http.Header) {
	if x.route.cors == nil {
		return
	}
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
		}
	}
}

package proxy

import (
	"net/http"
	"net/url"
	"strings"
)

// Locate takes a request through step 1. It says which route it is for and what of its path the upstream would get;
// not ok is a refusal.
func Locate(g *Gateway, r *http.Request) (match, sent string, ok bool) {
	x := &exchange{table: g.table.Load(), o: &g.o, now: g.o.Now()}
	x.from.host = r.Host
	if x.locate(r) != nil || x.route == nil {
		return "", "", false
	}
	return x.route.match, strings.TrimPrefix(x.path, x.route.stripPrefix), true
}

// Match says which route a decoded path is one of, as its pattern reads it; empty is none.
func Match(g *Gateway, method, host, path string) string {
	t := g.table.Load()
	r := &http.Request{Method: method, Host: host, URL: &url.URL{Path: path}}
	if rt, _ := t.find(r, t.here(host)); rt != nil {
		return rt.match
	}
	return ""
}

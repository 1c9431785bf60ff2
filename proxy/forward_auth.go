package proxy

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/dpopgate/dpopgate/dpop"
)

// asking is a kind of proxy that asks for the decision alone: how it describes the request that it has, and what it
// does with an answer. Each loses something else.
type asking struct {
	name    string
	method  string // the field with the request's method; empty: the method of the question is the request's
	uri     string // the field with its target; empty: the target follows the path of the question
	setting string // what the proxy's config lacks when a field is missing
	answer  func(http.ResponseWriter) http.ResponseWriter
	// preflights says that an answer of 204 goes to the client, so that the gate can answer CORS preflights.
	preflights bool
}

// askings by the last segment of the path that they ask at.
var askings = []asking{
	{
		name: "nginx", method: "X-Original-Method", uri: "X-Original-Uri",
		setting: "proxy_set_header X-Original-Method $request_method; proxy_set_header X-Original-URI $request_uri; proxy_set_header X-Forwarded-Host $http_host",
		answer:  func(w http.ResponseWriter) http.ResponseWriter { return &nginxAnswer{ResponseWriter: w} }, preflights: true,
	},
	{
		name: "caddy", method: "X-Forwarded-Method", uri: "X-Forwarded-Uri",
		setting: "header_up X-Forwarded-Method {method} and header_up X-Forwarded-Uri {uri}, which forward_auth sends by itself", preflights: true,
	},
	{
		name: "traefik", method: "X-Forwarded-Method", uri: "X-Forwarded-Uri",
		setting: "the forwardAuth middleware, which sends X-Forwarded-Method, -Uri and -Host by itself; leave authRequestHeaders out",
	},
	{
		name: "haproxy", method: "X-Forwarded-Method", uri: "X-Forwarded-Uri",
		setting: "the Lua action that dpopgate init --for haproxy writes", preflights: true,
	},
	{name: "envoy", preflights: true},
}

// askedBy says which kind of proxy asks, if a request is for the decision alone: only trusted peers can ask.
func (t *table) askedBy(r *http.Request) *asking {
	if t.forwardAuth == "" {
		return nil
	}
	path, _ := rawTarget(r)
	rest, ok := strings.CutPrefix(path, t.forwardAuth+"/")
	if !ok || !t.trusted.trusts(r.RemoteAddr) {
		return nil
	}
	name, after, more := strings.Cut(rest, "/")
	for i := range askings {
		if a := &askings[i]; a.name == name && more == (a.uri == "") && (!more || after != "" || strings.HasSuffix(path, "/")) {
			return a
		}
	}
	return nil
}

// described is the request that a proxy asks about. Its own fields count, once each: what stands twice may be the
// client's.
func (x *exchange) described(a *asking, r *http.Request) (*http.Request, *refusal) {
	method, target := r.Method, ""
	if a.uri == "" {
		x.from.host, x.from.wrong = r.Host, "" // which is the request's own, and the rest may be the client's
		x.event.Host = r.Host
		path, query := rawTarget(r)
		target = strings.TrimPrefix(path, x.table.forwardAuth+"/"+a.name)
		if query != "" {
			target += "?" + query
		}
	} else {
		for name, into := range map[string]*string{a.method: &method, a.uri: &target, "X-Forwarded-Host": new(string)} {
			switch values := r.Header[name]; {
			case len(values) == 0 || len(values) == 1 && values[0] == "":
				f := refuseRequest(http.StatusBadRequest, DescriptionMissing,
					"the proxy does not describe the request in "+name+", its config lacks a line that dpopgate init --for "+a.name+" writes")
				f.err = errors.New(name + " is missing, the config of the proxy needs: " + a.setting)
				return nil, f
			case len(values) > 1:
				return nil, refuseRequest(http.StatusBadRequest, DescriptionRepeated, "the proxy describes the request twice in "+name)
			default:
				*into = values[0]
			}
		}
	}
	if !strings.HasPrefix(target, "/") {
		return nil, refuseRequest(http.StatusBadRequest, TargetAmbiguous, "the target of the request is no path")
	}
	at, err := url.ParseRequestURI(target)
	if err != nil {
		at = &url.URL{} // its path is refused, or its host
	}
	d := &http.Request{
		Method: method, URL: at, RequestURI: target, Host: x.from.host, Header: r.Header,
		Proto: r.Proto, ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor, RemoteAddr: r.RemoteAddr, Body: http.NoBody,
	}
	return d.WithContext(r.Context()), nil
}

// verify answers a proxy that asks for the decision alone: steps 1 to 7 on the request that it describes. 200 lets
// the request through, and its fields are what the upstream is to be told; everything else is for the client.
func (x *exchange) verify(out *counter, a *asking, r *http.Request) {
	x.event.Asker = a.name
	var w http.ResponseWriter = out
	if a.answer != nil {
		w = a.answer(out)
	}
	d, f := x.described(a, r)
	if f == nil {
		x.event.Method = d.Method
		if f = x.decide(d); f == nil {
			f = x.throttle(w.Header())
		}
		f = x.pardon(r.Context(), f)
		x.event.Path = x.path
		x.allowOrigin(w.Header(), r.Header.Get("Origin"))
	}
	switch {
	case f != nil:
	case x.route == nil:
		f = refuseRequest(http.StatusNotFound, RouteMissing, "this document is at the gateway itself")
	case x.asked != "" && !a.preflights:
		f = refuseRequest(http.StatusForbidden, PreflightElsewhere, a.name+" cannot pass the answer on: let it answer CORS preflights by itself, before it asks")
	}
	x.event.Auth = since(x.o.Now(), x.now)
	switch {
	case f != nil:
		x.event.Reason, x.event.Err = f.reason, f.err
		boundBody(out, r)
		x.answer(w, f)
	case x.asked != "":
		x.event.Verdict = Passed
		x.answerPreflight(w, d)
	default:
		x.event.Verdict = Passed
		x.allow(w)
	}
	if n, ok := w.(*nginxAnswer); ok {
		n.finish()
	}
}

// allow answers that a request may pass, with what the upstream is to be told.
func (x *exchange) allow(w http.ResponseWriter) {
	h := w.Header()
	if x.record != nil {
		x.table.identity.set(h, &x.own.identity, x.record, x.token)
		x.assert(h, x.event.Method, x.path)
	}
	x.setNonce(h, http.StatusOK, dpop.NoCode)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
}

// nginxAnswer turns an answer into one that auth_request understands: 200, 401 or 403, as any other status is a 500 to
// it. It passes on neither the body nor most fields, so all of them also stand where auth_request_set can get at them.
type nginxAnswer struct {
	http.ResponseWriter
	status int
	body   []byte
}

// Fields that the config for nginx makes the client's answer of.
const (
	nginxStatus    = "X-Dpopgate-Status"
	nginxChallenge = "X-Dpopgate-Challenge"
	nginxBody      = "X-Dpopgate-Body"
)

func (n *nginxAnswer) WriteHeader(status int) { n.status = status }

func (n *nginxAnswer) Write(b []byte) (int, error) {
	n.body = append(n.body, b...)
	return len(b), nil
}

func (n *nginxAnswer) finish() {
	h := n.Header()
	if n.status == http.StatusOK {
		n.ResponseWriter.WriteHeader(n.status)
		return
	}
	h.Set(nginxStatus, strconv.Itoa(n.status))
	if challenges := h["Www-Authenticate"]; len(challenges) > 0 {
		all := strings.Join(challenges, ", ")
		h.Set("WWW-Authenticate", all) // older ones pass on only the first
		h.Set(nginxChallenge, all)
	}
	if len(n.body) > 0 {
		h.Set(nginxBody, strings.TrimSuffix(string(n.body), "\n"))
	}
	status := n.status
	if status != http.StatusUnauthorized {
		status = http.StatusForbidden
	}
	n.ResponseWriter.WriteHeader(status)
	n.ResponseWriter.Write(n.body)
}

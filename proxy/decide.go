package proxy

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// exchange is one request on its way through the eight steps, and what is known about it so far.
type exchange struct {
	own own

	table *table
	o     *Options
	event Event
	now   time.Time

	from     origination
	origin   *origin
	route    *route
	asked    string // the method that a preflight asks about
	path     string // as it stood in the request line
	query    string
	token    string
	accepted dpop.Accepted
	record   *tokenstore.Record // nil on public routes
	body     received
	target   *target   // that it was sent to, until released
	sent     time.Time // when the request went to the upstream
	answered *http.Response
	out      *counter
	upgrade  bool // to a WebSocket, which is asked for and which the route has
	grpc     bool // it is a call of gRPC
	stream   stream
	tunnels  *tunnels

	suspicion *suspicion // nil: none
	trace     Trace      // nil: nobody follows it
}

// own is memory that each request needs, in one piece with its exchange. Slices of it are values of header fields: written
// once, and never appended to.
type own struct {
	out       counter
	ctx       exchangeContext
	url       url.URL   // of the upstream's request
	id        [1]string // X-Request-Id
	forwarded [3]string // X-Forwarded-For, -Proto, -Host
	identity  [6]string // who calls
}

// decide is steps 1 to 7. Without a refusal the request is a preflight (asked is set), one for the metadata (route is
// not set), or one to forward.
func (x *exchange) decide(r *http.Request) *refusal {
	if f := x.locate(r); f != nil {
		return f
	}
	if x.route == nil || x.asked != "" || x.route.public {
		return nil
	}
	f := x.authenticate(r.Context(), r)
	if f == nil {
		f = x.route.allows(x.record)
	}
	if f != nil {
		f.pardonable = true
	}
	return f
}

// locate is step 1: host, path, method and pattern.
func (x *exchange) locate(r *http.Request) *refusal {
	x.path, x.query = rawTarget(r)
	odd := r.Method == http.MethodConnect || x.path == "*" // targets that are no path (RFC 9112 §3.2.3, §3.2.4)
	if x.origin = x.table.here(x.from.host); x.origin == nil && !odd {
		return refuseRequest(http.StatusMisdirectedRequest, HostUnknown, "this host is not served here")
	}
	if x.from.host == r.Host && !sameServer(r) {
		return refuseRequest(http.StatusMisdirectedRequest, ServerMismatch, "this connection was made to another host")
	}
	words, encodedSlash := ambiguous(x.path)
	if words == "" {
		words = ambiguousQuery(x.query)
	}
	switch {
	case twoHosts(r):
		return refuseRequest(http.StatusBadRequest, TargetAmbiguous, "the request names two hosts")
	case x.from.wrong != "":
		return refuseRequest(http.StatusBadRequest, TargetAmbiguous, x.from.wrong)
	case words != "" && !odd:
		return refuseRequest(http.StatusBadRequest, TargetAmbiguous, words)
	case !odd && decode(x.path) != cmp.Or(r.URL.Path, "/"): // an opaque URI: what is matched would not be what is sent
		return refuseRequest(http.StatusBadRequest, TargetAmbiguous, "the target is a URI without a path")
	case odd || r.Method == http.MethodTrace || !x.table.methods[r.Method]:
		f := refuseRequest(http.StatusMethodNotAllowed, MethodRefused, "this method is not served here")
		f.allow = strings.Join(httpMethods, ", ")
		return f
	case x.isMetadata(r.Method), x.asksForKeys(r.Method):
		return nil
	}
	if method := preflight(r); method != "" && x.table.methods[method] && x.locatePreflight(r, method) {
		return nil
	}
	rt, f := x.table.find(r, x.origin)
	switch {
	case encodedSlash && (rt == nil || !rt.encodedSlashes):
		return refuseRequest(http.StatusBadRequest, TargetAmbiguous, "the path holds an encoded slash, which is not taken here")
	case f != nil:
		return f
	case !strings.HasPrefix(x.path, rt.stripPrefix):
		return refuseRequest(http.StatusBadRequest, TargetAmbiguous, "the path spells the prefix of its route in another way")
	case !rt.readsAs(x.table, r, x.origin, x.path):
		return refuseRequest(http.StatusBadRequest, TargetAmbiguous, "the path is one of another route to servers that decode it twice, take parameters off its segments, or end it at an encoded delimiter")
	}
	x.route = rt
	x.event.Route = rt.match
	return nil
}

// sameServer says whether a request is for the host that its TLS connection was made to, where the client named one
// (RFC 9110 §7.4): a certificate vouches for that one alone. Clients that share a connection among hosts try again on
// another after 421.
func sameServer(r *http.Request) bool {
	if r.TLS == nil || r.TLS.ServerName == "" {
		return true
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.EqualFold(host, r.TLS.ServerName)
}

func (x *exchange) isMetadata(method string) bool {
	return (x.path == x.origin.metadataPath[0] || x.path == x.origin.metadataPath[1]) &&
		(method == http.MethodGet || method == http.MethodHead)
}

// authenticate is steps 2 to 7 up to the policy: who is this, and is it who the token was given to. The order is
// cheapest first: nothing asks the store for a request that is wrong by itself, and no public-key maths is done for a
// key that no live token is bound to.
func (x *exchange) authenticate(ctx context.Context, r *http.Request) *refusal {
	c, err := dpop.ReadCredentials(r.Header, x.query, x.route.takes)
	x.event.Scheme, x.token = c.Scheme, c.Token
	if err != nil {
		if c.Scheme == dpop.SchemeBearer && c.Token != "" {
			x.suspect(ShownAsBearer, c.Token, nil)
		}
		return refuseProof(dpop.AsError(err))
	}
	var proof *dpop.Proof
	if c.Scheme == dpop.SchemeDPoP {
		checked := x.step(StepCheck)
		if proof, err = x.table.verifier.Parse(c.Proof); err != nil {
			checked(err)
			return refuseProof(dpop.AsError(err))
		}
		x.event.Thumbprint, x.event.Algorithm = proof.Thumbprint, proof.Algorithm
		x.event.Offset = proof.IssuedAt.Sub(x.now)
		x.accepted, err = x.table.verifier.Check(proof, dpop.Request{
			Method: r.Method,
			Target: x.origin.Target(x.path),
			Token:  c.Token,
			Nonce:  x.route.nonce,
			Now:    x.now,
		})
		checked(err)
		if err != nil {
			return refuseProof(dpop.AsError(err))
		}
	}
	rec, f := x.lookup(ctx, tokenstore.Token(c.Token))
	if f != nil {
		return f
	}
	if proof != nil {
		f = x.possess(ctx, proof, rec)
	} else if rec.Bound() {
		x.suspect(ShownAsBearer, c.Token, nil)
		f = refuseToken(TokenBound)
	}
	if f != nil {
		return f
	}
	x.record = rec
	return nil
}

// lookup is step 5: a live token that is good on this route.
func (x *exchange) lookup(ctx context.Context, token tokenstore.Token) (*tokenstore.Record, *refusal) {
	found := x.step(StepLookup)
	rec, err := x.o.Tokens.Lookup(ctx, x.o.Digester.Digest(token))
	if errors.Is(err, tokenstore.ErrNotFound) {
		found(nil)
		return nil, refuseToken(TokenUnknown)
	}
	found(err)
	if err != nil {
		return nil, unavailable(StoreUnavailable, err)
	}
	x.event.TokenID, x.event.ClientID, x.event.UserID = rec.JTI, rec.ClientID, rec.UserID
	switch {
	case rec.Expired(x.now):
		return nil, refuseToken(TokenExpired)
	case !x.route.serves(rec.Audience, x.origin):
		return nil, refuseToken(AudienceMismatch)
	}
	return rec, nil
}

// possess is step 6 and the claim of step 7: the proof is by the key that the token is bound to, and is new.
func (x *exchange) possess(ctx context.Context, proof *dpop.Proof, rec *tokenstore.Record) *refusal {
	if rec.TokenType != tokenstore.DPoP {
		return refuseToken(TokenNotBound)
	}
	if err := dpop.CheckKey(proof, dpop.Thumbprint(rec.DPoPJKT)); err != nil {
		x.suspect(OtherKey, x.token, proof)
		return refuseProof(dpop.AsError(err))
	}
	verified := x.step(StepVerify)
	err := x.table.verifier.VerifySignature(proof)
	verified(err)
	if err != nil {
		return refuseProof(dpop.AsError(err))
	}
	claimed := x.step(StepClaim)
	err = x.table.verifier.Claim(ctx, proof, x.accepted)
	claimed(err)
	if err != nil {
		if e := dpop.AsError(err); e != nil {
			x.suspect(ProofAgain, x.token, proof)
			return refuseProof(e)
		}
		if errors.Is(err, dpop.ErrReplayFull) {
			return unavailable(dpop.ReplayStoreAtLimit, err)
		}
		return unavailable(dpop.ReplayUnavailable, err)
	}
	return nil
}

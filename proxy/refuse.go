package proxy

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/dpopgate/dpopgate/dpop"
)

// The gateway's reasons, beside those of package dpop.
const (
	HostUnknown         dpop.Reason = "host_unknown"         // Host is none of public_urls
	ServerMismatch      dpop.Reason = "server_mismatch"      // the TLS connection was made to another host than Host
	TargetAmbiguous     dpop.Reason = "target_ambiguous"     // two readers could read the path differently
	MethodRefused       dpop.Reason = "method_refused"       // a method that no route names and HTTP APIs do not use
	RouteMissing        dpop.Reason = "route_missing"        // no pattern matches
	MethodMissing       dpop.Reason = "method_missing"       // a pattern matches, but not with this method
	TokenUnknown        dpop.Reason = "token_unknown"        // no row has this digest
	TokenExpired        dpop.Reason = "token_expired"        // its row's expires_at has come
	TokenBound          dpop.Reason = "token_bound"          // bound to a key, but sent as Bearer
	TokenNotBound       dpop.Reason = "token_not_bound"      // stored as Bearer, but sent as DPoP
	AudienceMismatch    dpop.Reason = "audience_mismatch"    // for other resources than this route
	ScopeMissing        dpop.Reason = "scope_missing"        //
	ClientRefused       dpop.Reason = "client_refused"       // not in the route's clients
	UserMissing         dpop.Reason = "user_missing"         // a client-only token where a user is required
	RateLimited         dpop.Reason = "rate_limited"         // more requests than the route's rate_limit
	DescriptionMissing  dpop.Reason = "description_missing"  // a proxy asks without saying about which request
	DescriptionRepeated dpop.Reason = "description_repeated" // or says so twice
	PreflightElsewhere  dpop.Reason = "preflight_elsewhere"  // a preflight, for a proxy that cannot pass its answer on
	StoreUnavailable    dpop.Reason = "store_unavailable"    // the token store cannot answer
	UpstreamDown        dpop.Reason = "upstream_down"        // no connection to it
	UpstreamBroke       dpop.Reason = "upstream_broke"       // it ended the connection before or in its answer
	UpstreamLate        dpop.Reason = "upstream_late"        // no response header within response_timeout
	ClientGone          dpop.Reason = "client_gone"          // the client left before the answer
	ResponseCut         dpop.Reason = "response_cut"         // the answer broke off after its header was sent on
	BodyTooLarge        dpop.Reason = "body_too_large"       // larger than the route's max_body
	RequestBodyLate     dpop.Reason = "request_body_late"    // the client's body came too slowly
	RequestBodyFailed   dpop.Reason = "request_body_failed"  // the client's body was malformed or broke off
)

// tokenWords is all that a client ever learns about a token that is not good here.
const tokenWords = "the token is unknown, expired or revoked"

// refusal is an answer that the gateway gives itself.
type refusal struct {
	status      int
	code        dpop.Code
	reason      dpop.Reason
	description string
	challenge   bool        // with WWW-Authenticate
	scope       string      // what the route wants
	allow       string      // the methods there are
	retryAfter  int64       // seconds; 0 for no Retry-After
	pardonable  bool        // on a route in mode report
	err         error       // what failed inside, for the operator
	compared    *dpop.Error // what was wrong with the proof, for explain
}

// refuseRequest is a refusal that has nothing to do with credentials.
func refuseRequest(status int, reason dpop.Reason, description string) *refusal {
	return &refusal{status: status, reason: reason, description: description}
}

// refuseToken is the one answer for all tokens that are not good here.
func refuseToken(reason dpop.Reason) *refusal {
	return &refusal{status: http.StatusUnauthorized, code: dpop.InvalidToken, reason: reason, description: tokenWords, challenge: true}
}

// refuseProof is the answer for a *dpop.Error.
func refuseProof(e *dpop.Error) *refusal {
	r := &refusal{status: http.StatusUnauthorized, code: e.Code, reason: e.Reason, description: e.Description, challenge: true, compared: e}
	if e.Code == dpop.InvalidRequest {
		r.status = http.StatusBadRequest
	}
	return r
}

// refuseScope is the answer for a token that is good and not enough.
func refuseScope(rt *route, reason dpop.Reason, description string) *refusal {
	return &refusal{status: http.StatusForbidden, code: dpop.InsufficientScope, reason: reason, description: description, challenge: true, scope: rt.wants}
}

// unavailable is the answer while something that has to be asked cannot answer.
func unavailable(reason dpop.Reason, err error) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, reason: reason, description: "the gateway cannot check this request now, try again", retryAfter: 1, err: err}
}

// answer writes a refusal. It is the only function that does.
func (x *exchange) answer(w http.ResponseWriter, f *refusal) {
	h := w.Header()
	if f.challenge {
		x.challenge(h, f)
	}
	if f.allow != "" {
		h.Set("Allow", f.allow)
	}
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(f.retryAfter, 10))
	}
	x.event.Challenged = f.code == dpop.UseNonce
	x.setNonce(h, f.status, f.code)
	h.Set("Cache-Control", "no-store")
	name := string(f.code)
	if name == "" {
		name = string(f.reason)
	}
	description := dpop.Plain(f.description)
	if x.grpc {
		grpcRefusal(h, f.status, name, description)
		w.WriteHeader(f.status)
		return
	}
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	body, _ := json.Marshal(struct { // strings only: cannot fail
		Error       string `json:"error"`
		Description string `json:"error_description"`
		RequestID   string `json:"request_id"`
	}{name, description, x.event.RequestID})
	w.WriteHeader(f.status)
	if x.event.Method != http.MethodHead {
		w.Write(append(body, '\n'))
	}
}

// challenge adds one challenge for each scheme that the route takes. Details go only into that of the scheme that was
// used (RFC 9449 §7.2), and a nonce challenge stands alone: some clients read only one.
func (x *exchange) challenge(h http.Header, f *refusal) {
	used := x.event.Scheme
	for _, scheme := range x.route.schemes {
		c := dpop.Challenge{Scheme: scheme, ResourceMetadata: x.origin.metadataURL}
		if scheme == dpop.SchemeDPoP {
			c.Algs = x.table.algs
		}
		if scheme == used || used == "" || !x.route.takes(used) {
			c.Code, c.Scope = f.code, f.scope
			if f.code != dpop.NoCode {
				c.Description = f.description
			}
		}
		if f.code == dpop.UseNonce && scheme != dpop.SchemeDPoP {
			continue
		}
		h.Add("WWW-Authenticate", c.String())
	}
}

// setNonce puts the one DPoP-Nonce there is on a response (RFC 9449 §8.2, §9). A challenge and a success give the
// current one; an error that is no challenge repeats the one just used, as some clients send a request that failed
// once more when the nonce has changed.
func (x *exchange) setNonce(h http.Header, status int, code dpop.Code) {
	delete(h, "Dpop-Nonce")
	if x.route == nil || x.route.public || x.route.nonce == dpop.NonceOff {
		return
	}
	required := x.route.nonce == dpop.NonceRequired
	used := x.accepted.Nonce
	var nonce string
	switch {
	case code == dpop.UseNonce:
		nonce = x.table.verifier.Nonce(x.now)
	case used == "" && !required:
	case status >= 400 && (required || x.accepted.Renew):
		nonce = used
	case required || x.accepted.Renew:
		nonce = x.table.verifier.Nonce(x.now)
	}
	if nonce == "" {
		return
	}
	h.Set("DPoP-Nonce", nonce)
	if !strings.Contains(h.Get("Cache-Control"), "no-store") {
		h.Set("Cache-Control", "no-store")
	}
}

package proxy

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
)

// Outcome is how a check came out.
type Outcome string

// The outcomes.
const (
	CheckPassed     Outcome = "passed"
	CheckFailed     Outcome = "failed"
	CheckNotReached Outcome = "not reached" // an earlier one failed
	CheckNotNeeded  Outcome = "not needed"  // the route or the scheme does not ask for it
)

// Check is one line of an explanation.
type Check struct {
	Name     string      `json:"check"`
	Outcome  Outcome     `json:"outcome"`
	Reason   dpop.Reason `json:"reason,omitempty"` // of a failed one
	Words    string      `json:"words,omitempty"`  // what the client is told
	Expected string      `json:"expected,omitempty"`
	Found    string      `json:"found,omitempty"` // for the operator: may quote the claims of the proof
}

// check is a check by name and the reasons that it can fail for, in the order in which they run.
type check struct {
	name    string
	needs   need
	reasons []dpop.Reason
}

// need is what makes a check one that runs.
type need int

const (
	always  need = iota
	aToken       // any route that is not public
	aProof       // scheme DPoP
	notHere      // explain leaves it out: it would use something up
)

var checks = []check{
	{"host", always, []dpop.Reason{HostUnknown, ServerMismatch}},
	{"target", always, []dpop.Reason{TargetAmbiguous}},
	{"method", always, []dpop.Reason{MethodRefused}},
	{"route", always, []dpop.Reason{RouteMissing, MethodMissing}},
	{"credentials", aToken, []dpop.Reason{dpop.CredentialsMissing, dpop.CredentialsRepeated, dpop.BearerWithProof, dpop.SchemeUnsupported, dpop.CredentialsMalformed, dpop.TokenInQuery}},
	{"one proof", aProof, []dpop.Reason{dpop.ProofMissing, dpop.ProofRepeated, dpop.ProofTooLarge}},
	{"compact JWS", aProof, []dpop.Reason{dpop.ProofMalformed}},
	{"typ", aProof, []dpop.Reason{dpop.TypMismatch}},
	{"crit", aProof, []dpop.Reason{dpop.CritUnsupported}},
	{"alg", aProof, []dpop.Reason{dpop.AlgUnsupported}},
	{"jwk", aProof, []dpop.Reason{dpop.KeyPrivate, dpop.KeyInvalid, dpop.KeyAlgMismatch}},
	{"claims", aProof, []dpop.Reason{dpop.ClaimMissing, dpop.ClaimMalformed}},
	{"htm", aProof, []dpop.Reason{dpop.HTMMismatch}},
	{"htu", aProof, []dpop.Reason{dpop.HTUMismatch}},
	{"ath", aProof, []dpop.Reason{dpop.ATHMismatch}},
	{"nonce", aProof, []dpop.Reason{dpop.NonceMissing, dpop.NonceUnknown}},
	{"iat", aProof, []dpop.Reason{dpop.IATPast, dpop.IATFuture, dpop.IATBeforeStart}},
	{"exp and nbf", aProof, []dpop.Reason{dpop.ProofExpired, dpop.ProofNotYet}},
	{"token", aToken, []dpop.Reason{StoreUnavailable, TokenUnknown, TokenExpired}},
	{"audience", aToken, []dpop.Reason{AudienceMismatch}},
	{"token type", aToken, []dpop.Reason{TokenBound, TokenNotBound}},
	{"key binding", aProof, []dpop.Reason{dpop.KeyNotBound}},
	{"signature", aProof, []dpop.Reason{dpop.SignatureInvalid}},
	{"single use", notHere, []dpop.Reason{dpop.ProofReplayed, dpop.ReplayUnavailable, dpop.ReplayStoreAtLimit}},
	{"scopes", aToken, []dpop.Reason{ScopeMissing}},
	{"client", aToken, []dpop.Reason{ClientRefused}},
	{"user", aToken, []dpop.Reason{UserMissing}},
	{"size", notHere, []dpop.Reason{BodyTooLarge}},
	{"rate", notHere, []dpop.Reason{RateLimited}},
}

// Explanation is what the gateway would do with a request, check by check.
type Explanation struct {
	Checks  []Check
	Allowed bool      // also when a check failed, on a route in mode report
	Status  int       // of the refusal
	Code    dpop.Code // of the refusal
	Event   Event     // what is known of the request, its proof and its token
}

// Explain takes a request through the checks that ServeHTTP makes, by the same code, as if it had come at the given
// time. Its URL is the one that the client called, prefix included. Explain forwards nothing and uses no proof up:
// whether a proof was used before is left out, and so is the rate.
func (g *Gateway) Explain(ctx context.Context, r *http.Request, at time.Time) Explanation {
	t := *g.table.Load()
	r = r.WithContext(ctx)
	r.RequestURI = r.URL.RequestURI()
	if here := t.here(r.Host); here != nil && strings.HasPrefix(r.RequestURI, here.Prefix()+"/") {
		r.RequestURI = r.RequestURI[len(here.Prefix()):]
		r.URL, _ = url.ParseRequestURI(r.RequestURI) // which is what a server does; a bad one fails at its target
		if r.URL == nil {
			r.URL = &url.URL{}
		}
	}
	v := *t.verifier
	v.Replay, v.Started = unused{}, time.Time{}
	t.verifier = &v
	x := &exchange{table: &t, o: &g.o, now: at}
	x.from.host = r.Host
	f := x.decide(r)
	e := Explanation{Allowed: f == nil || x.pardons(f), Event: x.event}
	failed := len(checks)
	if f != nil {
		e.Status, e.Code = f.status, f.code
		failed = slices.IndexFunc(checks, func(c check) bool { return slices.Contains(c.reasons, f.reason) })
	}
	for i, c := range checks {
		line := Check{Name: c.name, Outcome: CheckPassed}
		switch {
		case i == failed:
			line.Outcome, line.Reason, line.Words = CheckFailed, f.reason, f.description
			if f.compared != nil {
				line.Expected, line.Found = f.compared.Expected, f.compared.Found
			}
		case i > failed:
			line.Outcome = CheckNotReached
		case !x.needed(c.needs):
			line.Outcome = CheckNotNeeded
		}
		e.Checks = append(e.Checks, line)
	}
	return e
}

// needed says whether a check that was passed by was made.
func (x *exchange) needed(n need) bool {
	guarded := x.route != nil && !x.route.public && x.asked == ""
	switch n {
	case aToken:
		return guarded
	case aProof:
		return guarded && x.event.Scheme != dpop.SchemeBearer
	case notHere:
		return false
	}
	return true
}

// unused is a replay store that remembers nothing: explaining a proof must not use it up.
type unused struct{}

func (unused) Claim(context.Context, dpop.ReplayKey, time.Time) (bool, error) { return true, nil }

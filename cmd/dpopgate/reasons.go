package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
)

// lesson is what there is to learn from a reason: what the client got, the usual cause, and what to do about it.
type lesson struct {
	Reason dpop.Reason `json:"reason"`
	Answer string      `json:"answer"` // the status, and the error code of the challenge where there is one
	Cause  string      `json:"cause"`
	Fix    string      `json:"fix"`
}

// chapter is the lessons about one thing.
type chapter struct {
	title   string
	lessons []lesson
}

const (
	badProof  = "401 invalid_dpop_proof"
	badToken  = "401 invalid_token"
	wantNonce = "401 use_dpop_nonce"
	badFields = "400 invalid_request"
	badScope  = "403 insufficient_scope"
)

// chapters have a lesson for each reason that there is, in the order in which the checks run. The page reasons, explain
// and the status page are made from them.
var chapters = []chapter{
	{"The request itself", []lesson{
		{proxy.HostUnknown, "421", "The Host of the request is none of public_urls: the client, or a proxy in front, uses another name or port.", "Call the public URL, add that name to public_urls, or have the proxy in front pass Host on as it came."},
		{proxy.ServerMismatch, "421", "The client used a TLS connection that it had made to another host, as HTTP/2 clients do when a certificate names both.", "Nothing: such clients try again on a connection of their own. If it stays, the client sends another Host than the name it connects to."},
		{proxy.TargetAmbiguous, "400", "The path or the host can be read in two ways: `..`, `//`, an encoded slash or dot, a backslash, a control character, or two hosts.", "Send the path that is meant, in its plain spelling. Where identifiers hold a slash, set encoded_slashes on the route."},
		{proxy.MethodRefused, "405", "The method is none that HTTP APIs use, or not in upper case.", "Use one of the methods in the Allow header of the answer."},
		{proxy.RouteMissing, "404", "No route of the config matches this path. What no route names is not served.", "Check the path, or add a route; dpopgate validate prints those that there are."},
		{proxy.MethodMissing, "405", "A route matches the path, but not with this method.", "Use a method of the Allow header, or add a route with this method, or one without any."},
		{proxy.DescriptionMissing, "400", "A proxy asked for a decision (forward_auth) without the header that says about which request.", "Use the config that dpopgate init --for writes for that proxy."},
		{proxy.DescriptionRepeated, "400", "A proxy asked for a decision and described the request twice in one header.", "Have the proxy set that header, not add to what the client sent."},
		{proxy.PreflightElsewhere, "403", "A CORS preflight came through a proxy that cannot pass the gateway's answer on.", "Let that proxy answer CORS preflights by itself, before it asks the gateway."},
	}},
	{"Credentials", []lesson{
		{dpop.CredentialsMissing, "401", "There is no Authorization header. A token in the query, the body or a cookie is never taken.", "Send `Authorization: DPoP <token>` and `DPoP: <proof>`. Look for a proxy in front that drops Authorization."},
		{dpop.CredentialsRepeated, badFields, "Authorization stands more than once.", "Send it once. Often a client library and a proxy each add one."},
		{dpop.BearerWithProof, badFields, "The scheme is Bearer although a DPoP header is there: a client that signs, and spells the scheme as it always did.", "Write `Authorization: DPoP <token>`."},
		{dpop.SchemeUnsupported, "401", "The route does not take that scheme. Mostly: a client that still sends its token as Bearer.", "Let the client sign (scheme DPoP with a proof). While it cannot, token_types: [DPoP, Bearer] on the route takes tokens that are stored as Bearer."},
		{dpop.CredentialsMalformed, badFields, "What stands in Authorization is not a scheme, one space and one token.", "Look for quotes, line breaks, a word such as `undefined`, or no token at all behind the scheme."},
		{dpop.TokenInQuery, badFields, "There is an access_token in the query beside the Authorization header.", "Leave it out of the URL, where logs keep it."},
	}},
	{"The proof: its form", []lesson{
		{dpop.ProofMissing, badProof, "The scheme is DPoP and there is no DPoP header.", "Sign each request. If the client does, look for a proxy in front that drops unknown headers, or a CORS list without `dpop`."},
		{dpop.ProofRepeated, badProof, "There is more than one DPoP header.", "Send one. Often two layers of a client both sign."},
		{dpop.ProofTooLarge, badProof, "The proof is longer than dpop.max_proof_size.", "Leave certificate chains and claims of your own out of it, or raise the bound."},
		{dpop.ProofMalformed, badProof, "The DPoP header is not a compact JWS of JSON objects in base64url without padding. Sometimes it holds the access token.", "Make it with a JOSE library: header.payload.signature, each base64url. dpopgate proof prints a good one to compare with."},
		{dpop.TypMismatch, badProof, "typ in the header of the proof is not `dpop+jwt`.", "Set it; many libraries write JWT by themselves."},
		{dpop.CritUnsupported, badProof, "The header has crit or b64.", "Leave them out."},
		{dpop.AlgUnsupported, badProof, "alg is none of dpop.algorithms.", "Sign with one that the challenge lists in algs, ES256 best of all."},
		{dpop.KeyPrivate, badProof, "The jwk in the header holds a private or a symmetric member. The key has been sent over the network.", "Make a new key, get tokens for it, and put only its public members into jwk."},
		{dpop.KeyInvalid, badProof, "The jwk is missing or is no safe public key: EC P-256, P-384, P-521, Ed25519, or RSA of 2048 to 4096 bits.", "Let a JOSE library export the public key as JWK; coordinates have their full length, in base64url without padding."},
		{dpop.KeyAlgMismatch, badProof, "The jwk is of another kind than alg needs, such as a P-384 key with ES256.", "Use the alg of that key: ES256 for P-256, ES384 for P-384, ES512 for P-521, EdDSA or Ed25519 for Ed25519."},
		{dpop.ClaimMissing, badProof, "One of jti, htm, htu, iat and ath is not there. Mostly ath, which only requests with a token need.", "Add it. ath is the base64url SHA-256 of the access token."},
		{dpop.ClaimMalformed, badProof, "A claim has another type than the standard says, or is too long: often iat in milliseconds.", "iat is a number of whole seconds since 1970; jti, htm, htu and ath are strings."},
	}},
	{"The proof: what it is for", []lesson{
		{dpop.HTMMismatch, badProof, "htm is not the method of the request, which counts letter case.", "Set it from the request that is sent, in upper case. Proofs are not shared between requests."},
		{dpop.HTUMismatch, badProof, "htu is not the URL that the client called: an internal address, http for https, a prefix or a slash too much or too few.", "Sign the URL as called, without query and fragment. If that is right, public_urls is wrong, or a proxy in front rewrites the path: dpopgate explain shows both sides."},
		{dpop.ATHMismatch, badProof, "ath is of another token than the one beside it: often a proof kept from before a refresh.", "Make the proof from the very token that is sent: base64url, without padding, of SHA-256 of its ASCII."},
		{dpop.NonceMissing, wantNonce, "The route wants proofs with the server's nonce, and this one has none. Each client meets this once.", "Nothing, where the client tries again with the nonce in DPoP-Nonce. Else teach it to (RFC 9449, section 9)."},
		{dpop.NonceUnknown, wantNonce, "The nonce is too old, or of an instance with another dpop.nonce_key.", "Nothing, where the client takes the new one from DPoP-Nonce. If it never ends, give the whole fleet one dpop.nonce_key."},
		{dpop.IATPast, badProof + ", or " + wantNonce, "iat is older than dpop.max_age: the client's clock is slow, or the proof waited in a queue or was kept for several requests.", "Set the client's clock (NTP) and make each proof just before it is sent. With nonce: auto, clients that take nonces are helped by one retry."},
		{dpop.IATFuture, badProof + ", or " + wantNonce, "iat is further ahead than dpop.max_skew: the client's clock is fast, or this server's is slow.", "Set the clock (NTP). If it is so for all clients, look at this server's own: dpopgate doctor."},
		{dpop.IATBeforeStart, badProof + ", or " + wantNonce, "The proof is from before this process started, and with replay: memory nobody knows whether it was used.", "Nothing: it ends seconds after a restart. A shared dpop.replay avoids it."},
		{dpop.ProofExpired, badProof, "The proof has an exp, and that has passed.", "Leave exp out of proofs, or set the client's clock."},
		{dpop.ProofNotYet, badProof, "The proof has an nbf, and that has not come.", "Leave nbf out of proofs, or set the client's clock."},
	}},
	{"The token and its key", []lesson{
		{proxy.TokenUnknown, badToken, "No row of the token table has this digest: the token was revoked, purged, is of another environment, or was never issued.", "Get a new token. If all are unknown, compare store.digest, digest_key and table with what the authorization server writes."},
		{proxy.TokenExpired, badToken, "The token's expires_at has come.", "Refresh the token before that. A stream ends with its token, too."},
		{proxy.AudienceMismatch, badToken, "The token is for other resources than this route.", "Ask for a token with this resource (RFC 8707), or name its audience in the route's audience."},
		{proxy.TokenBound, badToken, "The token is bound to a key and was sent as Bearer. Either the client forgot to sign, or somebody else has the token.", "If the client is known and new, let it sign. If not, revoke the token: dpopgate token revoke --jti."},
		{proxy.TokenNotBound, badToken, "The token is stored as Bearer and was sent with a proof.", "Get a token that is bound to the client's key: the token request wants a DPoP header as well."},
		{dpop.KeyNotBound, badToken, "The proof is by another key than the one that the token is bound to: the client has made itself a new key, or a thief has the token without it.", "Keep the key with the token; a new key needs a new token. If the client did not change, revoke the token."},
		{dpop.SignatureInvalid, badProof, "The signature is not that of the key in the header: a JWS in DER form, the wrong key, or a proof changed on the way.", "Sign with the private half of jwk. ECDSA signatures are r and s side by side, not DER."},
		{dpop.ProofReplayed, badProof, "This key has used this jti before: a proof sent twice, by a client's retry or by somebody who overheard it.", "Make a new proof, with a new random jti, for each request and for each retry."},
	}},
	{"The rules of the route", []lesson{
		{proxy.ScopeMissing, badScope, "The token lacks a scope that the route wants. The challenge names them all.", "Ask the authorization server for those scopes, or change scopes or any_scope of the route."},
		{proxy.ClientRefused, badScope, "The token's client is not in the route's clients.", "Add its client_id there if it is meant to come in."},
		{proxy.UserMissing, badScope, "The route has require_user, and the token is a client's own.", "Use a token that was issued on behalf of a user."},
		{proxy.BodyTooLarge, "413", "The body is larger than the route's max_body.", "Send less, or raise max_body."},
		{proxy.RateLimited, "429", "The caller has had its requests of the route's rate_limit.", "Wait for Retry-After. If honest clients meet it, raise requests or burst, or count per something else."},
	}},
	{"What the gateway itself needs", []lesson{
		{proxy.StoreUnavailable, "503", "The token store did not answer within store.timeout.", "See /readyz?verbose and the log, then run dpopgate doctor. cache.stale_on_error bridges short outages."},
		{dpop.ReplayUnavailable, "503", "The shared replay store did not answer, so nobody knows whether the proof was used.", "See /readyz?verbose and the log, then run dpopgate doctor."},
		{dpop.ReplayStoreAtLimit, "503", "The memory of used proofs is full of proofs that are still good, and none may be forgotten.", "Raise dpop.replay_memory, or shorten dpop.max_age. A flood by one client is what rate_limit is for."},
	}},
	{"The upstream, and connections that end", []lesson{
		{proxy.UpstreamDown, "502", "No target of the upstream could be connected to, or all are found unhealthy.", "Look at the targets in /readyz?verbose, and at what they say at their health path."},
		{proxy.UpstreamBroke, "502", "The upstream ended the connection before its answer was complete, or answered with what is not HTTP.", "See the upstream's own log for that time and request id."},
		{proxy.UpstreamLate, "504", "The upstream sent no response header within response_timeout, or did not take the body.", "Find out why it is slow, or raise response_timeout of that upstream."},
		{proxy.ClientGone, "502", "The client closed the connection before there was an answer, so nobody got this status.", "Nothing, while it is rare. If it is not, the client's timeout is shorter than the upstream takes."},
		{proxy.ResponseCut, "the upstream's own", "The answer broke off after its header had been sent on.", "See the upstream's log. Clients that leave in the middle look the same."},
		{proxy.RequestBodyLate, "408", "The body came slower than 100 bytes a second after its first 30 seconds.", "Nothing, for a client on a broken network. It is also how an attack that ties up connections looks."},
		{proxy.RequestBodyFailed, "400", "The body of the request was malformed or broke off.", "Look at the client's network, and at its Content-Length or chunks."},
	}},
}

// lessonOf is the lesson of a reason.
func lessonOf(reason dpop.Reason) (lesson, bool) {
	for _, c := range chapters {
		for _, l := range c.lessons {
			if l.Reason == reason {
				return l, true
			}
		}
	}
	return lesson{}, false
}

// allLessons are the lessons of all chapters.
func allLessons() []lesson {
	var all []lesson
	for _, c := range chapters {
		all = append(all, c.lessons...)
	}
	return all
}

// printLesson prints one lesson for people.
func printLesson(w io.Writer, l lesson) error {
	_, err := fmt.Fprintf(w, "%s  (%s)\n\n%s\n\n%s\n", l.Reason, l.Answer, wrapped("Cause: ", l.Cause), wrapped("Fix:   ", l.Fix))
	return err
}

// reasonNamed is the lesson of the reason that somebody has typed. Those who typed a part of one, or the error code that a
// client got, are told which reasons those are.
func reasonNamed(text string) (lesson, error) {
	if l, ok := lessonOf(dpop.Reason(text)); ok {
		return l, nil
	}
	var near []string
	for _, l := range allLessons() {
		if strings.Contains(string(l.Reason)+" "+l.Answer, text) {
			near = append(near, string(l.Reason))
		}
	}
	if len(near) == 0 {
		return lesson{}, usagef("--reason: there is no such reason; --reason list prints them all")
	}
	return lesson{}, usagef("--reason: there is no such reason; is it %s?", strings.Join(near, ", "))
}

// reasonsPage is the page reasons. Each reason is a heading, so that its name is its anchor.
func reasonsPage() string {
	var b strings.Builder
	b.WriteString("# Why a request is refused, and what to do\n\n" +
		"A reason is one word of a closed set. It stands in the log, in the metrics and on the status page;\n" +
		"`dpopgate explain --reason WORD` prints what is said here, and `dpopgate explain` finds the reason of a captured\n" +
		"request. Clients are told in `error_description`. The reasons stand in the order in which they are checked.\n")
	for _, c := range chapters {
		fmt.Fprintf(&b, "\n## %s\n", c.title)
		for _, l := range c.lessons {
			fmt.Fprintf(&b, "\n### %s\n\nAnswer: %s. %s\n\n**Fix:** %s\n", l.Reason, l.Answer, l.Cause, l.Fix)
		}
	}
	return b.String()
}

// Package dpop is RFC 9449, Demonstrating Proof of Possession, and nothing else: proofs, thumbprints, nonces and the
// words of refusals, for resource servers and for clients.
//
// A resource server takes these steps, cheapest first:
//
//	c, err := dpop.ReadCredentials(r.Header, r.URL.RawQuery, taken)
//	p, err := verifier.Parse(c.Proof)               // shape: no clock, no state
//	a, err := verifier.Check(p, dpop.Request{…})    // method, URL, token hash, time or nonce
//	err = dpop.CheckKey(p, jkt)                     // jkt is what the token is bound to
//	err = verifier.VerifySignature(p)               // the expensive one, only for keys of live tokens
//	err = verifier.Claim(ctx, p, a)                 // once and never again
//
// Verifier.Authenticate takes them all for a handler of net/http. Every refusal is an *Error with the OAuth code and words for the client.
package dpop

package dpop

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Verifier holds the rules that proofs are checked against. Its fields are set before its first use; after that it
// may be used concurrently. Only Claim touches anything outside.
type Verifier struct {
	Algorithms   Algorithms
	MaxAge       time.Duration // how old an iat may be
	MaxSkew      time.Duration // how far ahead an iat may be
	MaxProofSize int           // in bytes
	Nonces       *Nonces       // needed for the modes other than NonceOff

	// Started is set while used proofs are remembered in this process only. A proof made before it may have been used
	// before a restart, so its iat is not trusted.
	Started time.Time

	// Shorter is the MaxAge that was in force until a moment ago, where it has been raised since.
	Shorter Shorter

	Replay Replay

	// Headers remembers what headers of proofs say; nil: nothing does. It makes no difference but to the time taken.
	Headers Headers
	// Fallback is used where a nonce may be asked for and Replay cannot answer. nil: such a proof cannot be accepted.
	Fallback *Fallback
}

// Shorter is a MaxAge for proofs made until a moment. Replay was told to remember those for that long and no longer, so no
// later rule may take them for longer. The zero value is for none.
type Shorter struct {
	Until  time.Time // the latest iat that was taken when the rule was raised
	MaxAge time.Duration
}

// Raise is what holds from now on for the proofs that v may have accepted, when another Verifier with the same Replay takes
// its place with a MaxAge of maxAge.
func (v *Verifier) Raise(maxAge time.Duration, now time.Time) Shorter {
	if maxAge <= v.MaxAge {
		return v.Shorter
	}
	s := Shorter{now.Add(v.MaxSkew), v.MaxAge}
	if now.Sub(v.Shorter.Until) <= v.MaxAge { // of it some are still taken
		s.MaxAge = min(s.MaxAge, v.Shorter.MaxAge)
	}
	return s
}

// maxAge is how old p's iat may be.
func (v *Verifier) maxAge(p *Proof) time.Duration {
	if p.IssuedAt.After(v.Shorter.Until) {
		return v.MaxAge
	}
	return min(v.MaxAge, v.Shorter.MaxAge)
}

// Fallback is how proofs are accepted while the shared store of used ones cannot answer: each process by itself, with
// nonces that no other takes.
//
// What makes it sound is that where a proof is claimed depends on its nonce alone, which is signed, and never on whether
// the shared store answers just now. A proof with a nonce of this process is claimed in the memory of this process,
// during the outage and after it; every other process refuses it, whatever the nonce mode of the route; and so does this
// process after a restart, having another key. All other proofs are claimed in the shared store or not accepted. So no
// proof has two places in which it could be fresh.
type Fallback struct {
	Nonces *Nonces     // of NewOwnNonces
	Replay Replay      // in the memory of this process
	Away   func() bool // whether the shared store cannot answer now, and so whether Nonces are the ones to give out
}

// Request is what a proof is checked against.
type Request struct {
	Method string
	Target Target
	Token  string
	Nonce  NonceMode
	Now    time.Time
}

// Accepted is what Check learned about a proof that it found nothing wrong with.
type Accepted struct {
	Until time.Time // when no check will pass the proof any more; what Claim needs
	Nonce string    // the nonce that it was accepted by; empty when that was its iat
	Renew bool      // that nonce is past half its life, or of a Fallback that is over

	own     bool // the nonce is one of the Fallback
	askable bool // the client may be asked for a nonce
}

// Parse is Parse with the verifier's algorithms and size limit.
func (v *Verifier) Parse(raw string) (*Proof, error) {
	if len(raw) > v.MaxProofSize {
		return nil, refuse(ProofTooLarge, "the proof is longer than "+strconv.Itoa(v.MaxProofSize)+" bytes")
	}
	return parse(raw, v.Algorithms, v.Headers)
}

// Check compares the claims with the request (RFC 9449 §4.3, points 8 to 12). It is pure. What is left after it: that
// the token is bound to p.Thumbprint, VerifySignature, and Claim, in this order. The error is always an *Error;
// its code is UseNonce when a nonce would help.
func (v *Verifier) Check(p *Proof, r Request) (Accepted, error) {
	if p.HTM != r.Method {
		return Accepted{}, unlike(HTMMismatch, "htm is not the method of the request, which counts letter case", r.Method, p.HTM)
	}
	if part := r.Target.match(p.HTU); part != "" {
		return Accepted{}, unlike(HTUMismatch, "the "+part+" of htu differs, expected "+r.Target.part(part), r.Target.String(), p.HTU)
	}
	if p.ATH == "" {
		return Accepted{}, refuse(ClaimMissing, "the claim ath is missing")
	}
	if !p.ofToken(r.Token) {
		return Accepted{}, unlike(ATHMismatch, "ath is not the base64url SHA-256 of the token", TokenHash(r.Token), p.ATH)
	}
	return v.checkTime(p, r)
}

// checkTime decides by nonce or by iat, never by either of the two: a proof with a nonce is good for as long as the
// nonce is, one without for as long as its iat is. So there is one moment after which it need not be remembered.
func (v *Verifier) checkTime(p *Proof, r Request) (Accepted, error) {
	if v.Fallback != nil && isOwn(p.Nonce) {
		return v.checkOwn(p, r)
	}
	if r.Nonce == NonceRequired && p.Nonce == "" {
		return Accepted{}, v.challenge(NonceMissing, "a nonce is required here, use the one in DPoP-Nonce")
	}
	if r.Nonce != NonceOff && p.Nonce != "" {
		until, old, ok := v.Nonces.check(p.Nonce, r.Now)
		if !ok {
			return Accepted{}, v.challenge(NonceUnknown, "the nonce is not one of ours or too old, use the one in DPoP-Nonce")
		}
		// The client's clock may be anything, so its other times are compared with its own.
		if err := v.checkLife(p, p.IssuedAt); err != nil {
			return Accepted{}, err
		}
		return Accepted{Until: until.Add(v.MaxSkew), Nonce: p.Nonce, Renew: old, askable: true}, nil
	}
	if err := v.checkIssued(p, r.Now); err != nil {
		if r.Nonce == NonceAuto {
			err.Code = UseNonce
			err.Description += ", or use the nonce in DPoP-Nonce"
		}
		return Accepted{}, err
	}
	if err := v.checkLife(p, r.Now); err != nil {
		return Accepted{}, err
	}
	return Accepted{Until: p.IssuedAt.Add(v.MaxAge + v.MaxSkew + time.Second), askable: r.Nonce != NonceOff}, nil
}

// checkOwn is checkTime for a nonce of a Fallback, of this process or another. It comes before all that depends on the
// mode: where nonces are off, the proof of another process would else be judged by its iat, and accepted once more.
func (v *Verifier) checkOwn(p *Proof, r Request) (Accepted, error) {
	until, old, ok := v.Fallback.Nonces.check(p.Nonce, r.Now)
	switch {
	case r.Nonce == NonceOff:
		return Accepted{}, refuse(NonceUnknown, "no nonce is taken here")
	case !ok:
		return Accepted{}, v.challenge(NonceUnknown, "the nonce is another server's or too old, use the one in DPoP-Nonce")
	}
	if err := v.checkLife(p, p.IssuedAt); err != nil {
		return Accepted{}, err
	}
	return Accepted{Until: until.Add(v.MaxSkew), Nonce: p.Nonce, Renew: old || !v.Fallback.Away(), own: true}, nil
}

// Nonce is the nonce to give out at now.
func (v *Verifier) Nonce(now time.Time) string {
	if v.Fallback != nil && v.Fallback.Away() {
		return v.Fallback.Nonces.Current(now)
	}
	return v.Nonces.Current(now)
}

// checkIssued applies the window: now-maxAge <= iat <= now+MaxSkew, both ends included. Clients write whole seconds,
// so an age is counted in whole seconds of our clock.
func (v *Verifier) checkIssued(p *Proof, now time.Time) *Error {
	age := now.Truncate(time.Second).Sub(p.IssuedAt) // both within maxTime: cannot wrap, and Sub saturates
	maxAge := v.maxAge(p)
	switch {
	case age > maxAge:
		return unlike(IATPast, fmt.Sprintf("iat is %s ago, at most %s is taken, check the clock", seconds(age), seconds(maxAge)), "at most "+seconds(maxAge)+" ago", seconds(age)+" ago")
	case p.IssuedAt.Sub(now) > v.MaxSkew:
		ahead := p.IssuedAt.Sub(now)
		return unlike(IATFuture, fmt.Sprintf("iat is %s ahead, at most %s is taken, check the clock", seconds(ahead), seconds(v.MaxSkew)), "at most "+seconds(v.MaxSkew)+" ahead", seconds(ahead)+" ahead")
	case p.IssuedAt.Before(v.Started):
		return unlike(IATBeforeStart, "iat is from before this server started", "at or after "+v.Started.UTC().Format(time.RFC3339), p.IssuedAt.UTC().Format(time.RFC3339))
	}
	return nil
}

// checkLife honours exp and nbf where a proof has them (RFC 7519 §4.1.4, §4.1.5), with MaxSkew of tolerance.
func (v *Verifier) checkLife(p *Proof, now time.Time) *Error {
	if !p.Expires.IsZero() && now.Sub(p.Expires) >= v.MaxSkew {
		return unlike(ProofExpired, "exp has passed", "after "+now.UTC().Format(time.RFC3339), p.Expires.UTC().Format(time.RFC3339))
	}
	if !p.NotBefore.IsZero() && p.NotBefore.Sub(now) > v.MaxSkew {
		return unlike(ProofNotYet, "nbf has not come yet", "until "+now.UTC().Format(time.RFC3339), p.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// challenge is a refusal that a nonce would mend.
func (v *Verifier) challenge(r Reason, description string) *Error {
	return &Error{Code: UseNonce, Reason: r, Description: description}
}

// seconds is d as a client's developer would say it. The clock may be off by anything, so it is rounded and bounded.
func seconds(d time.Duration) string {
	if d > 48*time.Hour {
		return "more than 2 days"
	}
	return strconv.FormatInt(int64(d.Round(time.Second)/time.Second), 10) + " s"
}

// CheckKey says whether the proof's key is the one that the token is bound to (RFC 9449 §4.3, point 12), in constant
// time. An empty bound thumbprint fits no key.
func CheckKey(p *Proof, bound Thumbprint) error {
	if !bound.Equal(p.Thumbprint) {
		return unlike(KeyNotBound, "the token is bound to another key", string(bound), string(p.Thumbprint))
	}
	return nil
}

// VerifySignature is p.VerifySignature with the help of what is remembered of p's key. It is called only after CheckKey,
// for a live token: what it finds out about the key is remembered.
func (v *Verifier) VerifySignature(p *Proof) error {
	if p.remembered != nil && p.remembered.Signed(p.signed, p.signature) {
		return nil
	}
	if err := p.VerifySignature(); err != nil {
		return err
	}
	if v.Headers != nil {
		v.Headers.Keep(p.head, p.header, p.signed, p.signature)
	}
	return nil
}

// Claim uses the proof up: it is the last check, and the only one that changes anything. The error is an *Error when
// the proof was used before, and wraps what the replay store said when that cannot tell: with a Fallback it is then an
// *Error all the same, of code UseNonce.
func (v *Verifier) Claim(ctx context.Context, p *Proof, a Accepted) error {
	replay := v.Replay
	if a.own {
		replay = v.Fallback.Replay
	}
	fresh, err := replay.Claim(ctx, p.ReplayKey(), a.Until)
	switch {
	case err != nil && a.askable && v.Fallback != nil && v.Fallback.Away():
		return v.challenge(ReplayUnavailable, "that a proof is new cannot be seen from its jti now, use the nonce in DPoP-Nonce")
	case err != nil:
		return fmt.Errorf("claiming the proof: %w", err)
	case !fresh:
		return refuse(ProofReplayed, "this key has used this jti before, make a new proof for each request")
	}
	return nil
}

// AsError is the *Error in err, or nil.
func AsError(err error) *Error {
	e, _ := errors.AsType[*Error](err)
	return e
}

package dpop

import (
	"net/http"
	"time"
)

// NewVerifier is a Verifier with usual rules: every algorithm but RS384 and RS512, proofs of at most 8 KiB that are at
// most 60 s old and 10 s ahead, and nonces by a random key for clients whose clock is wrong. Who remembers used proofs in
// this process only sets Started as well.
func NewVerifier(replay Replay) *Verifier {
	return &Verifier{
		Algorithms:   Algorithms{ES256, ES384, ES512, EdDSA, Ed25519, PS256, PS384, PS512, RS256},
		MaxAge:       time.Minute,
		MaxSkew:      10 * time.Second,
		MaxProofSize: 8 << 10,
		Nonces:       NewNonces(nil, 5*time.Minute),
		Replay:       replay,
	}
}

// Authenticate takes all steps for a request that a server of net/http got, and returns its token. public is the URL that
// clients use. bound says which key a live token is bound to, an empty thumbprint for a token that is unknown or bound to
// none; it is asked only for proofs with which nothing else is wrong. Without Nonces none is asked for. The error is an
// *Error, or wraps what bound or Replay said when they cannot tell: both are for Refuse.
func (v *Verifier) Authenticate(r *http.Request, public Origin, bound func(token string) (Thumbprint, error)) (token string, err error) {
	c, err := ReadCredentials(r.Header, r.URL.RawQuery, func(scheme string) bool { return scheme == SchemeDPoP })
	if err != nil {
		return "", err
	}
	p, err := v.Parse(c.Proof)
	if err != nil {
		return "", err
	}
	mode := NonceAuto
	if v.Nonces == nil {
		mode = NonceOff
	}
	a, err := v.Check(p, Request{Method: r.Method, Target: public.Target(r.URL.EscapedPath()), Token: c.Token, Nonce: mode, Now: time.Now()})
	if err != nil {
		return "", err
	}
	jkt, err := bound(c.Token)
	switch {
	case err != nil:
		return "", err
	case jkt == "":
		return "", &Error{Code: InvalidToken, Reason: KeyNotBound, Description: "the token is unknown, expired or revoked"}
	}
	if err := CheckKey(p, jkt); err != nil {
		return "", err
	}
	if err := p.VerifySignature(); err != nil {
		return "", err
	}
	if err := v.Claim(r.Context(), p, a); err != nil {
		return "", err
	}
	return c.Token, nil
}

// Refuse answers a request that Authenticate did not let through: 401 or 400 with a challenge (RFC 9449 §7.1), and a nonce
// where one would help; 503 when it could not be told.
func (v *Verifier) Refuse(w http.ResponseWriter, err error) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	e := AsError(err)
	if e == nil {
		h.Set("Retry-After", "1")
		http.Error(w, "this cannot be checked now, try again", http.StatusServiceUnavailable)
		return
	}
	c := Challenge{Scheme: SchemeDPoP, Code: e.Code, Algs: v.Algorithms.String()}
	if e.Code != NoCode {
		c.Description = e.Description
	}
	h.Set("WWW-Authenticate", c.String())
	if e.Code == UseNonce {
		h.Set("DPoP-Nonce", v.Nonces.Current(time.Now()))
	}
	status := http.StatusUnauthorized
	if e.Code == InvalidRequest {
		status = http.StatusBadRequest
	}
	http.Error(w, Plain(e.Description), status)
}

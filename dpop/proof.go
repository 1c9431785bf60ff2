package dpop

import (
	"crypto/sha256"
	"math"
	"strconv"
	"strings"
	"time"
)

// Proof is a DPoP proof (RFC 9449 §4.2) that has the right shape and is not yet believed. It is immutable.
type Proof struct {
	Algorithm  Algorithm
	Thumbprint Thumbprint // of the key in its header
	JTI        string
	HTM        string
	HTU        string
	ATH        string
	IssuedAt   time.Time
	Expires    time.Time // zero without exp
	NotBefore  time.Time // zero without nbf
	Nonce      string    // empty without one; a claimed nonce is never empty

	key       publicKey
	signed    string // what the signature is over: the two segments as they were sent
	signature []byte
}

// proofType is the one value of typ (RFC 9449 §4.2).
const proofType = "dpop+jwt"

// maxJTI bounds jti, in bytes. Only a hash of it is ever kept (RFC 9449 §11.1).
const maxJTI = 512

// maxTime bounds NumericDates, in seconds from 1970: far past any honest clock, and far from where arithmetic on a
// time.Time would wrap.
const maxTime = 1 << 40

// Parse reads a compact JWS (RFC 7515 §7.1) and checks everything that needs neither the request, nor a clock, nor the
// signature: the encoding, the header, the key, the presence and types of the claims. It is pure, and its work is
// bounded by the length of raw, which the caller bounds. The error is always an *Error.
func Parse(raw string, algorithms Algorithms) (*Proof, error) {
	head, rest, ok := strings.Cut(raw, ".")
	body, sig, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || strings.Contains(sig, ".") {
		return nil, refuse(ProofMalformed, "the DPoP header is not one compact JWS of three parts")
	}
	header, err := segment(head)
	if err != nil {
		return nil, refuse(ProofMalformed, "the header of the proof is not a JSON object in base64url")
	}
	p := &Proof{signed: raw[:len(head)+1+len(body)]}
	if err := p.readHeader(header, algorithms); err != nil {
		return nil, err
	}
	claims, err := segment(body)
	if err != nil {
		return nil, refuse(ProofMalformed, "the payload of the proof is not a JSON object in base64url")
	}
	if err := p.readClaims(claims); err != nil {
		return nil, err
	}
	if p.signature, err = decode64(sig); err != nil || len(p.signature) == 0 {
		return nil, refuse(ProofMalformed, "the signature of the proof is not base64url")
	}
	return p, nil
}

// segment decodes one part of the JWS that holds a JSON object.
func segment(s string) (object, error) {
	b, err := decode64(s)
	if err != nil {
		return nil, err
	}
	return parseObject(string(b))
}

// readHeader checks the JOSE header (RFC 9449 §4.3, points 4, 5 and 7). Members it does not know are ignored (§4.2);
// kid, x5c, jku and x5u are among those: the key is the one in jwk and no other.
func (p *Proof) readHeader(o object, algorithms Algorithms) *Error {
	if o.get("typ").string() != proofType {
		return refuse(TypMismatch, "typ is not "+proofType)
	}
	if o.get("crit").kind != kindNone {
		return refuse(CritUnsupported, "crit names extensions, and none is understood")
	}
	if b64 := o.get("b64"); b64.kind != kindNone && b64 != (member{"b64", kindLiteral, "true"}) { // RFC 7797 §7
		return refuse(CritUnsupported, "b64 is not for JWTs")
	}
	p.Algorithm = Algorithm(o.get("alg").string())
	if !algorithms.has(p.Algorithm) || !Known(p.Algorithm) {
		return unlike(AlgUnsupported, "alg is none of "+algorithms.String(), algorithms.String(), string(p.Algorithm))
	}
	jwk := o.get("jwk")
	if jwk.kind != kindObject {
		return refuse(KeyInvalid, "the header has no jwk object")
	}
	var err error
	switch p.key, err = parseJWK(jwk.text); err {
	case nil:
	case errPrivate:
		return refuse(KeyPrivate, err.Error())
	default:
		return refuse(KeyInvalid, "the jwk is not a valid public key: EC P-256, P-384, P-521, OKP Ed25519 or RSA of 2048 to 4096 bits, canonically encoded")
	}
	if want := schemes[p.Algorithm]; p.key.kty != want.kty || p.key.crv != want.crv {
		return unlike(KeyAlgMismatch, "the jwk does not fit alg", strings.TrimSpace(want.kty+" "+want.crv), strings.TrimSpace(p.key.kty+" "+p.key.crv))
	}
	p.Thumbprint = p.key.thumbprint
	return nil
}

// readClaims checks that the claims of RFC 9449 §4.2 are there and of the right types; claims it does not know are
// ignored. Whether ath is required depends on the request, so that is Check's.
func (p *Proof) readClaims(o object) *Error {
	for _, c := range [...]struct {
		name     string
		to       *string
		required bool
	}{{"jti", &p.JTI, true}, {"htm", &p.HTM, true}, {"htu", &p.HTU, true}, {"ath", &p.ATH, false}, {"nonce", &p.Nonce, false}} {
		m := o.get(c.name)
		switch {
		case m.kind == kindNone && c.required:
			return refuse(ClaimMissing, "the claim "+c.name+" is missing")
		case m.kind == kindNone:
		case m.kind != kindString || m.text == "":
			return refuse(ClaimMalformed, "the claim "+c.name+" is not a string with something in it")
		default:
			*c.to = m.text
		}
	}
	if len(p.JTI) > maxJTI {
		return refuse(ClaimMalformed, "the claim jti is longer than "+strconv.Itoa(maxJTI)+" bytes")
	}
	if o.get("iat").kind == kindNone {
		return refuse(ClaimMissing, "the claim iat is missing")
	}
	for _, c := range [...]struct {
		name string
		to   *time.Time
	}{{"iat", &p.IssuedAt}, {"exp", &p.Expires}, {"nbf", &p.NotBefore}} {
		m := o.get(c.name)
		if m.kind == kindNone {
			continue
		}
		t, ok := numericDate(m)
		if !ok {
			return refuse(ClaimMalformed, "the claim "+c.name+" is not a number of seconds since 1970")
		}
		*c.to = t
	}
	return nil
}

// numericDate reads a NumericDate (RFC 7519 §2): a JSON number, fractions and exponents included, to the microsecond.
func numericDate(m member) (time.Time, bool) {
	if m.kind != kindNumber {
		return time.Time{}, false
	}
	f, err := strconv.ParseFloat(m.text, 64)
	if err != nil || math.Abs(f) > maxTime {
		return time.Time{}, false
	}
	sec, frac := math.Modf(f)
	return time.Unix(int64(sec), int64(math.Round(frac*1e6))*1e3), true
}

// VerifySignature says whether the proof is signed by the key in its header (RFC 9449 §4.3, point 6). This is the
// expensive check: binding the key to a live token first keeps strangers from causing it.
func (p *Proof) VerifySignature() error {
	if !schemes[p.Algorithm].verify(p.key.key, p.signed, p.signature) {
		return refuse(SignatureInvalid, "the signature is not that of the key in the header")
	}
	return nil
}

// ReplayKey is what a used proof is remembered by: SHA-256 over (jkt, jti). Not the text of the proof, which has many
// spellings for one signature, and not jti alone, with which one client could burn another's (RFC 9449 §11.1).
func (p *Proof) ReplayKey() ReplayKey {
	return sha256.Sum256([]byte(string(p.Thumbprint) + "." + p.JTI)) // a thumbprint is 43 characters: no ambiguity
}

// TokenHash is the ath of a token: base64url of the SHA-256 of its text (RFC 9449 §4.2).
func TokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return encode64(sum[:])
}

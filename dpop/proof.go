package dpop

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
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

	header     *Header
	remembered Remembered // where the header comes from; nil: it was read
	head       string     // the header as it was sent
	signed     string     // what the signature is over: the two segments as they were sent
	signature  []byte
	room       [64]byte // for the signature: most have that length
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
func Parse(raw string, algorithms Algorithms) (*Proof, error) { return parse(raw, algorithms, nil) }

// parse is Parse with a memory of headers, which may be nil. It changes nothing but the time that is taken.
func parse(raw string, algorithms Algorithms, headers Headers) (*Proof, error) {
	head, rest, ok := strings.Cut(raw, ".")
	body, sig, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || strings.Contains(sig, ".") {
		return nil, refuse(ProofMalformed, "the DPoP header is not one compact JWS of three parts")
	}
	p := &Proof{head: head, signed: raw[:len(head)+1+len(body)]}
	if err := p.takeHeader(algorithms, headers); err != nil {
		return nil, err
	}
	var room [8]member
	claims, err := segment(body, room[:0])
	if err != nil {
		return nil, refuse(ProofMalformed, "the payload of the proof is not a JSON object in base64url")
	}
	if err := p.readClaims(claims); err != nil {
		return nil, err
	}
	if p.signature, err = appendDecoded64(p.room[:0], sig); err != nil || len(p.signature) == 0 {
		return nil, refuse(ProofMalformed, "the signature of the proof is not base64url")
	}
	return p, nil
}

// takeHeader recalls the header, or reads it. A list of algorithms can change between two proofs.
func (p *Proof) takeHeader(algorithms Algorithms, headers Headers) error {
	if headers != nil {
		p.remembered = headers.Recall(p.head)
	}
	if p.remembered != nil {
		p.header = p.remembered.Header()
		if _, err := algorithms.take(p.header.Algorithm); err != nil {
			return err
		}
	} else {
		var err error
		if p.header, err = readHeader(p.head, algorithms); err != nil {
			return err
		}
	}
	p.Algorithm, p.Thumbprint = p.header.Algorithm, p.header.Thumbprint
	return nil
}

// segment decodes one part of the JWS that holds a JSON object, whose members it puts into room while that lasts.
func segment(s string, room object) (object, error) {
	var buffer [1 << 10]byte // on the stack: what is kept is the text
	b, err := appendDecoded64(buffer[:0], s)
	if err != nil {
		return nil, err
	}
	return parseObject(string(b), room)
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
	if !schemes[p.Algorithm].verify(p.header.key, p.signed, p.signature) {
		return refuse(SignatureInvalid, "the signature is not that of the key in the header")
	}
	return nil
}

// ofToken says whether ath is the hash of token, in constant time.
func (p *Proof) ofToken(token string) bool {
	var text [thumbprintLength]byte // also the length of an ath
	var room [256]byte              // on the stack, which nearly all tokens fit into
	sum := sha256.Sum256(append(room[:0], token...))
	base64.RawURLEncoding.Encode(text[:], sum[:])
	return subtle.ConstantTimeCompare([]byte(p.ATH), text[:]) == 1
}

// ReplayKey is what a used proof is remembered by: SHA-256 over (jkt, jti). Not the text of the proof, which has many
// spellings for one signature, and not jti alone, with which one client could burn another's (RFC 9449 §11.1).
func (p *Proof) ReplayKey() ReplayKey {
	b := make([]byte, 0, thumbprintLength+1+maxJTI) // on the stack
	b = append(b, p.Thumbprint...)                  // of one length: no ambiguity
	b = append(b, '.')
	return sha256.Sum256(append(b, p.JTI...))
}

// TokenHash is the ath of a token: base64url of the SHA-256 of its text (RFC 9449 §4.2).
func TokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return encode64(sum[:])
}

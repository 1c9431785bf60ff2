package dpop

import (
	"crypto"
	"slices"
	"strings"
)

// Header is the protected header of a proof, read and found good (RFC 9449 §4.2). It is immutable, and holds on to
// nothing of what was sent.
type Header struct {
	Algorithm  Algorithm
	Thumbprint Thumbprint // of its key

	key crypto.PublicKey
}

// PublicKey is the key in the header, which fits its algorithm: an *ecdsa.PublicKey, *rsa.PublicKey or
// ed25519.PublicKey. It must not be changed.
func (h *Header) PublicKey() crypto.PublicKey { return h.key }

// Headers is a memory of headers. A client sends the same one, byte for byte, with each of its proofs, so the work of
// reading it, and some of the work of checking signatures by its key, can be done once. It may forget anything at any
// time, and is used concurrently.
type Headers interface {
	// Recall returns what is known about the header that is spelled exactly so in base64url, or nil.
	Recall(text string) Remembered
	// Keep is told of a header each time that a signature by its key had to be verified, and was good. A live token is
	// bound to that key, so a stranger cannot fill the memory. It holds on to none of the texts.
	Keep(text string, h *Header, signed string, signature []byte)
}

// Remembered is a header in a memory.
type Remembered interface {
	Header() *Header
	// Signed says that signature is one of the header's key over signed. False says nothing: it has to be verified.
	Signed(signed string, signature []byte) bool
}

// readHeader checks the JOSE header (RFC 9449 §4.3, points 4, 5 and 7). Members it does not know are ignored (§4.2);
// kid, x5c, jku and x5u are among those: the key is the one in jwk and no other.
func readHeader(text string, algorithms Algorithms) (*Header, error) {
	var room [8]member
	o, err := segment(text, room[:0])
	if err != nil {
		return nil, refuse(ProofMalformed, "the header of the proof is not a JSON object in base64url")
	}
	if o.get("typ").string() != proofType {
		return nil, refuse(TypMismatch, "typ is not "+proofType)
	}
	if o.get("crit").kind != kindNone {
		return nil, refuse(CritUnsupported, "crit names extensions, and none is understood")
	}
	if b64 := o.get("b64"); b64.kind != kindNone && b64 != (member{"b64", kindLiteral, "true"}) { // RFC 7797 §7
		return nil, refuse(CritUnsupported, "b64 is not for JWTs")
	}
	alg, refused := algorithms.take(Algorithm(o.get("alg").string()))
	if refused != nil {
		return nil, refused
	}
	jwk := o.get("jwk")
	if jwk.kind != kindObject {
		return nil, refuse(KeyInvalid, "the header has no jwk object")
	}
	key, err := parseJWK(jwk.text)
	switch err {
	case nil:
	case errPrivate:
		return nil, refuse(KeyPrivate, err.Error())
	default:
		return nil, refuse(KeyInvalid, "the jwk is not a valid public key: EC P-256, P-384, P-521, OKP Ed25519 or RSA of 2048 to 4096 bits, canonically encoded")
	}
	if want := schemes[alg]; key.kty != want.kty || key.crv != want.crv {
		return nil, unlike(KeyAlgMismatch, "the jwk does not fit alg", strings.TrimSpace(want.kty+" "+want.crv), strings.TrimSpace(key.kty+" "+key.crv))
	}
	return &Header{alg, key.thumbprint, key.key}, nil
}

// take is the algorithm of that name, if it is one of the list and can be verified.
func (a Algorithms) take(alg Algorithm) (Algorithm, *Error) {
	i := slices.Index(a, alg)
	if i < 0 || !Known(alg) {
		return "", unlike(AlgUnsupported, "alg is none of "+a.String(), a.String(), string(alg))
	}
	return a[i], nil
}

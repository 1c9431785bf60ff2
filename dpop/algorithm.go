package dpop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha256" // registers SHA-256
	_ "crypto/sha512" // registers SHA-384 and SHA-512
	"math/big"
	"strings"
)

// Algorithm is the name of a JWS signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2).
type Algorithm string

// The algorithms that can be verified. MACs and none are not among them and cannot be configured (RFC 9449 §11.6).
const (
	ES256   Algorithm = "ES256"
	ES384   Algorithm = "ES384"
	ES512   Algorithm = "ES512"
	EdDSA   Algorithm = "EdDSA"   // with an Ed25519 key
	Ed25519 Algorithm = "Ed25519" // the fully-specified name of the same
	PS256   Algorithm = "PS256"
	PS384   Algorithm = "PS384"
	PS512   Algorithm = "PS512"
	RS256   Algorithm = "RS256"
	RS384   Algorithm = "RS384"
	RS512   Algorithm = "RS512"
)

// scheme is what an algorithm needs of a key and how it signs.
type scheme struct {
	kty, crv string
	hash     crypto.Hash
	pss      bool
	size     int // of an ECDSA half, in bytes
}

var schemes = map[Algorithm]scheme{
	ES256:   {kty: "EC", crv: "P-256", hash: crypto.SHA256, size: 32},
	ES384:   {kty: "EC", crv: "P-384", hash: crypto.SHA384, size: 48},
	ES512:   {kty: "EC", crv: "P-521", hash: crypto.SHA512, size: 66},
	EdDSA:   {kty: "OKP", crv: "Ed25519"},
	Ed25519: {kty: "OKP", crv: "Ed25519"},
	PS256:   {kty: "RSA", hash: crypto.SHA256, pss: true},
	PS384:   {kty: "RSA", hash: crypto.SHA384, pss: true},
	PS512:   {kty: "RSA", hash: crypto.SHA512, pss: true},
	RS256:   {kty: "RSA", hash: crypto.SHA256},
	RS384:   {kty: "RSA", hash: crypto.SHA384},
	RS512:   {kty: "RSA", hash: crypto.SHA512},
}

// Algorithms is the list of algorithms taken, in the order in which challenges and metadata show it.
type Algorithms []Algorithm

// Known says whether alg can be verified at all.
func Known(alg Algorithm) bool {
	_, ok := schemes[alg]
	return ok
}

// String is the list as the algs parameter of a challenge has it (RFC 9449 §7.1).
func (a Algorithms) String() string {
	names := make([]string, len(a))
	for i, alg := range a {
		names[i] = string(alg)
	}
	return strings.Join(names, " ")
}

// verify says whether sig is the signature of signed under alg by key, which fits alg.
// ECDSA signatures are the fixed-length r and s (RFC 7518 §3.4), PSS salts as long as the hash (§3.5).
func (s scheme) verify(key crypto.PublicKey, signed string, sig []byte) bool {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, []byte(signed), sig)
	case *ecdsa.PublicKey:
		if len(sig) != 2*s.size {
			return false
		}
		r, t := new(big.Int).SetBytes(sig[:s.size]), new(big.Int).SetBytes(sig[s.size:])
		return ecdsa.Verify(key, s.sum(signed), r, t)
	case *rsa.PublicKey:
		if s.pss {
			return rsa.VerifyPSS(key, s.hash, s.sum(signed), sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(key, s.hash, s.sum(signed), sig) == nil
	}
	return false
}

func (s scheme) sum(signed string) []byte {
	h := s.hash.New()
	h.Write([]byte(signed))
	return h.Sum(nil)
}

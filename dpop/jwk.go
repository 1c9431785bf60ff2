package dpop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"math/big"
)

// Thumbprint is the RFC 7638 thumbprint of a key: the SHA-256 of its required members, in base64url, 43 characters.
type Thumbprint string

const thumbprintLength = 43

// Equal compares in constant time. An empty thumbprint equals nothing, not even itself.
func (t Thumbprint) Equal(o Thumbprint) bool {
	return t != "" && subtle.ConstantTimeCompare([]byte(t), []byte(o)) == 1
}

// Bounds of RSA keys. Smaller ones are unsafe; larger ones, and larger exponents, cost the verifier more than they
// cost whoever sends them (a 16384-bit modulus 6 ms, a 65536-bit one 212 ms, against 0.07 ms for P-256).
const (
	minRSABits     = 2048
	maxRSABits     = 4096
	maxRSAExponent = 1<<24 - 1
)

// privateMembers are the names that make a JWK private or symmetric (RFC 7518 §6.2.2, §6.3.2, §6.4.1; RFC 8037 §2).
// The presence of one is enough: a verifier that only asks its library misses a key with some of them.
var privateMembers = [...]string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

var (
	errPrivate = errors.New("the jwk holds a private member")
	errKey     = errors.New("the jwk is not a public key that is taken here")
)

// publicKey is a key and its thumbprint, both from one parse of one jwk.
type publicKey struct {
	kty, crv   string
	key        crypto.PublicKey
	thumbprint Thumbprint
}

// parseJWK reads a public JWK (RFC 7517). Only canonical encodings pass: coordinates of full length (RFC 7518 §6.2.1.2),
// minimal RSA integers (§6.3.1), strict base64url. So a key has one thumbprint, however that is computed.
func parseJWK(text string) (publicKey, error) {
	o, err := parseObject(text, make(object, 0, 8))
	if err != nil {
		return publicKey{}, errKey
	}
	for _, name := range privateMembers {
		if o.get(name).kind != kindNone {
			return publicKey{}, errPrivate
		}
	}
	k := publicKey{kty: o.get("kty").string(), crv: o.get("crv").string()}
	switch k.kty {
	case "EC":
		k.key, err = ecKey(k.crv, o)
	case "OKP":
		k.key, err = edKey(k.crv, o)
	case "RSA":
		k.crv = ""
		k.key, err = rsaKey(o)
	default:
		err = errKey
	}
	if err != nil {
		return publicKey{}, err
	}
	k.thumbprint = thumbprint(k.kty, k.crv, o)
	return k, nil
}

// string is the text of a string member, and empty for any other.
func (m member) string() string {
	if m.kind != kindString {
		return ""
	}
	return m.text
}

// thumbprint hashes the required members in lexicographic order (RFC 7638 §3.2, RFC 8037 §2). The texts stand as they
// were sent: each has been decoded and found canonical by then, so none can hold a quote or a second spelling.
func thumbprint(kty, crv string, o object) Thumbprint {
	var b []byte
	switch kty {
	case "EC":
		b = append(b, `{"crv":"`+crv+`","kty":"EC","x":"`+o.get("x").text+`","y":"`+o.get("y").text+`"}`...)
	case "OKP":
		b = append(b, `{"crv":"`+crv+`","kty":"OKP","x":"`+o.get("x").text+`"}`...)
	case "RSA":
		b = append(b, `{"e":"`+o.get("e").text+`","kty":"RSA","n":"`+o.get("n").text+`"}`...)
	}
	sum := sha256.Sum256(b)
	return Thumbprint(encode64(sum[:]))
}

func ecKey(crv string, o object) (*ecdsa.PublicKey, error) {
	var curve elliptic.Curve
	switch crv {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	case "P-521":
		curve = elliptic.P521()
	default:
		return nil, errKey
	}
	size := (curve.Params().BitSize + 7) / 8
	x, errX := decode64(o.get("x").string())
	y, errY := decode64(o.get("y").string())
	if errX != nil || errY != nil || len(x) != size || len(y) != size {
		return nil, errKey
	}
	point := make([]byte, 1, 1+2*size)
	point[0] = 4 // uncompressed (SEC 1 §2.3.3)
	key, err := ecdsa.ParseUncompressedPublicKey(curve, append(append(point, x...), y...))
	if err != nil { // not on the curve, or a coordinate past the field
		return nil, errKey
	}
	return key, nil
}

func rsaKey(o object) (*rsa.PublicKey, error) {
	n, errN := decode64(o.get("n").string())
	e, errE := decode64(o.get("e").string())
	if errN != nil || errE != nil || len(n) == 0 || len(e) == 0 || n[0] == 0 || e[0] == 0 || len(n) > maxRSABits/8 || len(e) > 3 {
		return nil, errKey
	}
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(n)}
	for _, b := range e {
		key.E = key.E<<8 | int(b)
	}
	if key.N.BitLen() < minRSABits || key.N.Bit(0) == 0 || key.E < 3 || key.E > maxRSAExponent || key.E&1 == 0 {
		return nil, errKey
	}
	return key, nil
}

func edKey(crv string, o object) (ed25519.PublicKey, error) {
	x, err := decode64(o.get("x").string())
	if crv != "Ed25519" || err != nil || len(x) != ed25519.PublicKeySize || !soundPoint(x) {
		return nil, errKey
	}
	return ed25519.PublicKey(x), nil
}

// soundPoint says whether x is the canonical encoding of a y that is not of small order. Under a key of small order
// one signature is good for any message, and crypto/ed25519 lets such keys pass (RFC 8032 §5.1.7 leaves it open).
func soundPoint(x []byte) bool {
	var y [32]byte
	copy(y[:], x)
	y[31] &= 0x7f // without the sign of the other coordinate
	if y[31] == 0x7f && y[0] >= 0xed {
		high := true
		for _, b := range y[1:31] {
			high = high && b == 0xff
		}
		if high { // y >= p
			return false
		}
	}
	for _, low := range smallOrder {
		if y == low {
			return false
		}
	}
	return true
}

// smallOrder is the y coordinates of the eight points whose order divides 8, little-endian, and p-1 among them.
var smallOrder = [...][32]byte{
	{},  // order 4
	{1}, // the identity
	fromHex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), // order 2
	fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), // order 8
	fromHex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), // order 8
}

func fromHex(s string) (y [32]byte) {
	if n, err := hex.Decode(y[:], []byte(s)); err != nil || n != len(y) {
		panic("a constant of 64 hexadecimal digits")
	}
	return y
}

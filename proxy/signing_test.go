package proxy_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

var hashes = map[jose.SignatureAlgorithm]crypto.Hash{
	"ES256": crypto.SHA256, "ES384": crypto.SHA384, "ES512": crypto.SHA512,
	"PS256": crypto.SHA256, "PS384": crypto.SHA384, "PS512": crypto.SHA512,
	"RS256": crypto.SHA256, "RS384": crypto.SHA384, "RS512": crypto.SHA512,
}

var (
	p256Order       = elliptic.P256().Params().N
	ed25519Order, _ = new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
)

// private is the key itself, which package dpop keeps to itself.
func private(key *dpop.Key) any {
	b, err := key.JWK()
	if err != nil {
		panic(err)
	}
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(b, &jwk); err != nil {
		panic(err)
	}
	return jwk.Key
}

// signText signs any text as the key's algorithm does, without package dpop's own signing.
func signText(key *dpop.Key, text string) []byte {
	alg := jose.SignatureAlgorithm(key.Algorithm())
	if alg == "Ed25519" { // which the library does not know by this name
		return ed25519.Sign(private(key).(ed25519.PrivateKey), []byte(text))
	}
	return joseSign(alg, private(key), text)
}

// joseSign signs by the primitives of the standard library, algorithm by algorithm.
func joseSign(alg jose.SignatureAlgorithm, key any, text string) []byte {
	h := hashes[alg]
	var sum []byte
	if h != 0 {
		d := h.New()
		d.Write([]byte(text))
		sum = d.Sum(nil)
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, sum)
		if err != nil {
			panic(err)
		}
		size := (key.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	case *rsa.PrivateKey:
		var sig []byte
		var err error
		if strings.HasPrefix(string(alg), "PS") {
			sig, err = rsa.SignPSS(rand.Reader, key, h, sum, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			sig, err = rsa.SignPKCS1v15(nil, key, h, sum)
		}
		if err != nil {
			panic(err)
		}
		return sig
	case ed25519.PrivateKey:
		return ed25519.Sign(key, []byte(text))
	}
	panic("no such key")
}

// oddSignatures are signatures that a verifier must not take.
var oddSignatures = map[string]func(p *player, key *dpop.Key, text string, sig []byte) []byte{
	"der": func(_ *player, _ *dpop.Key, _ string, sig []byte) []byte {
		der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])})
		if err != nil {
			panic(err)
		}
		return der
	},
	"short": func(_ *player, _ *dpop.Key, _ string, sig []byte) []byte { return sig[:len(sig)-1] },
	"long":  func(_ *player, _ *dpop.Key, _ string, sig []byte) []byte { return append(sig, 0) },
	"zero":  func(*player, *dpop.Key, string, []byte) []byte { return make([]byte, 64) },
	"r0": func(_ *player, _ *dpop.Key, _ string, sig []byte) []byte {
		return append(make([]byte, 32), sig[32:]...)
	},
	"s0": func(_ *player, _ *dpop.Key, _ string, sig []byte) []byte {
		return append(sig[:32:32], make([]byte, 32)...)
	},
	"rn": func(_ *player, _ *dpop.Key, _ string, sig []byte) []byte {
		return append(p256Order.Bytes(), sig[32:]...)
	},
	"sn": func(_ *player, _ *dpop.Key, _ string, sig []byte) []byte {
		return append(sig[:32:32], p256Order.Bytes()...)
	},
	"r1s1": func(*player, *dpop.Key, string, []byte) []byte {
		one := make([]byte, 64)
		one[31], one[63] = 1, 1
		return one
	},
	"wide": func(_ *player, _ *dpop.Key, _ string, sig []byte) []byte {
		return append(append(sig[:32:32], 0), sig[32:]...)
	},
	"double": func(_ *player, _ *dpop.Key, _ string, sig []byte) []byte { return append(sig, sig...) },
	"hmac-jwk": func(_ *player, key *dpop.Key, text string, _ []byte) []byte {
		return mac([]byte(publicJWK(key)), text)
	},
	"hmac-der": func(_ *player, key *dpop.Key, text string, _ []byte) []byte {
		der, err := x509.MarshalPKIXPublicKey(public(key))
		if err != nil {
			panic(err)
		}
		return mac(der, text)
	},
	"hmac-pem": func(_ *player, key *dpop.Key, text string, _ []byte) []byte {
		der, err := x509.MarshalPKIXPublicKey(public(key))
		if err != nil {
			panic(err)
		}
		return mac(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), text)
	},
	"hmac-point": func(_ *player, key *dpop.Key, text string, _ []byte) []byte {
		point, err := public(key).(*ecdsa.PublicKey).Bytes()
		if err != nil {
			panic(err)
		}
		return mac(point, text)
	},
	"bit-header": func(_ *player, key *dpop.Key, text string, _ []byte) []byte { return signText(key, flipBit(text, 20)) },
	"bit-claims": func(_ *player, key *dpop.Key, text string, _ []byte) []byte {
		return signText(key, flipBit(text, strings.Index(text, ".")+20))
	},
	"pkcs1-sha512": func(_ *player, key *dpop.Key, text string, _ []byte) []byte {
		return joseSign("RS512", private(key), text)
	},
	"pkcs1-bare": func(_ *player, key *dpop.Key, text string, _ []byte) []byte { // no DigestInfo around the hash
		sum := sha256.Sum256([]byte(text))
		sig, err := rsa.SignPKCS1v15(nil, private(key).(*rsa.PrivateKey), 0, sum[:])
		if err != nil {
			panic(err)
		}
		return sig
	},
	"pkcs1-garbage": func(_ *player, key *dpop.Key, text string, _ []byte) []byte { // short padding, and room behind the hash
		k := private(key).(*rsa.PrivateKey)
		sum := sha256.Sum256([]byte(text))
		digestInfo, err := asn1.Marshal(struct {
			Algorithm pkix.AlgorithmIdentifier
			Digest    []byte
		}{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, Parameters: asn1.NullRawValue}, sum[:]})
		if err != nil {
			panic(err)
		}
		block := make([]byte, k.Size())
		copy(block, append([]byte("\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\x00"), digestInfo...))
		m := new(big.Int).SetBytes(block)
		return m.Exp(m, k.D, k.N).FillBytes(block)
	},
	"s-plus-order": func(_ *player, _ *dpop.Key, _ string, sig []byte) []byte { // Ed25519: s and s+L are one number to the group
		half := slices.Clone(sig[32:])
		slices.Reverse(half)
		new(big.Int).Add(new(big.Int).SetBytes(half), ed25519Order).FillBytes(half)
		slices.Reverse(half)
		return append(sig[:32:32], half...)
	},
	"identity": func(*player, *dpop.Key, string, []byte) []byte { // good under a key of small order
		return append([]byte{1}, make([]byte, 63)...)
	},
	"pss-salt-20": func(_ *player, key *dpop.Key, text string, _ []byte) []byte {
		sum := sha256.Sum256([]byte(text))
		sig, err := rsa.SignPSS(rand.Reader, private(key).(*rsa.PrivateKey), hashes["PS256"], sum[:], &rsa.PSSOptions{SaltLength: 20})
		if err != nil {
			panic(err)
		}
		return sig
	},
	"as-rs256": func(_ *player, key *dpop.Key, text string, _ []byte) []byte {
		return joseSign("RS256", private(key), text)
	},
	"as-ps256": func(_ *player, key *dpop.Key, text string, _ []byte) []byte {
		return joseSign("PS256", private(key), text)
	},
}

// flipBit changes one bit of a character of base64url; the result is one, too.
func flipBit(text string, at int) string {
	b := []byte(text)
	for bit := byte(1); ; bit <<= 1 {
		c := b[at] ^ bit
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '-' || c == '_' {
			b[at] = c
			return string(b)
		}
	}
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func public(key *dpop.Key) any { return private(key).(crypto.Signer).Public() }

// challenge is one parsed challenge.
type challenge struct {
	scheme string
	params map[string]string
}

// parseChallenges reads a WWW-Authenticate field as strictly as RFC 9110 §11.2 and RFC 6750 §3 allow: no parameter
// twice, every value quoted and within the allowed characters.
func parseChallenges(t testing.TB, field string) []challenge {
	scheme, rest, _ := strings.Cut(field, " ")
	require.Regexp(t, `^[A-Za-z]+$`, scheme)
	c := challenge{scheme, map[string]string{}}
	for rest != "" {
		name, after, ok := strings.Cut(rest, `="`)
		require.True(t, ok, field)
		require.Regexp(t, `^[a-z_]+$`, name, field)
		value, tail, ok := strings.Cut(after, `"`)
		require.True(t, ok, field)
		require.Regexp(t, `^[\x20-\x21\x23-\x5B\x5D-\x7E]+$`, value, field)
		require.NotContains(t, c.params, name, field)
		c.params[name] = value
		if rest = tail; rest != "" {
			require.True(t, strings.HasPrefix(rest, ", "), field)
			rest = rest[2:]
		}
	}
	return []challenge{c}
}

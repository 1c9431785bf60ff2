package dpop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// Key is a client's private key and the algorithm that it signs with. It never prints itself. It may be used
// concurrently.
type Key struct {
	alg     Algorithm
	private crypto.Signer
	jwk     string // the public half, as it stands in the header of a proof
	public  publicKey
}

// NewKey makes a key for alg: a P-256, P-384 or P-521 key, an Ed25519 key, or an RSA key of 2048 bits.
func NewKey(alg Algorithm) (*Key, error) {
	var private crypto.Signer
	var err error
	switch s := schemes[alg]; {
	case s.crv == "P-256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case s.crv == "P-384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case s.crv == "P-521":
		private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case s.crv == "Ed25519":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	case s.kty == "RSA":
		private, err = rsa.GenerateKey(rand.Reader, minRSABits)
	default:
		return nil, fmt.Errorf("%q is not a signature algorithm for proofs", alg)
	}
	if err != nil {
		return nil, err
	}
	return newKey(alg, private)
}

func newKey(alg Algorithm, private crypto.Signer) (*Key, error) {
	jwk, err := json.Marshal(jose.JSONWebKey{Key: private.Public()})
	if err != nil {
		return nil, fmt.Errorf("writing the public key: %w", err)
	}
	public, err := parseJWK(string(jwk))
	if err != nil {
		return nil, err
	}
	if want := schemes[alg]; public.kty != want.kty || public.crv != want.crv {
		return nil, fmt.Errorf("a key of type %s %s does not sign with %s", public.kty, public.crv, alg)
	}
	return &Key{alg: alg, private: private, jwk: string(jwk), public: public}, nil
}

// ReadKey reads a private key: a JWK, or PEM as PKCS #8, SEC 1 or PKCS #1. Its algorithm is the alg of the JWK, or
// else ES256, ES384, ES512, EdDSA or PS256, as the key's type has it. The error holds nothing of the key.
func ReadKey(data []byte) (*Key, error) {
	key, alg, err := readAny(data)
	if err != nil {
		return nil, err
	}
	private, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("this is a public key: a private one is needed to sign")
	}
	if alg == "" {
		if alg, err = usualAlgorithm(private.Public()); err != nil {
			return nil, err
		}
	}
	return newKey(alg, private)
}

// ReadThumbprint is the RFC 7638 thumbprint of a key, private or public, JWK or PEM.
func ReadThumbprint(data []byte) (Thumbprint, error) {
	key, _, err := readAny(data)
	if err != nil {
		return "", err
	}
	if private, ok := key.(crypto.Signer); ok {
		key = private.Public()
	}
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key})
	if err != nil {
		return "", errors.New("not an EC, OKP or RSA key")
	}
	public, err := parseJWK(string(jwk))
	return public.thumbprint, err
}

func usualAlgorithm(public crypto.PublicKey) (Algorithm, error) {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return ES256, nil
		case elliptic.P384():
			return ES384, nil
		case elliptic.P521():
			return ES512, nil
		}
	case ed25519.PublicKey:
		return EdDSA, nil
	case *rsa.PublicKey:
		return PS256, nil
	}
	return "", errors.New("no signature algorithm for proofs fits this key")
}

func readAny(data []byte) (key any, alg Algorithm, err error) {
	if block, _ := pem.Decode(data); block != nil {
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "PUBLIC KEY":
			key, err = x509.ParsePKIXPublicKey(block.Bytes)
		default:
			err = fmt.Errorf("a PEM block %q, expected PRIVATE KEY, EC PRIVATE KEY, RSA PRIVATE KEY or PUBLIC KEY", block.Type)
		}
		if err != nil {
			return nil, "", fmt.Errorf("reading the PEM key: %w", err)
		}
		return key, "", nil
	}
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(data, &jwk); err != nil || !jwk.Valid() {
		return nil, "", errors.New("neither a JWK nor a PEM key")
	}
	return jwk.Key, Algorithm(jwk.Algorithm), nil
}

// JWK is the private key as JSON, with its algorithm: what ReadKey reads, and a secret.
func (k *Key) JWK() ([]byte, error) {
	return json.Marshal(jose.JSONWebKey{Key: k.private, Algorithm: string(k.alg)})
}

// Thumbprint is what a token is bound to (RFC 9449 §6.1).
func (k *Key) Thumbprint() Thumbprint { return k.public.thumbprint }

// Algorithm is what the key signs with.
func (k *Key) Algorithm() Algorithm { return k.alg }

// Format keeps the key out of whatever prints it.
func (k *Key) Format(s fmt.State, _ rune) { fmt.Fprint(s, "[key]") }

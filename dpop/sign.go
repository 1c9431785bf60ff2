package dpop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"time"
)

// Claims are what a client puts into a proof (RFC 9449 §4.2).
type Claims struct {
	JTI      string    // empty: 96 random bits
	Method   string    // the method of the request
	URL      string    // its URL; by the standard without query and fragment
	IssuedAt time.Time // zero: now
	Token    string    // the access token, for ath; empty: no ath
	Nonce    string    // the server's nonce; empty: none
}

// Sign makes one compact proof.
func (k *Key) Sign(c Claims) (string, error) {
	if c.JTI == "" {
		var b [12]byte
		rand.Read(b[:])
		c.JTI = encode64(b[:])
	}
	if c.IssuedAt.IsZero() {
		c.IssuedAt = time.Now()
	}
	claims := struct {
		JTI   string `json:"jti"`
		HTM   string `json:"htm"`
		HTU   string `json:"htu"`
		IAT   int64  `json:"iat"`
		ATH   string `json:"ath,omitempty"`
		Nonce string `json:"nonce,omitempty"`
	}{JTI: c.JTI, HTM: c.Method, HTU: c.URL, IAT: c.IssuedAt.Unix(), Nonce: c.Nonce}
	if c.Token != "" {
		claims.ATH = TokenHash(c.Token)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("writing the claims: %w", err)
	}
	header := `{"typ":"` + proofType + `","alg":"` + string(k.alg) + `","jwk":` + k.jwk + `}`
	signed := encode64([]byte(header)) + "." + encode64(body)
	sig, err := k.sign(signed)
	if err != nil {
		return "", fmt.Errorf("signing the proof: %w", err)
	}
	return signed + "." + encode64(sig), nil
}

func (k *Key) sign(signed string) ([]byte, error) {
	s := schemes[k.alg]
	switch private := k.private.(type) {
	case *ecdsa.PrivateKey:
		r, t, err := ecdsa.Sign(rand.Reader, private, s.sum(signed))
		if err != nil {
			return nil, err
		}
		sig := make([]byte, 2*s.size)
		r.FillBytes(sig[:s.size])
		t.FillBytes(sig[s.size:])
		return sig, nil
	case *rsa.PrivateKey:
		if s.pss {
			return rsa.SignPSS(rand.Reader, private, s.hash, s.sum(signed), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
		return rsa.SignPKCS1v15(nil, private, s.hash, s.sum(signed))
	default: // Ed25519 signs the text itself
		return private.Sign(rand.Reader, []byte(signed), crypto.Hash(0))
	}
}

package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"

	"github.com/dpopgate/dpopgate/config"
)

// sealOverhead is by how many bytes a sealed value is longer: the nonce and the tag.
const sealOverhead = 12 + 16

// sealer encrypts values with AES-256-GCM, bound to their storage keys, so that one cannot stand in for another. A nil
// sealer leaves them as they are. Its key comes from text by HKDF, which makes any length fit and adds no guesses to make.
type sealer struct{ aead cipher.AEAD }

// newSealer makes the sealer for a key, or nil when that is empty.
func newSealer(key config.Secret) (*sealer, error) {
	if key == "" {
		return nil, nil
	}
	derived, err := hkdf.Key(sha256.New, []byte(key), nil, "dpopgate tls.acme.storage_key", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &sealer{aead}, nil
}

// seal returns what is stored for a value. It is never nil, which a database would take for NULL.
func (s *sealer) seal(name string, value []byte) []byte {
	if s == nil {
		return append([]byte{}, value...)
	}
	return s.aead.Seal(nil, nil, value, []byte(name))
}

var (
	errSealed   = errors.New("it is encrypted: set the tls.acme.storage_key that it was stored with")
	errUnsealed = errors.New("it was stored before tls.acme.storage_key was set: dpopgate migrate encrypts what is there")
	errUnopened = errors.New("it cannot be decrypted: tls.acme.storage_key is not the one that it was stored with, or the row was changed")
)

// open returns the value of what is stored.
func (s *sealer) open(name string, stored []byte, sealed bool) ([]byte, error) {
	switch {
	case s == nil && sealed:
		return nil, errSealed
	case s == nil:
		return stored, nil
	case !sealed:
		return nil, errUnsealed
	}
	value, err := s.aead.Open(nil, nil, stored, []byte(name))
	if err != nil {
		return nil, errUnopened
	}
	return value, nil
}

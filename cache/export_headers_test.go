package cache

import (
	"crypto/ecdsa"
	"encoding/json"

	"github.com/go-jose/go-jose/v4"

	"github.com/dpopgate/dpopgate/dpop"
)

const MaxHeaders = maxHeaders

// HasTable says whether there is a table for a remembered key.
func HasTable(r dpop.Remembered) bool { return r.(*header).table.Load() != nil }

// UsesTables says whether tables are still trusted.
func UsesTables(m *Headers) bool { return m.tables.Load() }

// BreakTable makes a table one that is good for nothing.
func BreakTable(r dpop.Remembered) { r.(*header).table.Store(&keyTable{}) }

// SwapTable makes a table one of another key.
func SwapTable(r dpop.Remembered, key *dpop.Key) {
	r.(*header).table.Store(newKeyTable(&PrivateKey(key).PublicKey))
}

// PrivateKey is an EC key as crypto/ecdsa knows it.
func PrivateKey(key *dpop.Key) *ecdsa.PrivateKey {
	text, err := key.JWK()
	var jwk jose.JSONWebKey
	if err == nil {
		err = json.Unmarshal(text, &jwk)
	}
	if err != nil {
		panic(err)
	}
	return jwk.Key.(*ecdsa.PrivateKey)
}

// KeyTable is a keyTable.
type KeyTable struct{ t *keyTable }

// NewKeyTable makes one.
func NewKeyTable(key *ecdsa.PublicKey) KeyTable { return KeyTable{newKeyTable(key)} }

// Verify is what it says about a signature.
func (k KeyTable) Verify(digest [32]byte, signature []byte) bool {
	return k.t.verify(digest, signature)
}

// Package tokenstore holds the records behind opaque access tokens: Token, Digest, Record, the Store and its backends.
package tokenstore

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
)

// redacted stands for a token wherever one would be printed.
const redacted = "[token]"

// Token is an opaque access token in the clear. It never prints itself: only string(t) gives the text. Three things go
// past its methods, so a Token must not be in an unexported field of a struct that is printed, a key of a map that is
// marshalled to JSON, or an operand of %p (go vet finds the last).
type Token string

// NewToken makes a token of 256 random bits, 43 characters of base64url.
func NewToken() Token {
	var b [32]byte
	rand.Read(b[:])
	return Token(base64.RawURLEncoding.EncodeToString(b[:]))
}

// String, Format, LogValue and MarshalText keep the token out of whatever prints it.
func (Token) String() string { return redacted }

// Format implements fmt.Formatter for every verb.
func (Token) Format(s fmt.State, _ rune) { fmt.Fprint(s, redacted) }

// LogValue implements slog.LogValuer.
func (Token) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler, and so covers JSON.
func (Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Digest is what the table stores of a token. It prints as 64 hexadecimal digits.
type Digest [sha256.Size]byte

// String is the digest in hexadecimal, as psql shows it after \x.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler, and so covers JSON and slog.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Equal compares in constant time.
func (d Digest) Equal(o Digest) bool { return subtle.ConstantTimeCompare(d[:], o[:]) == 1 }

// Digester makes digests. The zero Digester is plain SHA-256; a keyed one is HMAC-SHA-256. It never prints its key and
// is safe for concurrent use.
type Digester struct{ key *[]byte } // a pointer, since %p goes past Format

// NewHMAC is a Digester for HMAC-SHA-256 with a copy of the given key. Any key makes a keyed digester, an empty one
// too; that a key is good enough is for the configuration to say.
func NewHMAC(key []byte) Digester {
	key = bytes.Clone(key)
	return Digester{key: &key}
}

// Format implements fmt.Formatter for every verb.
func (g Digester) Format(s fmt.State, _ rune) {
	if g.key == nil {
		fmt.Fprint(s, "sha256")
		return
	}
	fmt.Fprint(s, "hmac-sha256")
}

// Digest is SHA-256(token) or HMAC-SHA-256(key, token).
func (g Digester) Digest(t Token) Digest {
	if g.key == nil {
		var room [256]byte // on the stack, which nearly all tokens fit into
		return sha256.Sum256(append(room[:0], t...))
	}
	m := hmac.New(sha256.New, *g.key)
	m.Write([]byte(t))
	return Digest(m.Sum(nil))
}

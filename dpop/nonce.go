package dpop

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"strings"
	"time"
)

// NonceMode says when a proof must carry a nonce of ours (RFC 9449 §9).
type NonceMode string

// The nonce modes.
const (
	NonceOff      NonceMode = "off"      // never; a nonce in a proof is an unknown claim, and ignored
	NonceAuto     NonceMode = "auto"     // when its iat cannot be trusted
	NonceRequired NonceMode = "required" // always
)

// Nonces makes and recognises nonces without remembering any: a nonce is a keyed function of a window of time, half a
// lifetime long, and the same for all clients. Whoever has the key takes the nonces of whoever else has it. It is
// safe for concurrent use.
type Nonces struct {
	key  []byte
	half time.Duration
	mark string // that each of them begins with
}

// ownMark begins the nonces that one process alone takes.
const ownMark = "own."

// NewOwnNonces makes nonces that only this process takes, with a random key that nobody else has and that ends with it.
// They are marked, so that a Verifier with a Fallback knows those of other processes for what they are.
func NewOwnNonces(ttl time.Duration) *Nonces {
	n := NewNonces(nil, ttl)
	n.mark = ownMark
	return n
}

// isOwn says whether a nonce is one that a process alone takes, whichever.
func isOwn(nonce string) bool { return strings.HasPrefix(nonce, ownMark) }

// NewNonces makes nonces that are good for between half a ttl and a ttl. An empty key is replaced by a random one,
// so that nobody else's nonces are taken.
func NewNonces(key []byte, ttl time.Duration) *Nonces {
	if len(key) == 0 {
		key = make([]byte, 32)
		rand.Read(key)
	}
	return &Nonces{key: key, half: ttl / 2}
}

// Current is the nonce to give out at now: 32 characters of base64url, unpredictable without the key.
func (n *Nonces) Current(now time.Time) string { return n.at(n.window(now)) }

// window is the number of the window that t is in.
func (n *Nonces) window(t time.Time) int64 { return t.UnixNano() / int64(n.half) }

func (n *Nonces) at(window int64) string {
	m := hmac.New(sha256.New, n.key)
	m.Write([]byte("dpopgate nonce"))
	m.Write(binary.BigEndian.AppendUint64(nil, uint64(window)))
	return n.mark + encode64(m.Sum(nil)[:24])
}

// check says whether nonce is good at now, when it stops being good, and whether it is past half its life. The nonce
// of the next window is taken too: the clock of the instance that gave it may be ahead of ours.
func (n *Nonces) check(nonce string, now time.Time) (until time.Time, old, ok bool) {
	current := n.window(now)
	for _, w := range [...]int64{current, current - 1, current + 1} {
		if subtle.ConstantTimeCompare([]byte(nonce), []byte(n.at(w))) == 1 {
			return time.Unix(0, (w+2)*int64(n.half)), w < current, true
		}
	}
	return time.Time{}, false, false
}

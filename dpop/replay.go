package dpop

import (
	"context"
	"errors"
	"time"
)

// ReplayKey is what a used proof is remembered by: SHA-256 over (jkt, jti).
type ReplayKey [32]byte

// ErrReplayFull says that a replay store holds as many live proofs as it may. Forgetting one would let it in again.
var ErrReplayFull = errors.New("the replay store is full of live proofs")

// Replay remembers used proofs (RFC 9449 §11.1).
type Replay interface {
	// Claim takes k until the given time, after which no proof of that key can be accepted any more. Of any number of
	// calls with the same k before then, on any instance that shares the store, exactly one is told that k is fresh.
	// An error means that the store cannot say, and the proof must be refused; ErrReplayFull is one of them. Claim
	// ends when ctx does. It may be called concurrently.
	Claim(ctx context.Context, k ReplayKey, until time.Time) (fresh bool, err error)
}

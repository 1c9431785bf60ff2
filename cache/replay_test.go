package cache_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
)

// testReplay is the contract of dpop.Replay. Every backend runs it, on the real clock; open gives an empty one each time
// and sees to its end.
func testReplay(t *testing.T, open func(t *testing.T) dpop.Replay) {
	claim := func(t *testing.T, r dpop.Replay, k dpop.ReplayKey, until time.Time) bool {
		t.Helper()
		fresh, err := r.Claim(t.Context(), k, until)
		require.NoError(t, err)
		return fresh
	}
	minute := func() time.Time { return time.Now().Add(time.Minute) }

	t.Run("takes a proof once", func(t *testing.T) {
		r := open(t)
		assert.True(t, claim(t, r, replayKey(1), minute()))
		for range 5 {
			assert.False(t, claim(t, r, replayKey(1), minute()))
		}
	})
	t.Run("tells keys apart", func(t *testing.T) {
		r := open(t)
		for i := range uint64(200) {
			assert.True(t, claim(t, r, replayKey(i), minute()))
		}
		for i := range uint64(200) {
			assert.False(t, claim(t, r, replayKey(i), minute()))
		}
	})
	t.Run("tells keys apart by any byte of their first half", func(t *testing.T) {
		r := open(t)
		k := replayKey(1)
		assert.True(t, claim(t, r, k, minute()))
		for i := range 16 {
			other := k
			other[i] ^= 1
			assert.True(t, claim(t, r, other, minute()), "byte %d", i)
		}
	})
	t.Run("refuses a repeat that claims another end", func(t *testing.T) {
		r := open(t)
		assert.True(t, claim(t, r, replayKey(1), minute()))
		assert.False(t, claim(t, r, replayKey(1), minute().Add(time.Minute)))
		assert.False(t, claim(t, r, replayKey(1), minute().Add(-30*time.Second)))
	})
	t.Run("refuses what has ended", func(t *testing.T) {
		r := open(t)
		assert.False(t, claim(t, r, replayKey(1), time.Now()))
		assert.False(t, claim(t, r, replayKey(1), time.Now().Add(-time.Hour)))
		assert.False(t, claim(t, r, replayKey(1), time.Time{}))
		assert.True(t, claim(t, r, replayKey(1), minute()), "a refused claim takes nothing")
	})
	t.Run("lets one of 200 racers win", func(t *testing.T) {
		r := open(t)
		for round := range uint64(5) {
			var won, failed atomic.Int64
			var group sync.WaitGroup
			start := make(chan struct{})
			until := minute()
			for range 200 {
				group.Go(func() {
					<-start
					switch fresh, err := r.Claim(context.Background(), replayKey(round), until); {
					case err != nil:
						failed.Add(1)
					case fresh:
						won.Add(1)
					}
				})
			}
			close(start)
			group.Wait()
			assert.Zero(t, failed.Load())
			assert.EqualValues(t, 1, won.Load())
		}
	})
}

// replayKey is the n-th of a series of keys.
func replayKey(n uint64) dpop.ReplayKey {
	return sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
}

package cache_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
)

// learned is a Proofs with room for maxBytes that has learned all that p knows.
func learned(p *cache.Proofs, maxBytes int64, c *clock) (*cache.Proofs, error) {
	q := cache.NewProofs(maxBytes, c.now)
	for part := range p.Parts() {
		if err := q.Learn(part); err != nil {
			return nil, err
		}
	}
	return q, nil
}

func TestProofsLearnsWhatAnotherKnows(t *testing.T) {
	c := newClock()
	p := cache.NewProofs(1<<20, c.now)
	until := func(i int) time.Time { return midday.Add(time.Duration(i%90+1) * time.Second) }
	const count = 5000
	for i := range count {
		require.True(t, claim(t, p, uint64(i), until(i)))
	}
	c.advance(30 * time.Second)
	q, err := learned(p, 2<<20, c)
	require.NoError(t, err)
	for i := range count {
		assert.False(t, claim(t, q, uint64(i), until(i)), i)
	}
	assert.True(t, claim(t, q, count, until(89)), "one that nobody has seen")
}

func TestProofsLearnsWhatAnotherHasForgotten(t *testing.T) {
	c := newClock()
	p := cache.NewProofs(1<<20, c.now)
	require.True(t, claim(t, p, 1, midday.Add(time.Minute)))
	c.advance(2 * time.Minute)
	q, err := learned(p, 1<<20, c)
	require.NoError(t, err)
	c.set(midday) // steps back
	assert.False(t, claim(t, q, 1, midday.Add(time.Minute)))
}

func TestProofsSaysWhenThereIsNoRoomToLearn(t *testing.T) {
	c := newClock()
	p := cache.NewProofs(1<<20, c.now)
	for i := range 1000 {
		require.True(t, claim(t, p, uint64(i), midday.Add(time.Minute)))
	}
	_, err := learned(p, 1, c)
	assert.ErrorIs(t, err, dpop.ErrReplayFull)
	assert.Error(t, p.Learn(cache.Memory{Proofs: make([]byte, 21)}))
}

package cache_test

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
)

// clock is a settable clock, in seconds of Unix time. It may be used concurrently.
type clock struct{ nanos atomic.Int64 }

// midday is where the clocks of the tests begin.
var midday = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func newClock() *clock {
	c := new(clock)
	c.set(midday)
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()).UTC() }
func (c *clock) set(t time.Time)         { c.nanos.Store(t.UnixNano()) }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

func TestProofs(t *testing.T) {
	testReplay(t, func(_ testing.TB, now func() time.Time) []dpop.Replay {
		return []dpop.Replay{cache.NewProofs(1<<20, now)}
	})
}

func TestProofsFreesAKeyWhenItsTimeIsOver(t *testing.T) {
	c := newClock()
	p := cache.NewProofs(1<<20, c.now)
	until := c.now().Add(70 * time.Second)
	assert.True(t, claim(t, p, 1, until))

	c.set(until.Add(-time.Nanosecond))
	assert.False(t, claim(t, p, 1, until), "the last moment of its time")
	assert.False(t, claim(t, p, 1, until.Add(time.Minute)))
	c.set(until)
	assert.False(t, claim(t, p, 1, until), "a claim that ends now")
	assert.True(t, claim(t, p, 1, until.Add(time.Minute)), "a new proof with an old jti")
	assert.False(t, claim(t, p, 1, until.Add(time.Minute)))
}

func TestProofsRemembersThroughAPartOfASecond(t *testing.T) {
	c := newClock()
	p := cache.NewProofs(1<<20, c.now)
	until := c.now().Add(1300 * time.Millisecond)
	assert.True(t, claim(t, p, 1, until))
	c.set(until.Add(-time.Nanosecond))
	assert.False(t, claim(t, p, 1, until))
	assert.False(t, claim(t, p, 1, until.Add(time.Nanosecond)))
}

func TestProofsRefusesTimesItCannotKeep(t *testing.T) {
	c := newClock()
	p := cache.NewProofs(1<<20, c.now)
	_, err := p.Claim(t.Context(), replayKey(1), time.Unix(math.MaxUint32+1, 0))
	require.ErrorContains(t, err, "beyond what can be remembered")
	c.set(time.Unix(-1, 0))
	_, err = p.Claim(t.Context(), replayKey(1), midday)
	require.ErrorContains(t, err, "beyond what can be remembered")
}

// attack: 180
func TestProofsSurvivesAClockThatStepsForwardAndBack(t *testing.T) {
	c := newClock()
	p := cache.NewProofs(1<<20, c.now)
	until := c.now().Add(70 * time.Second)
	claimAll(t, p, 0, 1000, until)
	c.advance(time.Hour)
	claimAll(t, p, 1000, 2000, c.now().Add(70*time.Second)) // enough for every shard to forget the first thousand
	c.set(midday.Add(time.Second))
	for i := range uint64(2000) {
		assert.False(t, claim(t, p, i, until))
	}
	assert.True(t, claim(t, p, 3000, until.Add(time.Second)), "honest proofs go on")
}

// attack: 140
func TestProofsRefusesWhenFullAndForgetsNothing(t *testing.T) {
	c := newClock()
	p := cache.NewProofs(1<<20, c.now)
	until := c.now().Add(70 * time.Second)
	taken, refused := 0, 0
	for i := range uint64(p.Stats().Capacity) * 2 {
		switch fresh, err := p.Claim(t.Context(), replayKey(i), until); {
		case err != nil:
			require.ErrorIs(t, err, dpop.ErrReplayFull)
			require.False(t, fresh)
			refused++
		case fresh:
			taken++
		}
	}
	assert.Equal(t, p.Stats().Capacity, taken)
	assert.NotZero(t, refused)
	assert.LessOrEqual(t, p.Stats().Bytes, int64(1<<20))

	again := 0
	for i := range uint64(taken + refused) {
		if fresh, err := p.Claim(t.Context(), replayKey(i), until); err == nil {
			require.False(t, fresh)
			again++
		}
	}
	assert.Equal(t, taken, again, "each proof taken is still known, and still refused as used")

	c.set(until)
	claimAll(t, p, 0, uint64(taken)*9/10, until.Add(time.Minute)) // shards fill a little unevenly
}

func TestProofsMakesRoomAsSoonAsSomethingIsOver(t *testing.T) {
	c := newClock()
	p := cache.NewProofs(0, c.now) // one small table
	start := c.now()
	for i := range uint64(p.Stats().Capacity) {
		require.True(t, claim(t, p, i, start.Add(time.Duration(1+i%2)*time.Minute)))
	}
	c.advance(59 * time.Second)
	assert.False(t, claim(t, p, 0, start.Add(time.Minute)))
	c.advance(time.Second)
	claimAll(t, p, 1000, 1000+uint64(p.Stats().Capacity/2), start.Add(time.Hour))
	_, err := p.Claim(t.Context(), replayKey(2000), start.Add(time.Hour))
	require.ErrorIs(t, err, dpop.ErrReplayFull)
}

// conformance: DOS-08
func TestProofsGivesMemoryBackAfterAFlood(t *testing.T) {
	c := newClock()
	p := cache.NewProofs(16<<20, c.now)
	quiet := p.Stats().Bytes
	claimAll(t, p, 0, 500_000, c.now().Add(70*time.Second))
	flooded := p.Stats().Bytes
	assert.Greater(t, flooded, 20*quiet)
	next := uint64(500_000)
	for range 300 { // five minutes of light traffic
		c.advance(time.Second)
		claimAll(t, p, next, next+10, c.now().Add(70*time.Second))
		next += 10
	}
	assert.Less(t, p.Stats().Bytes, 2*quiet)
	assert.Less(t, p.Stats().Entries, 10*71*2)
}

// With a clock that only goes forward, Proofs is a plain map; whatever the clock does, nothing is taken twice.
func TestProofsAgreesWithAPlainMap(t *testing.T) {
	type proof struct {
		key   uint64
		until time.Time
	}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		steady := seed%2 == 0
		size := int64(1) << (10 + seed%10)
		c := newClock()
		p := cache.NewProofs(size, c.now)
		live := map[uint64]time.Time{}
		taken := map[proof]bool{}
		var old []proof
		full, claims := 0, 20_000
		for range claims {
			switch {
			case r.IntN(20) > 0:
			case steady:
				c.advance(time.Duration(r.IntN(3000)) * time.Millisecond)
			default:
				c.advance(time.Duration(r.IntN(400)-190) * time.Second)
			}
			key := r.Uint64N(4000)
			until := c.now().Truncate(time.Second).Add(time.Duration(r.IntN(75)-3) * time.Second)
			if len(old) > 0 && r.IntN(3) == 0 { // one of the last hundred again
				again := old[max(0, len(old)-1-r.IntN(100))]
				key, until = again.key, again.until
			}
			fresh, err := p.Claim(t.Context(), replayKey(key), until)
			if err != nil {
				require.ErrorIs(t, err, dpop.ErrReplayFull)
				full++
				continue
			}
			if steady {
				want := until.After(c.now()) && !live[key].After(c.now())
				if want != fresh {
					t.Fatalf("seed %d: key %d until %v at %v: fresh %v, want %v", seed, key, until, c.now(), fresh, want)
				}
			}
			if fresh {
				id := proof{key, until}
				if taken[id] {
					t.Fatalf("seed %d: key %d until %v was taken twice", seed, key, until)
				}
				taken[id], live[key] = true, until
				old = append(old, id)
			}
		}
		assert.LessOrEqual(t, p.Stats().Bytes, max(size, 64*20))
		if size > 4000*30 {
			assert.Zero(t, full, "seed %d", seed)
		}
		assert.Greater(t, len(taken), claims/100)
	}
}

// conformance: DOS-08
func TestProofsTakesUnder32BytesEach(t *testing.T) {
	const step, total = 50_000, 1_000_000
	before := heap()
	p := cache.NewProofs(256<<20, nil)
	until := time.Now().Add(time.Hour)
	sum := 0.0
	for n := uint64(step); n <= total; n += step { // at many points, since tables grow by a fifth
		claimAll(t, p, n-step, n, until)
		each := float64(heap()-before) / float64(n)
		assert.Less(t, each, 36.0, "bytes an entry with %d", n)
		t.Logf("%.1f bytes an entry with %d", each, n)
		sum += each
	}
	assert.Less(t, sum*step/total, 32.0, "bytes an entry, on average")
	runtime.KeepAlive(p)
}

func TestProofsClaimsWithoutAllocating(t *testing.T) {
	p := cache.NewProofs(1<<20, nil)
	until := time.Now().Add(time.Hour)
	i := uint64(0)
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		k := dpop.ReplayKey{byte(i), byte(i >> 8), byte(i >> 16)}
		i++
		_, _ = p.Claim(t.Context(), k, until)
	}))
}

func BenchmarkProofsClaim(b *testing.B) {
	c := newClock()
	p := cache.NewProofs(256<<20, c.now)
	var next atomic.Uint64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			n := next.Add(1)
			if n%10_000 == 0 { // 10,000 proofs a second, good for 70 s
				c.advance(time.Second)
			}
			var k dpop.ReplayKey
			k[0], k[1], k[2], k[3], k[4] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24), byte(n>>32)
			if _, err := p.Claim(b.Context(), k, c.now().Add(70*time.Second)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(p.Stats().Bytes)/float64(p.Stats().Entries), "B/entry")
}

// claim claims the n-th key, of which p must know whether it is fresh.
func claim(t *testing.T, p *cache.Proofs, n uint64, until time.Time) bool {
	fresh, err := p.Claim(t.Context(), replayKey(n), until)
	if err != nil {
		t.Fatalf("claiming key %d: %v", n, err)
	}
	return fresh
}

// claimAll claims the keys from and up to to, all of which must be fresh.
func claimAll(t *testing.T, p *cache.Proofs, from, to uint64, until time.Time) {
	t.Helper()
	for n := from; n < to; n++ {
		if !claim(t, p, n, until) {
			t.Fatalf("key %d is not fresh", n)
		}
	}
}

// heap is how many bytes are in use after collecting garbage.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what pools held goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// replayKey is the n-th of a series of keys.
func replayKey(n uint64) dpop.ReplayKey {
	return sha256.Sum256(binary.BigEndian.AppendUint64(nil, n))
}

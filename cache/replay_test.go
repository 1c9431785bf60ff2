package cache_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// patient is a timeout that is never the thing tested, however slow the machine.
const patient = time.Minute

// openReplay opens the instances of one store, on one clock, and sees to their end.
type openReplay func(t testing.TB, now func() time.Time) []dpop.Replay

// replay is a store that some other test may use as well: it has keys of its own. Each claim goes to the next of the
// instances that share it, so that each case is also one of several instances.
type replay struct {
	salt      [16]byte
	instances []dpop.Replay
	next      atomic.Uint64
}

func newReplay(instances ...dpop.Replay) *replay {
	r := &replay{instances: instances}
	rand.Read(r.salt[:])
	return r
}

// key is the n-th of the keys of this test.
func (r *replay) key(n uint64) dpop.ReplayKey {
	return sha256.Sum256(binary.BigEndian.AppendUint64(r.salt[:], n))
}

func (r *replay) Claim(ctx context.Context, k dpop.ReplayKey, until time.Time) (bool, error) {
	return r.instances[r.next.Add(1)%uint64(len(r.instances))].Claim(ctx, k, until)
}

func (r *replay) claim(t testing.TB, k dpop.ReplayKey, until time.Time) bool {
	t.Helper()
	fresh, err := r.Claim(context.Background(), k, until)
	require.NoError(t, err)
	return fresh
}

// testReplay is the contract of dpop.Replay. Every backend runs it.
func testReplay(t *testing.T, open openReplay) {
	minute := func() time.Time { return time.Now().Add(time.Minute) }
	run := func(name string, test func(*testing.T, *replay)) {
		t.Run(name, func(t *testing.T) { test(t, newReplay(open(t, nil)...)) })
	}
	runAt := func(name string, test func(*testing.T, *replay, *clock)) {
		t.Run(name, func(t *testing.T) {
			c := newClock()
			c.set(time.Now()) // the clock of a shared store is the real one
			test(t, newReplay(open(t, c.now)...), c)
		})
	}

	run("takes a proof once", func(t *testing.T, r *replay) {
		assert.True(t, r.claim(t, r.key(1), minute()))
		for range 5 {
			assert.False(t, r.claim(t, r.key(1), minute()))
		}
	})
	run("tells keys apart", func(t *testing.T, r *replay) {
		for i := range uint64(200) {
			assert.True(t, r.claim(t, r.key(i), minute()))
		}
		for i := range uint64(200) {
			assert.False(t, r.claim(t, r.key(i), minute()))
		}
	})
	run("tells keys apart by any byte of their first half", func(t *testing.T, r *replay) {
		k := r.key(1)
		assert.True(t, r.claim(t, k, minute()))
		for i := range 16 {
			other := k
			other[i] ^= 1
			assert.True(t, r.claim(t, other, minute()), "byte %d", i)
		}
	})
	run("refuses a repeat that claims another end", func(t *testing.T, r *replay) {
		assert.True(t, r.claim(t, r.key(1), minute()))
		assert.False(t, r.claim(t, r.key(1), minute().Add(time.Minute)))
		assert.False(t, r.claim(t, r.key(1), minute().Add(-30*time.Second)))
	})
	run("refuses what has ended", func(t *testing.T, r *replay) {
		assert.False(t, r.claim(t, r.key(1), time.Now()))
		assert.False(t, r.claim(t, r.key(1), time.Now().Add(-time.Hour)))
		assert.False(t, r.claim(t, r.key(1), time.Time{}))
		assert.True(t, r.claim(t, r.key(1), minute()), "a refused claim takes nothing")
	})
	run("takes a new proof with an old jti", func(t *testing.T, r *replay) {
		until := time.Now().Add(time.Second)
		assert.True(t, r.claim(t, r.key(1), until))
		awaitFresh(t, r, r.key(1))
		assert.False(t, time.Now().Before(until), "not while the old one lives")
		assert.False(t, r.claim(t, r.key(1), minute()), "and once")
	})
	runAt("refuses a repeat up to the last moment", func(t *testing.T, r *replay, c *clock) {
		until := c.now().Add(70 * time.Second)
		assert.True(t, r.claim(t, r.key(1), until))
		for _, early := range []time.Duration{69 * time.Second, 35 * time.Second, time.Second, time.Millisecond, time.Nanosecond, 0, -time.Second} {
			c.set(until.Add(-early))
			assert.False(t, r.claim(t, r.key(1), until), "%s before the end", early)
		}
	})
	runAt("refuses a repeat after its clock was set back", func(t *testing.T, r *replay, c *clock) {
		until := c.now().Add(70 * time.Second)
		assert.True(t, r.claim(t, r.key(1), until))
		for _, step := range []time.Duration{-30 * time.Second, -time.Hour, 2 * time.Hour, -2 * time.Hour} {
			c.advance(step)
			assert.False(t, r.claim(t, r.key(1), until))
		}
	})
	run("lets one of 200 racers win", func(t *testing.T, r *replay) {
		for round := range uint64(5) {
			won, failed := race(r, r.key(round), minute())
			assert.Zero(t, failed)
			assert.EqualValues(t, 1, won)
		}
	})
	run("ends when its context does", func(t *testing.T, r *replay) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		fresh, err := r.Claim(ctx, r.key(1), minute())
		if _, memory := r.instances[0].(*cache.Proofs); !memory { // which has no time to look at it
			require.ErrorIs(t, err, context.Canceled)
			assert.False(t, fresh)
		}
	})
}

// race has 200 claims of one key at once, and says how many were told that it is fresh, and how many nothing.
func race(r *replay, k dpop.ReplayKey, until time.Time) (won, failed int64) {
	var wins, failures atomic.Int64
	var group sync.WaitGroup
	start := make(chan struct{})
	for range 200 {
		group.Go(func() {
			<-start
			switch fresh, err := r.Claim(context.Background(), k, until); {
			case err != nil:
				failures.Add(1)
			case fresh:
				wins.Add(1)
			}
		})
	}
	close(start)
	group.Wait()
	return wins.Load(), failures.Load()
}

// testReplayOutage is what every shared store does when it cannot be reached: it fails in time, takes nothing twice, and
// goes on by itself. open opens an instance with a short timeout whose connections go through the relay.
func testReplayOutage(t *testing.T, link *tokenstoretest.Relay, open func(t *testing.T) dpop.Replay) {
	minute := func() time.Time { return time.Now().Add(time.Minute) }
	for name, outage := range map[string]struct{ begin, end func() }{
		"frozen":  {link.Freeze, link.Thaw},
		"cut":     {link.Refuse, link.Restore},
		"no news": {link.Swallow, link.Restore},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReplay(open(t))
			t.Cleanup(outage.end)
			recovers(t, r, 1)
			before := r.key(0)
			assert.True(t, r.claim(t, before, minute()))

			outage.begin()
			for round := range uint64(3) {
				won, failed := race(r, r.key(100+round), minute())
				assert.Zero(t, won)
				assert.EqualValues(t, 200, failed)
			}
			_, err := r.Claim(t.Context(), before, minute())
			assert.Error(t, err, "not even a used one can be told")

			outage.end()
			recovers(t, r, 1000)
			assert.False(t, r.claim(t, before, minute()))
		})
	}
	t.Run("comes and goes under load", func(t *testing.T) {
		r := newReplay(open(t), open(t))
		recovers(t, r, 1)
		var wins [200]atomic.Int64
		done := make(chan struct{})
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for n := uint64(0); ; n++ {
					select {
					case <-done:
						return
					default:
					}
					if fresh, err := r.Claim(context.Background(), r.key(n%200), minute()); fresh && err == nil {
						wins[n%200].Add(1)
					}
				}
			})
		}
		for range 5 {
			link.Cut()
			recovers(t, newReplay(r.instances...), 0)
		}
		close(done)
		group.Wait()
		for n := range wins {
			assert.LessOrEqual(t, wins[n].Load(), int64(1))
		}
	})
}

// awaitFresh claims a proof until it is taken.
func awaitFresh(t *testing.T, r *replay, k dpop.ReplayKey) {
	t.Helper()
	require.Eventually(t, func() bool {
		fresh, err := r.Claim(context.Background(), k, time.Now().Add(time.Minute))
		return fresh && err == nil
	}, patient, 20*time.Millisecond)
}

// recovers claims proofs from the n-th on until one is taken.
func recovers(t *testing.T, r *replay, n uint64) {
	t.Helper()
	var err error
	require.Eventually(t, func() bool {
		n++
		var fresh bool
		fresh, err = r.Claim(context.Background(), r.key(n), time.Now().Add(time.Minute))
		return fresh
	}, patient, 5*time.Millisecond, "%v", err)
}

func closeLater(t testing.TB, c io.Closer) { t.Cleanup(func() { assert.NoError(t, c.Close()) }) }

// benchmarkReplay claims alone and 64 at once.
func benchmarkReplay(b *testing.B, open openReplay) {
	r := newReplay(open(b, nil)...)
	until := time.Now().Add(time.Hour)
	var n atomic.Uint64
	one := func(b *testing.B) {
		if fresh, err := r.Claim(context.Background(), r.key(n.Add(1)), until); err != nil || !fresh {
			b.Error("not taken", err)
		}
	}
	one(b)
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			one(b)
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "claims/s")
	})
	b.Run("64 at once", func(b *testing.B) {
		var group sync.WaitGroup
		left := atomic.Int64{}
		left.Store(int64(b.N))
		b.ResetTimer()
		for range 64 {
			group.Go(func() {
				for left.Add(-1) >= 0 {
					one(b)
				}
			})
		}
		group.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "claims/s")
	})
}

package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"net"
	"net/rpc"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
)

// Proofs are claimed from all sides while one memory hands over to another: each at both, at any moment before, during
// and after. Each is fresh once.
func TestProofsAreFreshOnceAcrossAHandOver(t *testing.T) {
	t.Parallel()
	const rounds, racers = 20, 4
	for round := range rounds {
		old := &relayedProofs{own: cache.NewProofs(1<<20, nil)}
		h := &relayedProofs{own: cache.NewProofs(1<<20, nil)}
		near, far := net.Pipe()
		heir := newHeir(far)
		heir.proofs = h
		heir.ready <- nil
		to := &successor{client: rpc.NewClient(near)}
		until := time.Now().Add(time.Minute)
		key := func(i int64) dpop.ReplayKey {
			return sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
		}
		var next, fresh, claimed atomic.Int64
		var serving atomic.Bool
		claim := func(p *relayedProofs, k dpop.ReplayKey) {
			ok, err := p.Claim(context.Background(), k, until)
			if assert.NoError(t, err) && ok {
				fresh.Add(1)
			}
		}
		var all sync.WaitGroup
		stop := make(chan struct{})
		for range racers {
			all.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					i := next.Add(1)
					claimed.Add(1)
					var both sync.WaitGroup
					both.Go(func() { claim(old, key(i)) })
					if serving.Load() { // nobody reaches it before
						both.Go(func() { claim(h, key(i)) })
						both.Go(func() { claim(h, key(max(1, i/2))) }) // one from long ago
					}
					claim(old, key(i))
					both.Wait()
				}
			})
		}
		for next.Load() < 200 {
			time.Sleep(time.Microsecond)
		}
		go func() {
			<-heir.serve
			serving.Store(true)
			close(heir.serving)
		}()
		s := &server{proofs: old, config: &config.Config{DPoP: config.DPoP{Replay: "memory"}}}
		require.NoError(t, s.bequeath(t.Context(), to), "round %d", round)
		for at := next.Load(); next.Load() < at+200; {
			time.Sleep(time.Microsecond)
		}
		close(stop)
		all.Wait()
		assert.Equal(t, claimed.Load(), fresh.Load(), "round %d", round)
		to.client.Close()
	}
}

// A process that has been lost before it was told to serve has accepted nothing; after that, nobody knows.
func TestProofsOfALostSuccessor(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	to := &successor{client: rpc.NewClient(near)}
	p := &relayedProofs{own: cache.NewProofs(1<<20, nil)}
	p.ask(to)
	far.Close()
	until := time.Now().Add(time.Minute)
	fresh, err := p.Claim(t.Context(), dpop.ReplayKey{1}, until)
	require.NoError(t, err)
	assert.True(t, fresh)
	fresh, err = p.Claim(t.Context(), dpop.ReplayKey{1}, until)
	require.NoError(t, err)
	assert.False(t, fresh)

	to.serving.Store(true)
	_, err = p.Claim(t.Context(), dpop.ReplayKey{2}, until)
	assert.ErrorContains(t, err, "asking the process that takes over")
}

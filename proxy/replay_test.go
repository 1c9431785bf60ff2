package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// conformance: JTI-10
func TestOneOfManyAtOncePasses(t *testing.T) {
	g, key := newAPI(t, "base")
	fleets := map[string][]*rig{"one instance": {g}, "two instances": {g, g.sibling(0, nil)}}
	for name, fleet := range fleets {
		t.Run(name, func(t *testing.T) {
			before := g.count()
			r := g.signed(key, dpop.Claims{})
			statuses := make([]int, 50)
			var group sync.WaitGroup
			for i := range statuses {
				group.Go(func() {
					if res, err := fleet[i%len(fleet)].send(r); assert.NoError(t, err) {
						statuses[i] = res.StatusCode
					}
				})
			}
			group.Wait()
			times := map[int]int{}
			for _, status := range statuses {
				times[status]++
			}
			assert.Equal(t, map[int]int{http.StatusOK: 1, http.StatusUnauthorized: 49}, times)
			assert.Equal(t, 1, g.count()-before, "what the upstream saw")
		})
	}
}

// conformance: JTI-12
// attack: 88
func TestUsedProofIsUsedOnEveryInstanceAndAfterARestart(t *testing.T) {
	a, key := newAPI(t, "base")
	b := a.sibling(0, nil)
	r := a.signed(key, dpop.Claims{})
	a.passes(r)
	b.refuses(r, http.StatusUnauthorized, dpop.ProofReplayed)
	a.server.Close()
	a.gateway.Close()
	b.refuses(r, http.StatusUnauthorized, dpop.ProofReplayed)
	again := a.sibling(time.Second, nil)
	again.refuses(r, http.StatusUnauthorized, dpop.ProofReplayed)
	// An instance that has forgotten, since it remembers by itself, takes no proof of before its start.
	alone := a.sibling(2*time.Second, func(o *proxy.Options) {
		o.Replay = cache.NewProofs(1<<20, o.Now)
		o.Started = o.Now()
	})
	alone.refuses(r, http.StatusUnauthorized, dpop.IATBeforeStart)
	assert.Equal(t, 1, a.count(), "what the upstream saw of the proof")
	alone.passes(alone.signed(key, dpop.Claims{}))
}

// conformance: JTI-27
func TestClientMayTryAgainWithANewProof(t *testing.T) {
	g, key := newAPI(t, "base")
	var broken atomic.Int32
	g.reply = func(w http.ResponseWriter, _ *http.Request) {
		switch broken.Load() {
		case 1:
			w.WriteHeader(http.StatusBadGateway)
		case 2:
			panic(http.ErrAbortHandler)
		}
	}
	for way := int32(1); way <= 2; way++ {
		broken.Store(way)
		r := g.signed(key, dpop.Claims{Method: "POST", URL: apiURL + "/v1/any/x"})
		res, err := g.send(r)
		require.NoError(t, err)
		require.Equal(t, http.StatusBadGateway, res.StatusCode)
		broken.Store(0)
		g.refuses(r, http.StatusUnauthorized, dpop.ProofReplayed)
		g.passes(g.signed(key, dpop.Claims{Method: "POST", URL: apiURL + "/v1/any/x"}))
	}
}

// conformance: OPS-02
func TestInstancesWithClocksApartTakeAProofOnce(t *testing.T) {
	behind, key := newAPI(t, "base")
	ahead := behind.sibling(8*time.Second, nil)
	for _, order := range [][2]*rig{{behind, ahead}, {ahead, behind}} {
		for _, clock := range []*rig{behind, ahead} { // whose time the client has
			r := clock.signed(key, dpop.Claims{})
			order[0].passes(r)
			order[1].refuses(r, http.StatusUnauthorized, dpop.ProofReplayed)
			order[0].refuses(r, http.StatusUnauthorized, dpop.ProofReplayed)
		}
	}
	// At the end of its life for one, and still good for the other.
	r := ahead.signed(key, dpop.Claims{IssuedAt: ahead.now().Add(-60 * time.Second)})
	ahead.passes(r)
	behind.refuses(r, http.StatusUnauthorized, dpop.ProofReplayed)
	behind.offset.Add(int64(8 * time.Second))
	behind.refuses(r, http.StatusUnauthorized, dpop.ProofReplayed)
	behind.offset.Add(int64(time.Second))
	behind.refuses(r, http.StatusUnauthorized, dpop.IATPast)
}

// Proofs made ahead of time are good at their times: the standard has nothing against it but nonces (RFC 9449 §11.2).
//
// conformance: TIM-27
func TestProofsMadeInAdvanceNeedANonce(t *testing.T) {
	for _, mode := range []string{"base", "nonce-required"} {
		t.Run(mode, func(t *testing.T) {
			g, key := newAPI(t, mode)
			rec := bound(key.Thumbprint(), "items:read")
			rec.ExpiresAt = start.Add(2 * time.Hour)
			g.rows.put("T1", rec)
			const step = 36 * time.Second
			var batch []*http.Request
			for i := range 100 {
				batch = append(batch, g.signed(key, dpop.Claims{JTI: fmt.Sprint("advance", i), IssuedAt: start.Add(time.Duration(i) * step)}))
			}
			if mode == "base" {
				g.refuses(batch[1], http.StatusUnauthorized, dpop.IATFuture)
			}
			for _, r := range batch {
				if mode == "base" {
					g.passes(r)
				} else {
					g.refuses(r, http.StatusUnauthorized, dpop.NonceMissing)
				}
				g.offset.Add(int64(step))
			}
		})
	}
}

// brokenReplay is a replay store that cannot say.
type brokenReplay struct{ err error }

func (b brokenReplay) Claim(context.Context, dpop.ReplayKey, time.Time) (bool, error) {
	return true, b.err
}

// attack: 179
func TestReplayStoreThatCannotSayIs503(t *testing.T) {
	g, key := newAPI(t, "base")
	for err, reason := range map[error]dpop.Reason{
		errors.New("connection refused"): dpop.ReplayUnavailable,
		context.DeadlineExceeded:         dpop.ReplayUnavailable,
		dpop.ErrReplayFull:               dpop.ReplayStoreAtLimit,
	} {
		s := g.sibling(0, func(o *proxy.Options) { o.Replay = brokenReplay{err} })
		res := s.refuses(s.signed(key, dpop.Claims{}), http.StatusServiceUnavailable, reason)
		assert.NotEmpty(t, res.Header.Get("Retry-After"))
		assert.Empty(t, res.Header["Www-Authenticate"])
	}
	assert.Zero(t, g.count(), "what the upstream saw")
}

// A store remembers a proof for the window that was in force when it was claimed. When max_age is raised, those from before
// are held to that window: else they would be forgotten, and good again.
func TestRaisingMaxAgeMakesNoUsedProofFresh(t *testing.T) {
	g, key := newAPI(t, "base")
	var passed atomic.Int64 // since start
	now := func() time.Time { return start.Add(time.Duration(passed.Load())) }
	s := g.sibling(0, func(o *proxy.Options) {
		o.Now = now
		o.Replay = cache.NewProofs(1<<20, now)
	})
	old := s.signed(key, dpop.Claims{IssuedAt: start})
	ahead := s.signed(key, dpop.Claims{IssuedAt: start.Add(10 * time.Second)})
	s.passes(old)
	s.passes(ahead)

	longer := *s.config
	longer.DPoP.MaxAge *= 5
	passed.Store(int64(time.Second))
	require.NoError(t, s.gateway.Reload(&longer))
	s.refuses(old, http.StatusUnauthorized, dpop.ProofReplayed)
	unused := s.signed(key, dpop.Claims{IssuedAt: now().Add(11 * time.Second)}) // none such was taken before
	passed.Store(int64(90 * time.Second))
	for range 200 { // makes room
		s.passes(s.signed(key, dpop.Claims{IssuedAt: now()}))
	}
	s.refuses(old, http.StatusUnauthorized, dpop.IATPast)
	s.refuses(ahead, http.StatusUnauthorized, dpop.IATPast)
	s.passes(unused)

	longer.DPoP.MaxAge *= 2
	require.NoError(t, s.gateway.Reload(&longer))
	s.refuses(old, http.StatusUnauthorized, dpop.IATPast)
	passed.Store(int64(500 * time.Second))
	s.passes(s.signed(key, dpop.Claims{IssuedAt: start.Add(101 * time.Second)}))
	s.refuses(s.signed(key, dpop.Claims{IssuedAt: start.Add(99 * time.Second)}), http.StatusUnauthorized, dpop.IATPast)
}

package cache_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
)

// fleetModel plays a fleet of three in random steps: clients make proofs with and without nonces of every kind, and anybody
// shows any of them to any instance in any nonce mode (the config may have been reloaded meanwhile), while the shared store
// goes, comes back, or takes a proof and its answer is lost, instances are restarted, time goes by and clocks step. All but
// the store is the real code. The law is that no proof is accepted twice.
//
// It was written with the fallback, and found while that was being made that a proof with a nonce of one instance must be
// told apart on routes without nonces, too, where it would else be judged by its iat ("blind where nonces are off"), and
// that it must be claimed in the instance's own memory for ever, and not only as long as the store is away ("claimed where
// the store is").
type fleetModel struct {
	rand      *rand.Rand
	store     *fickle
	key       *dpop.Key
	mutant    func(m *fleetModel, i int, v *dpop.Verifier)
	instances [3]modelInstance
	spare     *dpop.Nonces // for mutants
	nonces    []string     // that were given out
	proofs    []string
	accepted  map[string]int
	byOwn     int // accepted while the store was away
}

type modelInstance struct {
	verifier *dpop.Verifier
	watched  *cache.WatchedProofs
	skew     *time.Duration
}

// fickle is a shared store, exact as long as it answers.
type fickle struct {
	mu      sync.Mutex
	taken   map[dpop.ReplayKey]bool
	away    bool
	swallow bool // it takes what it is asked to, and nobody hears
}

func (s *fickle) Claim(_ context.Context, k dpop.ReplayKey, _ time.Time) (fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return false, errDown
	}
	fresh = !s.taken[k]
	s.taken[k] = true
	if s.swallow {
		return false, errDown
	}
	return fresh, nil
}

func (s *fickle) Ping(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away || s.swallow {
		return errDown
	}
	return nil
}

func (s *fickle) be(away, swallow bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away, s.swallow = away, swallow
}

// start starts an instance, or starts it again.
func (m *fleetModel) start(i int) {
	in := &m.instances[i]
	if in.watched != nil {
		in.watched.Close()
	} else {
		in.skew = new(time.Duration)
	}
	now := func() time.Time { return time.Now().Add(*in.skew) }
	in.watched = cache.WatchProofs(m.store, nil)
	in.verifier = &dpop.Verifier{
		Algorithms:   dpop.Algorithms{dpop.ES256},
		MaxAge:       time.Minute,
		MaxSkew:      10 * time.Second,
		MaxProofSize: 8 << 10,
		Nonces:       dpop.NewNonces([]byte("shared by the fleet"), 5*time.Minute),
		Replay:       in.watched,
		Fallback: &dpop.Fallback{
			Nonces: dpop.NewOwnNonces(5 * time.Minute),
			Replay: cache.NewProofs(1<<20, now),
			Away:   in.watched.Away,
		},
	}
	if m.mutant != nil {
		m.mutant(m, i, in.verifier)
	}
}

// show has an instance decide about a proof.
func (m *fleetModel) show(i int, proof string, mode dpop.NonceMode) {
	in := &m.instances[i]
	v, now := in.verifier, time.Now().Add(*in.skew)
	p, err := v.Parse(proof)
	if err != nil {
		panic(err)
	}
	origin, _ := dpop.ParseOrigin("https://api.example.com")
	a, err := v.Check(p, dpop.Request{Method: "GET", Target: origin.Target("/"), Token: "token", Nonce: mode, Now: now})
	if err == nil {
		err = v.Claim(context.Background(), p, a)
	}
	if err == nil {
		m.accepted[proof]++
		if in.watched.Away() {
			m.byOwn++
		}
	}
	if e := dpop.AsError(err); e != nil && e.Code == dpop.UseNonce || err == nil && a.Renew {
		m.nonces = append(m.nonces, v.Nonce(now))
	}
}

// step does one thing.
func (m *fleetModel) step() {
	i := m.rand.IntN(len(m.instances))
	modes := []dpop.NonceMode{dpop.NonceAuto, dpop.NonceRequired, dpop.NonceOff}
	switch n := m.rand.IntN(100); {
	case n < 50 && len(m.proofs) > 0:
		recent := m.proofs[max(0, len(m.proofs)-8):]
		m.show(i, recent[m.rand.IntN(len(recent))], modes[m.rand.IntN(len(modes))])
	case n < 75:
		nonce := ""
		if len(m.nonces) > 0 && m.rand.IntN(3) > 0 {
			recent := m.nonces[max(0, len(m.nonces)-4):]
			nonce = recent[m.rand.IntN(len(recent))]
		}
		proof, err := m.key.Sign(dpop.Claims{Method: "GET", URL: "https://api.example.com/", Token: "token", Nonce: nonce})
		if err != nil {
			panic(err)
		}
		m.proofs = append(m.proofs, proof)
		m.show(i, proof, modes[m.rand.IntN(len(modes))])
	case n < 80:
		m.store.be(true, false)
	case n < 83:
		m.store.be(false, true)
	case n < 88:
		m.store.be(false, false)
	case n < 91:
		m.start(i)
	case n < 97:
		time.Sleep(time.Duration(m.rand.Int64N(int64(40 * time.Second))))
	default:
		*m.instances[i].skew = time.Duration(m.rand.IntN(3)-1) * 10 * time.Minute
	}
	synctest.Wait()
}

// play returns what went wrong, and how often a proof was accepted without the store.
func playFleet(t *testing.T, key *dpop.Key, seed uint64, mutant func(*fleetModel, int, *dpop.Verifier)) (wrong string, byOwn int) {
	synctest.Test(t, func(t *testing.T) {
		m := &fleetModel{
			rand: rand.New(rand.NewPCG(seed, 1)), store: &fickle{taken: map[dpop.ReplayKey]bool{}}, key: key, mutant: mutant,
			spare: dpop.NewOwnNonces(5 * time.Minute), accepted: map[string]int{},
		}
		for i := range m.instances {
			m.start(i)
		}
		for step := range 120 {
			if m.step(); wrong == "" {
				for _, n := range m.accepted {
					if n > 1 {
						wrong = fmt.Sprintf("a proof was accepted twice in step %d of seed %d", step, seed)
					}
				}
			}
		}
		for i := range m.instances {
			m.instances[i].watched.Close()
		}
		byOwn = m.byOwn
	})
	return wrong, byOwn
}

const modelSeeds = 300

// attack: 179, 180
func TestNoProofIsAcceptedTwiceWhateverHappensToAFleet(t *testing.T) {
	key, err := dpop.NewKey(dpop.ES256)
	require.NoError(t, err)
	total := 0
	for seed := range uint64(modelSeeds) {
		wrong, byOwn := playFleet(t, key, seed, nil)
		require.Empty(t, wrong)
		total += byOwn
	}
	assert.Greater(t, total, modelSeeds/2, "proofs are accepted without the store, too")
}

// replayFunc is a dpop.Replay.
type replayFunc func(ctx context.Context, k dpop.ReplayKey, until time.Time) (bool, error)

func (f replayFunc) Claim(ctx context.Context, k dpop.ReplayKey, until time.Time) (bool, error) {
	return f(ctx, k, until)
}

// Each of these is a way to build the fallback that looks right.
func TestTheModelOfAFleetFindsWhatIsWrong(t *testing.T) {
	key, err := dpop.NewKey(dpop.ES256)
	require.NoError(t, err)
	for name, mutant := range map[string]func(*fleetModel, int, *dpop.Verifier){
		"one key for the nonces of all": func(m *fleetModel, _ int, v *dpop.Verifier) { v.Fallback.Nonces = m.spare },
		"a key that outlives the memory": func(m *fleetModel, i int, v *dpop.Verifier) {
			if i == 0 {
				v.Fallback.Nonces = m.spare
			}
		},
		"claimed where the store is": func(_ *fleetModel, _ int, v *dpop.Verifier) {
			own, shared, away := v.Fallback.Replay, v.Replay, v.Fallback.Away
			v.Fallback.Replay = replayFunc(func(ctx context.Context, k dpop.ReplayKey, until time.Time) (bool, error) {
				if away() {
					return own.Claim(ctx, k, until)
				}
				return shared.Claim(ctx, k, until)
			})
		},
		"memory in place of the store": func(_ *fleetModel, _ int, v *dpop.Verifier) {
			own, shared := v.Fallback.Replay, v.Replay
			v.Replay = replayFunc(func(ctx context.Context, k dpop.ReplayKey, until time.Time) (bool, error) {
				fresh, err := shared.Claim(ctx, k, until)
				if err != nil {
					return own.Claim(ctx, k, until)
				}
				return fresh, nil
			})
		},
		"blind where nonces are off": func(m *fleetModel, i int, v *dpop.Verifier) {
			if i == 0 { // one that has no fallback
				v.Fallback = nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(modelSeeds) {
				if wrong, _ := playFleet(t, key, seed, mutant); wrong != "" {
					t.Log(wrong)
					return
				}
			}
			t.Error("not found")
		})
	}
}

var errDown = errors.New("connection refused")

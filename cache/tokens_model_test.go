package cache_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/tokenstore"
)

const (
	modelTTL     = time.Minute
	modelStale   = 3 * time.Minute
	modelTimeout = 10 * time.Second
)

// memory is a Tokens, or something that wants to be one.
type memory interface {
	Lookup(ctx context.Context, d tokenstore.Digest) (*tokenstore.Record, error)
	Forget(d tokenstore.Digest)
	ForgetAll()
	Close()
}

// tokenModel plays one token in random steps: lookups begin, read the row or fail, and return with what they read, in any
// order; the row is changed and deleted; notices of that are on their way, are heard, and are lost while nobody listens;
// the listener comes back; the store goes and comes; time goes by; the process is restarted. The memory is the real one,
// or a mutant.
//
// The law: whoever gets a record gets none that a notice or a new listener has outdated; none that was outdated for longer
// than the TTL, or than the time to stand in where the store has failed since; none past its expiry; and none standing in
// after the store has told something newer.
//
// It found, while stale_on_error was being made, that an answer without a record has to take the place of the record before
// it ("stands in after the store said no"): else a token that was found revoked came back with the next outage; and that
// a failure of long ago says nothing of the store now: a record stood in at once for a store that nobody had asked since.
type tokenModel struct {
	rand     *rand.Rand
	store    *scripted
	memory   memory
	start    func(cache.Lookuper) memory
	deaf     bool // mutant: a new listener makes nothing of what it missed
	listens  bool
	notices  int // on their way
	changes  []time.Time
	heard    int // how many of the changes are known
	told     int // the newest version that the store has answered with
	failed   time.Time
	callers  sync.WaitGroup
	mu       sync.Mutex // guards wrong and served
	wrong    string
	served   int
	standing int // served past the TTL
	expires  time.Time
}

// scripted is a store whose row has a version, and whose lookups go on when they are told to.
type scripted struct {
	mu      sync.Mutex
	version int
	gone    bool
	away    bool
	reading []chan struct{} // lookups that have not read the row yet
	leaving []chan struct{} // those that have
	answers func(version int, err error)
	record  func(version int) *tokenstore.Record
}

func (s *scripted) Lookup(ctx context.Context, _ tokenstore.Digest) (*tokenstore.Record, error) {
	s.wait(ctx, &s.reading)
	s.mu.Lock()
	version, gone, err := s.version, s.gone, error(nil)
	if s.away || ctx.Err() != nil {
		err = errDown
	}
	s.mu.Unlock()
	s.wait(ctx, &s.leaving)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	s.answers(version, err)
	switch {
	case err != nil:
		return nil, err
	case gone:
		return nil, tokenstore.ErrNotFound
	}
	return s.record(version), nil
}

func (s *scripted) wait(ctx context.Context, in *[]chan struct{}) {
	goOn := make(chan struct{})
	s.mu.Lock()
	*in = append(*in, goOn)
	s.mu.Unlock()
	select {
	case <-goOn:
	case <-ctx.Done():
	}
}

// release has one of those who wait go on.
func (s *scripted) release(in *[]chan struct{}, r *rand.Rand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(*in) == 0 {
		return
	}
	i := r.IntN(len(*in))
	close((*in)[i])
	*in = append((*in)[:i], (*in)[i+1:]...)
}

// lookup begins a lookup, and judges what it gets.
func (m *tokenModel) lookup() {
	memory, began := m.memory, time.Now()
	m.callers.Go(func() {
		r, err := memory.Lookup(context.Background(), digest(1))
		if err != nil {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.served++
		version, now := int(r.CreatedAt.Unix()), time.Now()
		if !now.Before(r.ExpiresAt) {
			m.wrong = "a record past its expiry"
		}
		if version == len(m.changes) {
			return
		}
		since := m.changes[version] // the change that outdated it
		switch {
		case version < m.heard:
			m.wrong = fmt.Sprintf("version %d after a notice of version %d", version, m.heard)
		case now.Sub(since) <= modelTTL:
		case now.Sub(since) > modelTTL+modelStale:
			m.wrong = fmt.Sprintf("a record outdated %v ago", now.Sub(since))
		case !m.failed.After(since) && now.Sub(began) < modelTimeout: // not too slow either
			m.wrong = fmt.Sprintf("a record outdated %v ago, with no failure since", now.Sub(since))
		case version < m.told:
			m.wrong = fmt.Sprintf("version %d stood in after the store had told version %d", version, m.told)
		default:
			m.standing++
		}
	})
}

// hear has the listener hear of all changes so far, or of one more.
func (m *tokenModel) hear(all bool) {
	if all {
		m.memory.ForgetAll()
	} else {
		m.memory.Forget(digest(1))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.heard = len(m.changes) - m.notices; all {
		m.heard, m.notices = len(m.changes), 0
	}
}

func (m *tokenModel) step() {
	s := m.store
	switch n := m.rand.IntN(100); {
	case n < 30:
		m.lookup()
	case n < 46:
		s.release(&s.reading, m.rand)
	case n < 66:
		s.release(&s.leaving, m.rand)
	case n < 74: // changed or gone
		m.mu.Lock()
		s.mu.Lock()
		s.version++
		s.gone = m.rand.IntN(2) == 0
		m.changes = append(m.changes, time.Now())
		if m.listens {
			m.notices++
		}
		s.mu.Unlock()
		m.mu.Unlock()
	case n < 80 && m.listens && m.notices > 0:
		m.notices--
		m.hear(false)
	case n < 84 && m.listens:
		m.listens, m.notices = false, 0
	case n < 87 && !m.listens:
		m.listens = true
		if !m.deaf {
			m.hear(true)
		} else {
			m.mu.Lock()
			m.heard = len(m.changes)
			m.mu.Unlock()
		}
	case n < 92:
		s.mu.Lock()
		s.away = m.rand.IntN(2) == 0
		s.mu.Unlock()
	case n < 98:
		time.Sleep(time.Duration(m.rand.Int64N(int64(modelTTL))))
	case n == 98:
		m.memory.Close()
		m.memory = m.start(s)
	}
	synctest.Wait()
}

func playTokens(t *testing.T, seed uint64, deaf bool, start func(cache.Lookuper) memory) (wrong string, served, standing int) {
	synctest.Test(t, func(t *testing.T) {
		m := &tokenModel{rand: rand.New(rand.NewPCG(seed, 2)), start: start, deaf: deaf, expires: time.Now().Add(20 * time.Minute)}
		m.store = &scripted{
			record: func(version int) *tokenstore.Record {
				r := record(1)
				r.CreatedAt, r.ExpiresAt = time.Unix(int64(version), 0), m.expires
				return r
			},
			answers: func(version int, err error) {
				m.mu.Lock()
				defer m.mu.Unlock()
				if err != nil {
					m.failed = time.Now()
				} else {
					m.told = max(m.told, version)
				}
			},
		}
		m.memory = start(m.store)
		for range 150 {
			m.step()
		}
		m.memory.Close()
		m.callers.Wait()
		wrong, served, standing = m.wrong, m.served, m.standing
	})
	return wrong, served, standing
}

// attack: 109, 116, 180
func TestNoRecordOutlivesItsRevocationWhateverHappens(t *testing.T) {
	served, standing := 0, 0
	for seed := range uint64(modelSeeds) {
		wrong, n, s := playTokens(t, seed, false, func(l cache.Lookuper) memory { return modelTokens(l) })
		require.Empty(t, wrong, "seed %d", seed)
		served, standing = served+n, standing+s
	}
	assert.Greater(t, served, 5*modelSeeds)
	assert.Positive(t, standing, "old records stand in, too")
}

func modelTokens(l cache.Lookuper) *cache.Tokens {
	c, err := cache.NewTokens(l, cache.TokensOptions{
		MaxSize: cache.MinTokensSize, TTL: modelTTL, NegativeTTL: 2 * time.Second, StaleOnError: modelStale, Timeout: modelTimeout,
	})
	if err != nil {
		panic(err)
	}
	return c
}

// plain is the memory that one writes first: a map, filled when an answer is there, and emptied by notices.
type plain struct {
	store      cache.Lookuper
	fromAnswer bool // the time counts from the answer on
	guarded    bool // nothing is filled in that was asked for before the last Forget
	keepsOld   bool // a record stands in although the store said no

	mu      sync.Mutex
	record  *tokenstore.Record
	until   time.Time
	forgets int
}

func (c *plain) Forget(tokenstore.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.record = nil
	c.forgets++
}

func (c *plain) ForgetAll() { c.Forget(tokenstore.Digest{}) }
func (c *plain) Close()     {}

func (c *plain) Lookup(ctx context.Context, d tokenstore.Digest) (*tokenstore.Record, error) {
	c.mu.Lock()
	r, until, forgets, began := c.record, c.until, c.forgets, time.Now()
	c.mu.Unlock()
	if r != nil && began.Before(until) {
		return r, nil
	}
	ctx, cancel := context.WithTimeout(ctx, modelTimeout)
	defer cancel()
	found, err := c.store.Lookup(ctx, d)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.guarded && c.forgets != forgets:
		return nil, errDown
	case err == tokenstore.ErrNotFound:
		if !c.keepsOld {
			c.record = nil
		}
		return nil, err
	case err != nil && c.record != nil && time.Now().Before(c.until.Add(modelStale)) && !c.record.Expired(time.Now()):
		return c.record, nil
	case err != nil:
		return nil, err
	}
	if c.fromAnswer {
		began = time.Now()
	}
	c.record, c.until = found, began.Add(modelTTL)
	if found.ExpiresAt.Before(c.until) {
		c.until = found.ExpiresAt
	}
	return found, nil
}

// Each of these is a way to build the memory that looks right.
func TestTheModelOfTokensFindsWhatIsWrong(t *testing.T) {
	for name, mutant := range map[string]struct {
		deaf  bool
		start func(cache.Lookuper) memory
	}{
		"filled without a guard": {false, func(l cache.Lookuper) memory { return &plain{store: l} }},
		"stands in after the store said no": {false, func(l cache.Lookuper) memory {
			return &plain{store: l, guarded: true, keepsOld: true}
		}},
		"counts from the answer on": {false, func(l cache.Lookuper) memory {
			return &plain{store: l, guarded: true, fromAnswer: true}
		}},
		"makes nothing of what was missed": {true, func(l cache.Lookuper) memory { return modelTokens(l) }},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(modelSeeds) {
				if wrong, _, _ := playTokens(t, seed, mutant.deaf, mutant.start); wrong != "" {
					t.Logf("seed %d: %s", seed, wrong)
					return
				}
			}
			t.Error("not found")
		})
	}
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/dpopgate/dpopgate/tokenstore"
)

// Lookuper is where records come from: a tokenstore.Store, or something in front of one.
type Lookuper interface {
	// Lookup has the contract of tokenstore.Store: ErrNotFound when there is no such record, any other error when
	// that cannot be told. It returns once its context ends and may be called concurrently. Its records are not
	// changed after it has returned them.
	Lookup(ctx context.Context, d tokenstore.Digest) (*tokenstore.Record, error)
}

// TokensOptions bound what a Tokens remembers, and for how long.
type TokensOptions struct {
	// MaxSize is the bound of the memory, in bytes and all in: at least MinTokensSize.
	MaxSize int64
	// TTL is the longest that a record serves after the moment it was asked for, and so the longest that a change
	// in the store can go unseen without a Forget. 0 remembers nothing at all, unknown tokens included.
	TTL time.Duration
	// NegativeTTL is the same for unknown tokens, and for tokens that had expired when they were looked up. 0: never.
	NegativeTTL time.Duration
	// Timeout is the bound of one lookup in the store. It must be positive.
	Timeout time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// MinTokensSize is the smallest MaxSize of a Tokens.
const MinTokensSize = 1 << 20

const (
	// generations is how many counters Forget is spread over. A Forget also outdates the other tokens of its counter:
	// purging 1,000 expired rows costs 3 % of the live ones a second lookup.
	generations = 1 << 15
	// unknowns is how many unknown tokens are remembered. It need only cover clients that repeat themselves: no
	// memory holds the tokens of someone who makes them up.
	unknowns = 1 << 12
	// fixedSize is what is used before the first record: generations, unknowns, and ristretto's queue of 32,768 pointers.
	fixedSize = generations*4 + unknowns*(8+entrySize) + 32768*8
	// maxTries is how often a lookup starts over because a Forget came in between.
	maxTries = 3
)

// errChanged is fail closed: the caller gets no record that a Forget has outdated.
var errChanged = errors.New("the token's record kept changing while it was looked up")

var errClosed = errors.New("the token cache is closed")

// Tokens is a memory of looked-up tokens in front of a store. It may lose any record at any time, and never returns one
// that Forget was called for. All methods but Close may be called concurrently.
//
// How Forget wins against everything: each digest has a generation, a counter that Forget raises. A record is marked with
// the generation from before its query was sent, and only good while that is still the current one. So it does not
// matter when a late record arrives, nor in which order ristretto applies its buffered writes, and there is nothing that
// Forget would have to find and delete.
type Tokens struct {
	store       Lookuper
	ttl         time.Duration
	negativeTTL time.Duration
	timeout     time.Duration
	now         func() time.Time

	generations [generations]atomic.Uint32
	seed        maphash.Seed                     // secret, so that nobody can choose tokens that collide
	records     *ristretto.Cache[uint64, *entry] // nil, which ristretto takes for an empty cache, when ttl is 0
	unknown     [unknowns]atomic.Pointer[entry]  // apart, so that unknown tokens cannot push out known ones
	flights     map[tokenstore.Digest]*flight    // guarded by mu
	closed      bool                             // guarded by mu
	mu          sync.Mutex                       // taken on misses only
	running     sync.WaitGroup                   // one for each goroutine that flies
	base        context.Context                  // of all flights; ends with Close
	stop        context.CancelFunc               // ends base

	hits, negativeHits, misses, queries, evictions, drops atomic.Uint64
}

// NewTokens is an empty Tokens in front of store. It runs goroutines until it is closed.
func NewTokens(store Lookuper, o TokensOptions) (*Tokens, error) {
	switch {
	case o.TTL < 0:
		return nil, fmt.Errorf("token cache: TTL is %v, want 0 or more", o.TTL)
	case o.NegativeTTL < 0:
		return nil, fmt.Errorf("token cache: negative TTL is %v, want 0 or more", o.NegativeTTL)
	case o.Timeout <= 0:
		return nil, fmt.Errorf("token cache: timeout is %v, want more than 0", o.Timeout)
	case o.TTL > 0 && o.MaxSize < MinTokensSize:
		return nil, fmt.Errorf("token cache: size is %d bytes, want at least %d", o.MaxSize, MinTokensSize)
	}
	c := &Tokens{
		store:       store,
		ttl:         o.TTL,
		negativeTTL: min(o.NegativeTTL, o.TTL),
		timeout:     o.Timeout,
		now:         o.Now,
		seed:        maphash.MakeSeed(),
		flights:     make(map[tokenstore.Digest]*flight),
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.ttl > 0 {
		var err error
		c.records, err = ristretto.NewCache(&ristretto.Config[uint64, *entry]{
			// Ten counters for each typical record, as its manual advises. They take 3 to 7 bytes each, which is
			// what the eighth is set aside for.
			NumCounters: o.MaxSize / 64,
			MaxCost:     o.MaxSize - o.MaxSize/8 - fixedSize,
			BufferItems: 64,
			// Weights are bytes and count ristretto's own share already.
			IgnoreInternalCost: true,
			// Keys are hashes already; the default would box each of them. Conflict 0 is "not checked": two digests
			// with one hash take turns, which good notices.
			KeyToHash: func(hash uint64) (uint64, uint64) { return hash, 0 },
			OnEvict:   c.evicted,
			OnReject:  func(*ristretto.Item[*entry]) { c.drops.Add(1) },
		})
		if err != nil {
			return nil, fmt.Errorf("token cache: %w", err)
		}
	}
	c.base, c.stop = context.WithCancel(context.Background())
	return c, nil
}

// Lookup returns the record of d. It returns tokenstore.ErrNotFound when there is none, and any other error when that
// could not be found out in time: by the store, or by ctx.
//
// A record that was live when it was read is never returned from memory at or after its ExpiresAt: the store is asked
// again. Expired records are returned as the store returns them, so the caller checks Expired, as with the store itself.
func (c *Tokens) Lookup(ctx context.Context, d tokenstore.Digest) (*tokenstore.Record, error) {
	now, hash := c.now(), maphash.Bytes(c.seed, d[:])
	if e, ok := c.records.Get(hash); ok && c.good(e, d, now) {
		c.hits.Add(1)
		return e.record, nil
	}
	if e := c.unknown[hash%unknowns].Load(); e != nil && c.good(e, d, now) {
		c.negativeHits.Add(1)
		return nil, tokenstore.ErrNotFound
	}
	c.misses.Add(1)
	for range maxTries {
		f := c.join(d)
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the token's record: %w", ctx.Err())
		}
		// The caller may have asked before the Forget that outdated this answer, but need not have.
		if !f.answered() || c.current(d, f.generation) {
			return f.record, f.err
		}
	}
	return nil, errChanged
}

// Forget makes sure that no Lookup returns what the store held for d before this call: none that begins after Forget has
// returned, and none that is waiting for the store now. It never blocks.
func (c *Tokens) Forget(d tokenstore.Digest) { c.generation(d).Add(1) }

// ForgetAll is Forget for every token there is.
func (c *Tokens) ForgetAll() {
	for i := range c.generations {
		c.generations[i].Add(1)
	}
}

// Close ends the lookups that are running and lets go of all memory. It is called once, after the last Lookup has returned.
func (c *Tokens) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.running.Wait()
	c.records.Close()
}

// TokensStats are counts since the start, but for Size and MaxSize.
type TokensStats struct {
	Hits         uint64 // lookups answered with a remembered record
	NegativeHits uint64 // lookups answered with a remembered ErrNotFound
	Misses       uint64 // all other lookups
	Queries      uint64 // lookups in the store; less than Misses when several waited for one
	Evictions    uint64 // records pushed out before their time, for room
	Drops        uint64 // records that ristretto did not take in
	Size         int64  // bytes of the remembered records; those that expired or were forgotten count for a while yet
	MaxSize      int64  // bound of Size
}

// Stats returns the counts, each right by itself.
func (c *Tokens) Stats() TokensStats {
	return TokensStats{
		Hits:         c.hits.Load(),
		NegativeHits: c.negativeHits.Load(),
		Misses:       c.misses.Load(),
		Queries:      c.queries.Load(),
		Evictions:    c.evictions.Load(),
		Drops:        c.drops.Load(),
		Size:         c.records.MaxCost() - c.records.RemainingCost(),
		MaxSize:      c.records.MaxCost(),
	}
}

// generation is the counter for d. Digests are uniform, so two bytes of one spread well.
func (c *Tokens) generation(d tokenstore.Digest) *atomic.Uint32 {
	return &c.generations[(uint(d[0])<<8|uint(d[1]))%generations]
}

// current says whether no Forget came since generation was read.
func (c *Tokens) current(d tokenstore.Digest, generation uint32) bool {
	return c.generation(d).Load() == generation
}

// flight is one lookup in the store, with everyone who waits for it.
type flight struct {
	generation uint32    // from before the query
	started    time.Time // too
	until      time.Time // when it can no longer be joined; guarded by Tokens.mu

	done   chan struct{} // closed once the answer is here
	record *tokenstore.Record
	err    error
}

// answered says whether the store knew: there is a record, or there is none.
func (f *flight) answered() bool { return f.err == nil || errors.Is(f.err, tokenstore.ErrNotFound) }

// join returns the flight for d that is under way, or starts one. One that began before the last Forget, or longer than
// the TTL ago, is not joined: with a TTL of 0 every lookup asks the store for itself.
func (c *Tokens) join(d tokenstore.Digest) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if f := c.flights[d]; f != nil && now.Before(f.until) && c.current(d, f.generation) {
		return f
	}
	f := &flight{
		generation: c.generation(d).Load(),
		started:    now,
		until:      now.Add(c.ttl),
		done:       make(chan struct{}),
	}
	if c.closed {
		f.err = errClosed
		close(f.done)
		return f
	}
	c.flights[d] = f
	c.running.Go(func() { c.fly(d, f) })
	return f
}

// fly asks the store, on a context of its own: whoever came first may leave without harming the others.
func (c *Tokens) fly(d tokenstore.Digest, f *flight) {
	f.record, f.err = c.ask(d)
	until := c.lasts(f)
	c.mu.Lock()
	f.until = until
	c.mu.Unlock()
	close(f.done)
	// Nobody finds the answer in memory before ristretto has applied its buffered write: until then the flight can be
	// joined, or a crowd that arrives just now would ask the store once more.
	c.remember(d, f, until)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[d] == f { // not a later one
		delete(c.flights, d)
	}
}

// ask is one lookup in the store, its answer checked.
func (c *Tokens) ask(d tokenstore.Digest) (r *tokenstore.Record, err error) {
	c.queries.Add(1)
	ctx, cancel := context.WithTimeout(c.base, c.timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil { // net/http would catch it in a handler; in a goroutine of ours it ends the process
			r, err = nil, fmt.Errorf("token store panicked: %v", p)
		}
	}()
	r, err = c.store.Lookup(ctx, d)
	switch {
	case err != nil:
		return nil, err
	case r == nil || !r.Digest.Equal(d):
		return nil, errors.New("token store did not return the token's record")
	}
	return r, nil
}

// lasts is until when the answer of f is good. That runs from before the query, as the answer may be as old as that.
func (c *Tokens) lasts(f *flight) time.Time {
	switch {
	case !f.answered():
		return time.Time{}
	case f.record == nil || f.record.Expired(f.started):
		return f.started.Add(c.negativeTTL)
	}
	// Up to an eighth less than the TTL, so that tokens that came together do not leave together.
	until := f.started.Add(c.ttl - rand.N(c.ttl/8+1))
	if f.record.ExpiresAt.Before(until) {
		return f.record.ExpiresAt
	}
	return until
}

// remember keeps the answer of f, and returns when Lookup can find it, or never will.
func (c *Tokens) remember(d tokenstore.Digest, f *flight, until time.Time) {
	left := until.Sub(c.now())
	if left <= 0 || !c.current(d, f.generation) {
		return
	}
	e := &entry{digest: d, generation: f.generation, record: f.record, until: until}
	hash := maphash.Bytes(c.seed, d[:])
	if e.record == nil {
		c.unknown[hash%unknowns].Store(e)
		return
	}
	// The time that ristretto is given is only for tidying up. To it, 0 would be for ever.
	if !c.records.SetWithTTL(hash, e, e.weight(), left) {
		c.drops.Add(1)
	}
	c.records.Wait()
}

func (c *Tokens) evicted(i *ristretto.Item[*entry]) {
	if i.Value != nil && c.now().Before(i.Value.until) { // else it was tidied up
		c.evictions.Add(1)
	}
}

// good says whether e answers a lookup of d at now. ristretto compares hashes only, and keeps an old value when two new
// ones for one key come together, so everything is checked here.
func (c *Tokens) good(e *entry, d tokenstore.Digest, now time.Time) bool {
	return e.digest.Equal(d) && now.Before(e.until) && c.current(d, e.generation)
}

// entry is one remembered answer of the store. It is never changed.
type entry struct {
	digest     tokenstore.Digest
	generation uint32
	record     *tokenstore.Record // nil: no such token
	until      time.Time          // when it stops being good
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
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
	// StaleOnError is how long past the TTL a record still serves while the store does not answer, or not in time. It
	// is an operator's choice to be open for longer rather than closed: what was revoked since is let through for so
	// long, unless a Forget has told of it. A record never serves past its ExpiresAt; nor once the store has said
	// anything else of its token, be it only that there is none; nor after a ForgetAll, which is how a listener for
	// revocations begins, having perhaps missed some. 0: never.
	StaleOnError time.Duration
	// Timeout is the bound of one lookup, waiting for its query included. It must be positive.
	Timeout time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// MinTokensSize is the smallest MaxSize of a Tokens.
const MinTokensSize = 1 << 20

const (
	// groups is how many groups tokens are forgotten in. A Forget outdates the other tokens of its group, too: purging
	// 1,000 expired rows costs 3 % of the live ones another query.
	groups = 1 << 15
	// unknowns is how many unknown tokens are remembered. It need only cover clients that repeat themselves: no
	// memory holds the tokens of someone who makes them up.
	unknowns = 1 << 12
	// fixedSize is what is used before the first record: groups, unknowns, the queues, and ristretto's of 32,768 writes.
	fixedSize = groups*4 + unknowns*(8+entrySize) + 2*maxWaiting*8 + 32768*8
	// maxTries is how often a lookup starts over because a Forget came in between.
	maxTries = 3
)

// errChanged is fail closed: the caller gets no record that a Forget has outdated.
var errChanged = errors.New("the token's record kept changing while it was looked up")

var errClosed = errors.New("the token cache is closed")

// Tokens is a memory of looked-up tokens in front of a store. It may lose any record at any time, and never returns one
// that Forget was called for. All methods but Close may be called concurrently.
//
// How Forget wins against everything: each digest has a generation, which Forget raises. An answer of the store is marked
// with the generation from before its query was sent, and is only good while that is still the current one. So it does not
// matter when an old answer arrives, nor in which order ristretto applies its buffered writes, and there is nothing that
// Forget would have to find and delete.
type Tokens struct {
	store       Lookuper
	batch       int // how many digests the store takes in one query
	ttl         time.Duration
	negativeTTL time.Duration
	stale       time.Duration
	timeout     time.Duration
	now         func() time.Time

	forgets    [groups]atomic.Uint32
	forgetsAll atomic.Uint32
	seed       maphash.Seed                     // secret, so that nobody can choose tokens that collide
	records    *ristretto.Cache[uint64, *entry] // nil, which ristretto takes for an empty cache, when ttl is 0
	unknown    [unknowns]atomic.Pointer[entry]  // apart, so that unknown tokens cannot push out known ones
	silent     atomic.Pointer[time.Time]        // when the store did not answer, if that was the last time; else nil
	mu         sync.Mutex                       // taken on misses only; guards the next five
	flights    map[tokenstore.Digest]*flight    // those that can be joined, and some more
	known      queue                            // flights that were not sent yet
	others     queue                            // too
	workers    int                              // who send them; at least one while any waits
	closed     bool
	running    sync.WaitGroup     // one for each worker
	base       context.Context    // of all flights; ends with Close
	stop       context.CancelFunc // ends base

	hits, negativeHits, staleHits, misses, queries, refused, evictions, drops atomic.Uint64
}

// NewTokens is an empty Tokens in front of store. It runs goroutines until it is closed.
func NewTokens(store Lookuper, o TokensOptions) (*Tokens, error) {
	switch {
	case o.TTL < 0:
		return nil, fmt.Errorf("token cache: TTL is %v, want 0 or more", o.TTL)
	case o.NegativeTTL < 0:
		return nil, fmt.Errorf("token cache: negative TTL is %v, want 0 or more", o.NegativeTTL)
	case o.StaleOnError < 0:
		return nil, fmt.Errorf("token cache: stale on error is %v, want 0 or more", o.StaleOnError)
	case o.Timeout <= 0:
		return nil, fmt.Errorf("token cache: timeout is %v, want more than 0", o.Timeout)
	case o.TTL > 0 && o.MaxSize < MinTokensSize:
		return nil, fmt.Errorf("token cache: size is %d bytes, want at least %d", o.MaxSize, MinTokensSize)
	}
	c := &Tokens{
		store:       store,
		batch:       1,
		ttl:         o.TTL,
		negativeTTL: min(o.NegativeTTL, o.TTL),
		stale:       o.StaleOnError,
		timeout:     o.Timeout,
		now:         o.Now,
		seed:        maphash.MakeSeed(),
		flights:     make(map[tokenstore.Digest]*flight),
	}
	if c.now == nil {
		c.now = time.Now
	}
	if _, ok := store.(Batcher); ok {
		c.batch = tokenstore.MaxBatch
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
			// with one hash take turns, which recall notices.
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
	if e := c.recall(d, c.now()); e != nil {
		if e.record == nil {
			c.negativeHits.Add(1)
		} else {
			c.hits.Add(1)
		}
		return e.answer()
	}
	c.misses.Add(1)
	late := time.NewTimer(c.timeout)
	defer late.Stop()
	for range maxTries {
		f := c.join(d)
		if since := c.silent.Load(); since != nil && c.now().Sub(*since) < 2*c.timeout {
			if r := c.standIn(d); r != nil { // the flight goes on, to find out when the store answers again
				return r, nil
			}
		}
		err := errLate
		select {
		case <-f.done:
			err = f.err
		case <-late.C:
			c.leave(f)
		case <-ctx.Done():
			c.leave(f)
			return nil, fmt.Errorf("waiting for the token's record: %w", ctx.Err())
		}
		if err != nil {
			if r := c.standIn(d); r != nil && !errors.Is(err, tokenstore.ErrCorrupt) {
				return r, nil
			}
			return nil, err
		}
		// A Forget may have come meanwhile. The caller asked before it, but is not given what it outdated either.
		if f.entry.generation == c.generation(d) {
			return f.entry.answer()
		}
	}
	return nil, errChanged
}

// standIn is what serves for d while the store does not answer; nil: nothing may.
func (c *Tokens) standIn(d tokenstore.Digest) *tokenstore.Record {
	e, now := c.past(d), c.now()
	if e == nil || e.generation != c.generation(d) || e.record.Expired(now) || !now.Before(e.until.Add(c.stale)) {
		return nil
	}
	c.staleHits.Add(1)
	return e.record
}

// Forget makes sure that no Lookup returns what the store held for d before this call: none that begins after Forget has
// returned, and none that is waiting for the store now. It never blocks.
func (c *Tokens) Forget(d tokenstore.Digest) { c.forgets[group(d)].Add(1) }

// ForgetAll is Forget for every token there is.
func (c *Tokens) ForgetAll() { c.forgetsAll.Add(1) }

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
	StaleHits    uint64 // lookups answered past the TTL, since the store did not
	Misses       uint64 // lookups, StaleHits among them, that were answered with nothing remembered
	Queries      uint64 // queries to the store; less than Misses when several waited for one
	Refused      uint64 // lookups given up because too many newer ones came
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
		StaleHits:    c.staleHits.Load(),
		Misses:       c.misses.Load(),
		Queries:      c.queries.Load(),
		Refused:      c.refused.Load(),
		Evictions:    c.evictions.Load(),
		Drops:        c.drops.Load(),
		Size:         c.records.MaxCost() - c.records.RemainingCost(),
		MaxSize:      c.records.MaxCost(),
	}
}

// group is which of the groups d is in. Digests are uniform, so two bytes of one spread well.
func group(d tokenstore.Digest) int { return (int(d[0])<<8 | int(d[1])) % groups }

// generation is how often d has been forgotten. Both counters only rise: if the sum is the same again, neither has.
func (c *Tokens) generation(d tokenstore.Digest) uint32 {
	return c.forgets[group(d)].Load() + c.forgetsAll.Load()
}

func (c *Tokens) evicted(i *ristretto.Item[*entry]) {
	if i.Value != nil && c.now().Before(i.Value.until) { // else it was tidied up
		c.evictions.Add(1)
	}
}

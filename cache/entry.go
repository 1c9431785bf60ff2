package cache

import (
	"hash/maphash"
	"math/rand/v2"
	"time"
	"unsafe"

	"github.com/dpopgate/dpopgate/tokenstore"
)

// entry is one remembered answer of the store. It is never changed.
type entry struct {
	digest     tokenstore.Digest
	generation uint32
	record     *tokenstore.Record // nil: no such token
	until      time.Time          // when it stops being good
}

// answer is what the store said.
func (e *entry) answer() (*tokenstore.Record, error) {
	if e.record == nil {
		return nil, tokenstore.ErrNotFound
	}
	return e.record, nil
}

// recall returns the entry for d, if one is good at now. Nothing is taken on trust from ristretto, which compares hashes
// only and keeps the older of two new values for one key.
func (c *Tokens) recall(d tokenstore.Digest, now time.Time) *entry {
	hash := maphash.Bytes(c.seed, d[:])
	if e, ok := c.records.Get(hash); ok && c.good(e, d, now) {
		return e
	}
	if e := c.unknown[hash%unknowns].Load(); e != nil && c.good(e, d, now) {
		return e
	}
	return nil
}

func (c *Tokens) good(e *entry, d tokenstore.Digest, now time.Time) bool {
	return e.digest.Equal(d) && now.Before(e.until) && e.generation == c.generation(d)
}

// until is how long an answer is good whose query began at started: no later than that is it sure to have been true.
func (c *Tokens) until(r *tokenstore.Record, started time.Time) time.Time {
	if r == nil || r.Expired(started) {
		return started.Add(c.negativeTTL)
	}
	// Up to an eighth less than the TTL, so that tokens that came together do not leave together.
	until := started.Add(c.ttl - rand.N(c.ttl/8+1))
	if r.ExpiresAt.Before(until) {
		return r.ExpiresAt
	}
	return until
}

// past is the entry of the record that the store had for d the last time, however long ago. It need not be good.
func (c *Tokens) past(d tokenstore.Digest) *entry {
	if e, ok := c.records.Get(maphash.Bytes(c.seed, d[:])); ok && e.digest.Equal(d) {
		return e
	}
	return nil
}

// remember keeps the answers of a batch, and returns when recall can find them, or never will.
func (c *Tokens) remember(batch []*flight) {
	now := c.now()
	for _, f := range batch {
		e := f.entry
		if e == nil || !now.Before(e.until) {
			continue
		}
		hash := maphash.Bytes(c.seed, e.digest[:])
		if e.record == nil {
			c.unknown[hash%unknowns].Store(e)
			continue
		}
		// The time that ristretto is given is only for tidying up. It is longer than until: an old record may have to
		// stand in for the store, and it shows that its token is not a made-up one.
		if !c.records.SetWithTTL(hash, e, e.weight(), e.until.Sub(now)+max(c.stale, c.ttl)) {
			c.drops.Add(1)
		}
	}
	c.records.Wait()
}

const (
	entrySize  = int64(unsafe.Sizeof(entry{})+15) &^ 15
	recordSize = int(unsafe.Sizeof(tokenstore.Record{}))
	stringSize = int(unsafe.Sizeof(""))
	// bookkeeping is what ristretto spends on a record: its item, and a place in its maps of items, weights and
	// deadlines, which are between half and fully loaded.
	bookkeeping = 240
)

// weight is the memory that e takes, in bytes, ristretto's share included.
func (e *entry) weight() int64 {
	r := e.record
	n := entrySize + bookkeeping + allocated(recordSize)
	n += allocated(len(r.TokenType)) + allocated(len(r.DPoPJKT)) + allocated(cap(r.Metadata))
	for _, list := range [...][]string{r.Scopes, r.Audience} {
		n += allocated(cap(list) * stringSize)
		for _, s := range list {
			n += allocated(len(s))
		}
	}
	return n
}

// allocated rounds up to what the allocator hands out for small sizes.
func allocated(n int) int64 { return int64(n+15) &^ 15 }

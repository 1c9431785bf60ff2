package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dpopgate/dpopgate/tokenstore"
)

// flight is one query, with everyone who waits for its answer.
type flight struct {
	generation uint32    // from before the query
	started    time.Time // too
	joinable   time.Time // until then; guarded by Tokens.mu

	done  chan struct{} // closed once one of these is set
	entry *entry
	err   error // the store could not answer
}

// join returns the flight for d that is under way, or starts one. One that began before the last Forget, or longer than
// the TTL ago, is not joined: with a TTL of 0 every lookup asks the store for itself.
func (c *Tokens) join(d tokenstore.Digest) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, generation := c.now(), c.generation(d)
	if f := c.flights[d]; f != nil && f.generation == generation && now.Before(f.joinable) {
		return f
	}
	f := &flight{generation: generation, started: now, joinable: now.Add(c.ttl), done: make(chan struct{})}
	f.entry = c.recall(d, now) // of a flight that ended since the caller looked
	if c.closed {
		f.err = errClosed
	}
	if f.entry != nil || f.err != nil {
		close(f.done)
		return f
	}
	c.flights[d] = f
	c.running.Go(func() { c.fly(d, f) })
	return f
}

// fly asks the store, on a context of its own: whoever came first may leave without harming the others.
func (c *Tokens) fly(d tokenstore.Digest, f *flight) {
	var joinable time.Time
	switch r, err := c.ask(d); {
	case err == nil || errors.Is(err, tokenstore.ErrNotFound):
		joinable = c.until(r, f.started)
		f.entry = &entry{digest: d, generation: f.generation, record: r, until: joinable}
	default:
		f.err = err
	}
	c.mu.Lock()
	f.joinable = joinable
	c.mu.Unlock()
	close(f.done)
	// An answer is not found in memory before ristretto has applied its buffered write. Until then this flight can be
	// joined, or a crowd that arrives just now would ask the store once more.
	if f.entry != nil {
		c.remember(f.entry)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[d] == f { // not a later one
		delete(c.flights, d)
	}
}

// ask is one query, its answer checked.
func (c *Tokens) ask(d tokenstore.Digest) (r *tokenstore.Record, err error) {
	c.queries.Add(1)
	ctx, cancel := context.WithTimeout(c.base, c.timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil { // net/http catches those of a handler; one of this goroutine would end the process
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

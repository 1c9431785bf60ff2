package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dpopgate/dpopgate/tokenstore"
)

var (
	// errBusy is fail fast: an answer would come too late.
	errBusy = errors.New("too many lookups are waiting for the token store")
	// errLate says that a lookup was not answered within its time, the wait for its query included.
	errLate = fmt.Errorf("the token store did not answer in time: %w", context.DeadlineExceeded)
)

// flight is one digest that the store is asked about, with everyone who waits for the answer.
type flight struct {
	digest  tokenstore.Digest
	known   bool // the store had a record of it the last time, as far as we remember
	follows bool // another flight for it had not landed yet

	// All guarded by Tokens.mu.
	callers    int       // who wait
	sent       bool      // the query has begun
	generation uint32    // from before the query
	started    time.Time // too
	joinable   time.Time // until then, once sent

	done  chan struct{} // closed once one of these is set
	entry *entry
	err   error // the store could not answer
}

// end has everyone know.
func (f *flight) end(e *entry, err error) {
	f.entry, f.err = e, err
	close(f.done)
}

// join returns the flight for d that is under way, or starts one. One that was sent before the last Forget, or longer than
// the TTL ago, is not joined: with a TTL of 0 no answer serves who asked after its query began.
func (c *Tokens) join(d tokenstore.Digest) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, generation := c.now(), c.generation(d)
	if f := c.flights[d]; f != nil && (!f.sent || f.generation == generation && now.Before(f.joinable)) {
		f.callers++
		return f
	}
	f := &flight{digest: d, follows: c.flights[d] != nil, done: make(chan struct{}), callers: 1}
	if e := c.recall(d, now); e != nil { // of a flight that ended since the caller looked
		f.end(e, nil)
		return f
	}
	if c.closed {
		f.end(nil, errClosed)
		return f
	}
	c.flights[d] = f
	f.known = c.past(d) != nil
	if gone := c.line(f).push(f); gone != nil {
		c.abandon(gone, errBusy)
		c.refused.Add(1)
	}
	if c.workers < atOnce {
		c.workers++
		c.running.Go(c.work)
	}
	return f
}

// leave is for a caller who no longer waits. A flight that nobody waits for is not sent.
func (c *Tokens) leave(f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.callers--
}

// line is where f waits. Known tokens go first, so that renewing what is remembered does not compete with made-up tokens.
func (c *Tokens) line(f *flight) *queue {
	if f.known {
		return &c.known
	}
	return &c.others
}

// abandon ends a flight that was not sent. The caller holds mu.
func (c *Tokens) abandon(f *flight, err error) {
	f.end(nil, err)
	c.land(f)
}

// land has nobody join f any more. The caller holds mu.
func (c *Tokens) land(f *flight) {
	if c.flights[f.digest] == f { // not a later one
		delete(c.flights, f.digest)
	}
}

// work asks for what waits until nothing does.
func (c *Tokens) work() {
	for batch := c.next(); batch != nil; batch = c.next() {
		c.fly(batch)
	}
}

// next is what to ask for next, or nil for the end of this worker. Flights that gather while all are busy go together,
// and one that comes alone goes at once.
func (c *Tokens) next() (batch []*flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(batch) < c.batch {
		f := c.known.pop()
		if f == nil {
			f = c.others.pop()
		}
		switch {
		case f == nil:
			if batch == nil {
				c.workers--
			}
			return batch
		case c.closed:
			c.abandon(f, errClosed)
		case f.callers == 0:
			c.abandon(f, errLate)
		default:
			f.sent, f.started, f.generation = true, c.now(), c.generation(f.digest)
			f.joinable = f.started.Add(c.ttl)
			batch = append(batch, f)
		}
	}
	return batch
}

// fly asks the store, on a context of its own: whoever came first may leave without harming the others.
func (c *Tokens) fly(batch []*flight) {
	answers := c.ask(batch)
	if slices.ContainsFunc(answers, answered) {
		c.silent.Store(nil)
	} else {
		now := c.now()
		c.silent.Store(&now)
	}
	c.mu.Lock()
	for i, f := range batch {
		f.joinable = time.Time{}
		a := answers[i]
		if !answered(a) {
			continue
		}
		c.contradict(f, a.Record)
		if !errors.Is(a.Err, tokenstore.ErrCorrupt) {
			f.joinable = c.until(a.Record, f.started)
			f.entry = &entry{digest: f.digest, generation: f.generation, record: a.Record, until: f.joinable}
			answers[i].Err = nil
		}
	}
	c.mu.Unlock()
	for i, f := range batch {
		f.end(f.entry, answers[i].Err)
	}
	// An answer is not found in memory before ristretto has applied its buffered write. Until then its flight can be
	// joined, or a crowd that arrives just now would ask the store once more.
	c.remember(batch)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range batch {
		c.land(f)
	}
}

// answered says whether the store said something of the token.
func answered(a tokenstore.Answer) bool {
	return a.Err == nil || errors.Is(a.Err, tokenstore.ErrNotFound) || errors.Is(a.Err, tokenstore.ErrCorrupt)
}

// contradict makes sure that no older record stands in for the store after it has given another answer: where there is
// none to take the old one's place, or the two may reach ristretto in any order, it is forgotten, and f not with it. The
// caller holds mu.
func (c *Tokens) contradict(f *flight, r *tokenstore.Record) {
	if c.stale > 0 && (f.follows || f.known && r == nil) {
		c.Forget(f.digest)
		f.generation++
	}
}

// ask is one query, its answers checked.
func (c *Tokens) ask(batch []*flight) (answers []tokenstore.Answer) {
	c.queries.Add(1)
	ctx, cancel := context.WithTimeout(c.base, c.timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil { // net/http catches those of a handler; one of this goroutine would end the process
			answers = failed(batch, fmt.Errorf("token store panicked: %v", p))
		}
	}()
	answers = c.lookupAll(ctx, batch)
	if len(answers) != len(batch) {
		return failed(batch, errors.New("token store did not answer all that it was asked"))
	}
	for i, f := range batch {
		if a := &answers[i]; a.Err != nil {
			a.Record = nil
		} else if a.Record == nil || !a.Record.Digest.Equal(f.digest) {
			*a = tokenstore.Answer{Err: errors.New("token store did not return the token's record")}
		}
	}
	return answers
}

// lookupAll asks a store that can take only one at a time for one.
func (c *Tokens) lookupAll(ctx context.Context, batch []*flight) []tokenstore.Answer {
	store, ok := c.store.(Batcher)
	if !ok {
		r, err := c.store.Lookup(ctx, batch[0].digest)
		return []tokenstore.Answer{{Record: r, Err: err}}
	}
	ds := make([]tokenstore.Digest, len(batch))
	for i, f := range batch {
		ds[i] = f.digest
	}
	return store.LookupAll(ctx, ds)
}

// failed is one error for all.
func failed(batch []*flight, err error) []tokenstore.Answer {
	answers := make([]tokenstore.Answer, len(batch))
	for i := range answers {
		answers[i].Err = err
	}
	return answers
}

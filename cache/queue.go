package cache

import (
	"context"

	"github.com/dpopgate/dpopgate/tokenstore"
)

const (
	// atOnce is how many queries are under way at a time. With few of them those that come meanwhile gather to one.
	atOnce = 4
	// maxWaiting is how many lookups of known tokens wait for their query, and how many of others.
	maxWaiting = 4096
)

// Batcher is a Lookuper that can be asked about several digests in one query.
type Batcher interface {
	Lookuper
	// LookupAll is Lookup for each of up to tokenstore.MaxBatch digests: the answers are in their order.
	LookupAll(ctx context.Context, ds []tokenstore.Digest) []tokenstore.Answer
}

// queue holds the flights whose query has not begun. The newest is the first: when the store is too slow for all, those
// that have waited long would run out of time before their answer, and answering them in their order would answer nobody.
// Where there is no room, the oldest has to go.
type queue struct {
	flights [maxWaiting]*flight
	oldest  int
	waiting int
}

// push adds f, and returns what had to go for it.
func (q *queue) push(f *flight) (gone *flight) {
	if q.waiting == len(q.flights) {
		gone = q.flights[q.oldest]
		q.oldest = (q.oldest + 1) % len(q.flights)
		q.waiting--
	}
	q.flights[(q.oldest+q.waiting)%len(q.flights)] = f
	q.waiting++
	return gone
}

// pop takes the newest out; nil when there is none.
func (q *queue) pop() *flight {
	if q.waiting == 0 {
		return nil
	}
	q.waiting--
	at := &q.flights[(q.oldest+q.waiting)%len(q.flights)]
	f := *at
	*at = nil
	return f
}

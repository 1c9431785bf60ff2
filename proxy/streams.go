package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// streams are the exchanges that are with their upstream: a stream does not outlive its token. It may be used
// concurrently.
//
// What is done within streamAge is no stream, and pays for being here with a place in a list, which is memory that it
// has anyway. What lasts longer is ended at most sweepEvery after its token's expiry or the notice of a revocation.
// Without notices its token is looked up again each recheckEvery, as a new request's would be, cache included.
type streams struct {
	o        *Options
	shards   [streamShards]streamShard
	armed    atomic.Bool // a sweep is due
	checking atomic.Bool // tokens are being looked up
	sweeps   *time.Timer
}

const (
	streamShards = 16
	streamAge    = time.Second
	sweepEvery   = 250 * time.Millisecond
	recheckEvery = time.Second
	recheckers   = 32 // lookups at a time
	maxUnchecked = 2  // lookups in a row that could not tell before a stream ends: what cannot be checked is refused
)

type streamShard struct {
	mu    sync.Mutex
	first *exchange
	_     [40]byte // a cache line of its own
}

// stream is what is known of an exchange while it is in streams. The shard's mu guards it.
type stream struct {
	shard      *streamShard // nil: not in the list
	next, prev *exchange

	expires   time.Time
	checked   time.Time          // when its token was looked up last
	unchecked int                // lookups since that could not tell
	revoked   bool               // there was a notice
	reason    dpop.Reason        // why the gateway ended it
	err       error              // what failed inside, likewise
	cancel    context.CancelFunc // of the upstream's request; nil: that is short
	body      io.Closer          // of the answer; nil: none yet
	tunnel    *tunnel            // nil: none
}

func newStreams(o *Options) *streams {
	s := &streams{o: o}
	s.sweeps = time.AfterFunc(time.Hour, s.sweep)
	s.sweeps.Stop()
	return s
}

// add takes an exchange in as it goes to its upstream.
func (s *streams) add(x *exchange) {
	st := &x.stream
	st.expires, st.checked = x.record.ExpiresAt, x.now
	shard := &s.shards[x.record.Digest[0]%streamShards]
	shard.mu.Lock()
	st.shard, st.next = shard, shard.first
	if st.next != nil {
		st.next.stream.prev = x
	}
	shard.first = x
	shard.mu.Unlock()
	s.arm()
}

// arm makes a sweep due, if none is.
func (s *streams) arm() {
	if !s.armed.Load() && s.armed.CompareAndSwap(false, true) {
		s.sweeps.Reset(sweepEvery)
	}
}

// leaveStreams takes an exchange out. Nothing ends it from then on.
func (x *exchange) leaveStreams() {
	st := &x.stream
	if st.shard == nil {
		return
	}
	st.shard.mu.Lock()
	defer st.shard.mu.Unlock()
	if st.prev != nil {
		st.prev.stream.next = st.next
	} else {
		st.shard.first = st.next
	}
	if st.next != nil {
		st.next.stream.prev = st.prev
	}
	st.next, st.prev, st.shard = nil, nil, nil
}

// begins notes that the answer has begun: body or tunnel is what is to be closed to end it. It says whether it may.
func (x *exchange) begins(body io.Closer, t *tunnel) bool {
	st := &x.stream
	if st.shard == nil {
		return true
	}
	st.shard.mu.Lock()
	defer st.shard.mu.Unlock()
	st.body, st.tunnel = body, t
	return st.reason == ""
}

// streaming says whether an exchange is a stream by now: its bodies go on, and not just its wait for an answer.
func (x *exchange) streaming(now time.Time) bool {
	st := &x.stream
	switch {
	case st.tunnel != nil:
		return true
	case since(now, x.sent) < streamAge:
		return false
	}
	return st.body != nil || st.cancel != nil && !x.body.ended.Load()
}

// end ends a stream. The shard is locked: the handler cannot return in the meantime, and what it uses is still its.
func (x *exchange) end(reason dpop.Reason) {
	st := &x.stream
	if st.reason != "" {
		return
	}
	st.reason = reason
	if st.tunnel != nil {
		go st.tunnel.stop(policyViolation, string(reason))
		return
	}
	x.out.cut.Store(true)
	at := http.NewResponseController(x.out)
	at.SetReadDeadline(time.Unix(1, 0)) // for whatever waits for the client
	if st.body == nil {
		st.cancel()
		return // to upstreamFailed, which can still answer
	}
	at.SetWriteDeadline(x.out.lastMoment())
	go st.body.Close()
}

// errEnded is why there is no answer: the stream was ended before.
var errEnded = errors.New("the token's life ended")

// ended is the refusal of an exchange that the gateway has ended, and nil for others.
func (x *exchange) ended() *refusal {
	st := &x.stream
	if st.shard == nil {
		return nil
	}
	st.shard.mu.Lock()
	defer st.shard.mu.Unlock()
	switch st.reason {
	case "":
		return nil
	case StoreUnavailable:
		return unavailable(st.reason, st.err)
	}
	return refuseToken(st.reason)
}

// sweep ends the streams whose time has come, and has the tokens of the others looked up.
func (s *streams) sweep() {
	s.armed.Store(false)
	now := s.o.Now()
	due := map[tokenstore.Digest][]*exchange{}
	busy := false
	for i := range s.shards {
		shard := &s.shards[i]
		shard.mu.Lock()
		for x := shard.first; x != nil; x = x.stream.next {
			busy = true
			st := &x.stream
			switch {
			case !x.streaming(now) || st.reason != "":
			case st.revoked:
				x.end(TokenUnknown)
			case !now.Before(st.expires):
				x.end(TokenExpired)
			case since(now, st.checked) >= recheckEvery:
				due[x.record.Digest] = append(due[x.record.Digest], x)
			}
		}
		shard.mu.Unlock()
	}
	if busy {
		s.arm()
	}
	if len(due) > 0 && s.checking.CompareAndSwap(false, true) {
		go func() {
			defer s.checking.Store(false)
			s.recheck(due)
		}()
	}
}

// recheck looks tokens up again, each one once, and ends the streams that a request would not get any more.
func (s *streams) recheck(due map[tokenstore.Digest][]*exchange) {
	var all errgroup.Group
	all.SetLimit(recheckers)
	for digest, exchanges := range due {
		all.Go(func() error {
			rec, err := s.o.Tokens.Lookup(context.Background(), digest)
			shard := &s.shards[digest[0]%streamShards]
			shard.mu.Lock()
			defer shard.mu.Unlock()
			for _, x := range exchanges {
				if x.stream.shard != nil {
					x.recheck(rec, err, s.o.Now())
				}
			}
			return nil
		})
	}
	all.Wait()
}

// recheck is what a lookup says about a stream.
func (x *exchange) recheck(rec *tokenstore.Record, err error, now time.Time) {
	st := &x.stream
	st.checked = now
	if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
		if st.unchecked++; st.unchecked >= maxUnchecked {
			st.err = err
			x.end(StoreUnavailable)
		}
		return
	}
	st.unchecked = 0
	switch {
	case err != nil:
		x.end(TokenUnknown)
	case rec.TokenType != x.record.TokenType || rec.DPoPJKT != x.record.DPoPJKT:
		x.end(TokenBound)
	case !x.route.serves(rec.Audience, x.origin):
		x.end(AudienceMismatch)
	default:
		st.expires = rec.ExpiresAt
		if f := x.route.allows(rec); f != nil {
			x.end(f.reason)
		}
	}
}

// Revoked ends the streams of these tokens, without asking the store. It is for who hears of a revocation before the
// cache would: streams end within the quarter of a second after their first one.
func (g *Gateway) Revoked(digests ...tokenstore.Digest) {
	now := g.o.Now()
	for _, digest := range digests {
		shard := &g.streams.shards[digest[0]%streamShards]
		shard.mu.Lock()
		for x := shard.first; x != nil; x = x.stream.next {
			if x.record.Digest != digest {
				continue
			}
			x.stream.revoked = true
			if x.streaming(now) {
				x.end(TokenUnknown)
			}
		}
		shard.mu.Unlock()
	}
}

package proxy

import (
	"fmt"
	"hash/maphash"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/dpopgate/dpopgate/config"
)

// limiter is the rate limit of one route: a bucket for each caller, which holds burst requests and fills up again at
// requests per window. It may be used concurrently.
//
// Its memory is bounded. A bucket that has filled up again is as good as none, so such buckets make room for others and
// nothing is lost. While all those looked at are in use, callers that have no bucket yet share one for each shard: they
// get less than is theirs, and nobody gets more.
type limiter struct {
	config config.RateLimit
	name   string        // in the RateLimit fields
	each   time.Duration // after which one more request is due
	full   time.Duration // that an empty bucket takes to fill up
	began  time.Time
	seed   maphash.Seed
	shards [limiterShards]limiterShard
}

const (
	limiterShards   = 64
	bucketsPerShard = 1024 // with 64 shards at most 65,536 callers on a route, about 4 MiB
	bucketsSearched = 16   // for one that has filled up, before sharing
)

type limiterShard struct {
	mu      sync.Mutex
	index   map[caller]int
	buckets []bucket
	hand    int           // where the next search begins
	shared  time.Duration // the filled time of the bucket of those who found no room
}

// bucket is a caller's state in the generic cell rate algorithm (ITU-T I.371): when, counted from limiter.began, it will
// have filled up again.
type bucket struct {
	caller caller
	filled time.Duration
}

// caller is whom requests are counted for.
type caller struct {
	id     [16]byte
	client bool // id is a client's and not a user's
}

// newLimiter compiles a rate limit, or takes over the one in force when it says the same. now starts its clock.
func newLimiter(c *config.RateLimit, before *limiter, now time.Time) *limiter {
	if c == nil {
		return nil
	}
	if before != nil && before.config == *c {
		return before
	}
	l := &limiter{
		config: *c,
		name:   strconv.Quote(c.Per),
		each:   c.Window.Std() / time.Duration(c.Requests),
		began:  now,
		seed:   maphash.MakeSeed(),
	}
	l.full = l.each * time.Duration(l.burst())
	return l
}

// limiter is that of a route by its pattern, or nil.
func (t *table) limiter(match string) *limiter {
	if t == nil {
		return nil
	}
	for _, rt := range t.routes {
		if rt.match == match {
			return rt.limit
		}
	}
	return nil
}

// burst is how many requests may come at once.
func (l *limiter) burst() int {
	if l.config.Burst > 0 {
		return l.config.Burst
	}
	return l.config.Requests
}

// caller says whom a request is counted for. A token of no user counts for its client, and the addresses of one IPv6
// network of 64 bits, which is what a single subscriber has, count as one.
func (l *limiter) caller(x *exchange) (c caller) {
	switch l.config.Per {
	case "subject":
		c.id = x.record.UserID.UUID
		if !x.record.UserID.Valid {
			c = caller{x.record.ClientID, true}
		}
	case "client":
		c = caller{x.record.ClientID, true}
	case "token":
		c.id = x.record.JTI
	case "ip":
		addr, err := netip.ParseAddr(x.event.Client)
		if err != nil {
			return c // without an address, such as behind a Unix socket: all as one
		}
		if addr = addr.Unmap().WithZone(""); addr.Is6() {
			prefix, _ := addr.Prefix(64)
			addr = prefix.Addr()
		}
		c.id = addr.As16()
	}
	return c
}

// allowance is what a caller has left after a request.
type allowance struct {
	ok        bool
	remaining int64         // requests that may come at once
	filled    time.Duration // until there are as many as there can be
	retry     time.Duration // until the next one is taken; 0 when ok
}

// take counts one request.
func (l *limiter) take(c caller, now time.Time) allowance {
	at := now.Sub(l.began)
	s := &l.shards[maphash.Comparable(l.seed, c)%limiterShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	filled := s.find(c, at)
	// A clock that was set back must not lock anybody out for longer than an empty bucket does.
	from := min(max(*filled, at), at+l.full)
	if wait := from + l.each - at - l.full; wait > 0 {
		return allowance{filled: from - at, retry: wait}
	}
	*filled = from + l.each
	left := *filled - at
	return allowance{ok: true, remaining: int64((l.full - left) / l.each), filled: left}
}

// find is the state of a caller's bucket, of a new one, or of the shared one.
func (s *limiterShard) find(c caller, at time.Duration) *time.Duration {
	if i, ok := s.index[c]; ok {
		return &s.buckets[i].filled
	}
	if s.index == nil {
		s.index = map[caller]int{}
	}
	if len(s.buckets) < bucketsPerShard {
		s.index[c] = len(s.buckets)
		s.buckets = append(s.buckets, bucket{c, at})
		return &s.buckets[len(s.buckets)-1].filled
	}
	for range bucketsSearched {
		s.hand = (s.hand + 1) % bucketsPerShard
		if b := &s.buckets[s.hand]; b.filled <= at {
			delete(s.index, b.caller)
			s.index[c] = s.hand
			*b = bucket{c, at}
			return &b.filled
		}
	}
	return &s.shared
}

// throttle counts a request that has passed every check, so that nobody can use up what is another's, and says on the
// answer what is left (draft-ietf-httpapi-ratelimit-headers-10).
func (x *exchange) throttle(h http.Header) *refusal {
	if x.route == nil || x.route.limit == nil || x.asked != "" {
		return nil
	}
	l := x.route.limit
	a := l.take(l.caller(x), x.now)
	h["Ratelimit-Policy"] = []string{fmt.Sprintf("%s;q=%d;w=%d", l.name, l.burst(), seconds(l.full))}
	h["Ratelimit"] = []string{fmt.Sprintf("%s;r=%d;t=%d", l.name, a.remaining, seconds(a.filled))}
	if a.ok {
		return nil
	}
	f := refuseRequest(http.StatusTooManyRequests, RateLimited, "too many requests, wait before the next")
	f.retryAfter, f.pardonable = seconds(a.retry), true
	return f
}

// seconds is a duration in whole seconds, rounded up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// ownRateLimit takes an upstream's own fields out where we send ours.
func (x *exchange) ownRateLimit(h http.Header) {
	if x.route.limit != nil {
		delete(h, "Ratelimit")
		delete(h, "Ratelimit-Policy")
	}
}

// words says what the limit is.
func (l *limiter) words() string {
	return fmt.Sprintf("limited to %d in %s per %s, %d at once", l.config.Requests, l.config.Window, l.config.Per, l.burst())
}

package proxy

import (
	"encoding/binary"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
)

// CheckReasons is the reasons of each check that explain shows.
func CheckReasons() [][]dpop.Reason {
	all := make([][]dpop.Reason, len(checks))
	for i, c := range checks {
		all[i] = c.reasons
	}
	return all
}

// FillLimiter counts one request for each of n callers, from the given one on, and says how many were let through.
func FillLimiter(g *Gateway, match string, from, n int, now time.Time) (taken int) {
	l := g.table.Load().limiter(match)
	for i := range n {
		var c caller
		binary.BigEndian.PutUint64(c.id[:], uint64(from+i))
		if l.take(c, now).ok {
			taken++
		}
	}
	return taken
}

// LimiterSize is how many callers a limiter remembers.
func LimiterSize(g *Gateway, match string) (n int) {
	l := g.table.Load().limiter(match)
	for i := range l.shards {
		n += len(l.shards[i].buckets)
	}
	return n
}

// Hurry makes the gateway wait for bodies and readers for a moment only; call what it returns to undo that.
func Hurry(moment time.Duration) (undo func()) {
	grace, patience := bodyGrace, readerPatience
	bodyGrace, readerPatience = moment, moment
	return func() { bodyGrace, readerPatience = grace, patience }
}

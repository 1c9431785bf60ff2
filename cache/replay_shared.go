package cache

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"
)

// slack is how far the clock of a shared store may be ahead of an instance's. A store takes a claim until slack after the
// proof's end by its own clock, and remembers it for twice as long: what it takes it cannot have forgotten, even if its
// clock was put forward by up to slack meanwhile and then back. Beyond slack, claims near their end fail; none is taken
// twice, whatever any clock shows.
const slack = 5 * time.Second

var (
	errClocks = errors.New("by the replay store's clock this proof ended long ago: set the clocks of this machine and " +
		"of the store by the same NTP servers")
	errUnsure = errors.New("the connection broke off after this proof had been sent: whether it was fresh is not known")
)

// spoken tells the log when a store stops answering and when it answers again.
type spoken struct {
	log    *slog.Logger
	silent atomic.Bool
}

func (s *spoken) hear(err error) {
	switch {
	case err == nil && s.silent.CompareAndSwap(true, false):
		s.log.Info("replay store answers")
	case err != nil && s.silent.CompareAndSwap(false, true):
		s.log.Warn("replay store does not answer", "error", err)
	}
}

func loggerOf(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

func clockOf(now func() time.Time) func() time.Time {
	if now == nil {
		return time.Now
	}
	return now
}

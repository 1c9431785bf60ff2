package main

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/dpopgate/dpopgate/tokenstore"
)

const (
	// shortestWatchPause and longestWatchPause are how long nobody listens before the store is watched again: twice as long each
	// time that it did not work.
	shortestWatchPause = 50 * time.Millisecond
	longestWatchPause  = time.Second
	// setupWatchPause is that pause when somebody has to change something first.
	setupWatchPause = 10 * time.Second
)

// watch is the ear for revocations: it has what is remembered of tokens forgotten as soon as they change in the store.
// While it cannot listen, what is remembered lives out cache.ttl.
type watch struct {
	store     tokenstore.Watcher
	forget    func(tokenstore.Change)
	log       *slog.Logger
	ttl       time.Duration // for the log: the bound while nobody listens
	listening atomic.Bool
	notices   atomic.Uint64
	stop      context.CancelFunc
	ended     chan struct{}
}

// startWatch begins to listen. It goes on until close; forget is called for one change after the other, and not any more
// once close has returned.
func startWatch(store tokenstore.Watcher, ttl time.Duration, log *slog.Logger, forget func(tokenstore.Change)) *watch {
	ctx, stop := context.WithCancel(context.Background())
	w := &watch{store: store, forget: forget, log: log, ttl: ttl, stop: stop, ended: make(chan struct{})}
	go w.run(ctx)
	return w
}

// close ends the watch, and waits for that.
func (w *watch) close() {
	w.stop()
	<-w.ended
}

func (w *watch) run(ctx context.Context) {
	defer close(w.ended)
	said := false // the last news for the log was that nobody listens
	for pause := shortestWatchPause; ; pause = min(2*pause, longestWatchPause) {
		err := w.store.Watch(ctx, w.hear)
		if w.listening.Swap(false) {
			said, pause = false, shortestWatchPause
		}
		if ctx.Err() != nil {
			return
		}
		if !said {
			w.log.Warn("revocations are seen within cache.ttl and no sooner", "cache.ttl", w.ttl.String(), "error", oneLine(err))
			said = true
		}
		if errors.Is(err, tokenstore.ErrNoNotices) {
			pause = setupWatchPause
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// hear takes one change. The first of a Watch says that it listens, and counts for what it may have missed before.
func (w *watch) hear(c tokenstore.Change) {
	w.forget(c)
	if w.listening.CompareAndSwap(false, true) {
		w.log.Info("revocations are seen at once")
		return
	}
	w.notices.Add(1)
}

// state is the word for a status page.
func (w *watch) state() string {
	if w.listening.Load() {
		return "ok"
	}
	return "away"
}

// watchStore begins to listen for revocations.
func (s *server) watchStore() {
	store, ok := s.store.(tokenstore.Watcher)
	if !ok {
		return
	}
	s.watch = startWatch(store, s.config.Cache.TTL.Std(), s.log, s.forget)
	s.metrics.watchNotices(s.watch)
	s.ready.mention("revocation notices", s.watch.state)
}

// forget makes sure that nothing is let through any more by what was known of tokens before they changed. Streams of
// those that are gone end; those of others are looked up again soon, as the gateway does anyway.
func (s *server) forget(c tokenstore.Change) {
	if c.All {
		s.tokens.ForgetAll()
		return
	}
	for _, d := range c.Digests {
		s.tokens.Forget(d)
	}
	if c.Deleted {
		s.gateway.Revoked(c.Digests...)
	}
}

package cache

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
)

// askAgain is how often a shared store that does not answer is asked whether it does by now.
const askAgain = 500 * time.Millisecond

var errAway = errors.New("the replay store does not answer")

// SharedProofs is a dpop.Replay that several instances share.
type SharedProofs interface {
	dpop.Replay
	// Ping asks for what a Claim asks for, and takes nothing.
	Ping(ctx context.Context) error
}

// WatchedProofs is a shared dpop.Replay that knows whether it answers. From the first claim that fails on, until a Ping
// succeeds, it fails the others at once rather than have each wait. It may be used concurrently.
type WatchedProofs struct {
	store   SharedProofs
	log     *slog.Logger
	away    atomic.Bool
	base    context.Context // ends with Close
	stop    context.CancelFunc
	mu      sync.Mutex // guards closed, and running against it
	closed  bool
	running sync.WaitGroup
}

// WatchProofs watches store, and tells log when it begins and ceases to answer.
func WatchProofs(store SharedProofs, log *slog.Logger) *WatchedProofs {
	w := &WatchedProofs{store: store, log: loggerOf(log)}
	w.base, w.stop = context.WithCancel(context.Background())
	return w
}

// Away says whether the store does not answer.
func (w *WatchedProofs) Away() bool { return w.away.Load() }

// Claim implements dpop.Replay.
func (w *WatchedProofs) Claim(ctx context.Context, k dpop.ReplayKey, until time.Time) (fresh bool, err error) {
	if w.away.Load() {
		return false, errAway
	}
	fresh, err = w.store.Claim(ctx, k, until)
	if err != nil && ctx.Err() == nil && !errors.Is(err, dpop.ErrReplayFull) && !errors.Is(err, errClocks) {
		w.lose(err)
	}
	return fresh, err
}

// lose begins to wait for the store.
func (w *WatchedProofs) lose(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || !w.away.CompareAndSwap(false, true) {
		return
	}
	w.log.Warn("each instance takes proofs with nonces of its own, until the replay store answers", "error", err)
	w.running.Go(w.await)
}

// await asks the store until it answers.
func (w *WatchedProofs) await() {
	for w.store.Ping(w.base) != nil {
		select {
		case <-w.base.Done():
			return
		case <-time.After(askAgain):
		}
	}
	w.away.Store(false)
	w.log.Info("proofs are taken by all instances alike again")
}

// Close ends the asking. The store stays open.
func (w *WatchedProofs) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.stop()
	w.running.Wait()
}

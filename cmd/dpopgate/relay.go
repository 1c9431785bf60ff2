package main

import (
	"context"
	"errors"
	"fmt"
	"net/rpc"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
)

// claimTimeout bounds one question to the process that takes over.
const claimTimeout = 2 * time.Second

// relayedProofs is the process's own memory of used proofs. While the process hands over, a proof has to be fresh for the
// process that takes over, too: between them they accept it once.
type relayedProofs struct {
	own *cache.Proofs

	mu        sync.RWMutex
	successor *successor // nil: nobody takes over
}

// Claim implements dpop.Replay.
func (p *relayedProofs) Claim(ctx context.Context, k dpop.ReplayKey, until time.Time) (fresh bool, err error) {
	p.mu.RLock()
	to := p.successor
	if to == nil { // under the lock, so that whoever takes over is told of it
		defer p.mu.RUnlock()
		return p.own.Claim(ctx, k, until)
	}
	p.mu.RUnlock()
	// The other one first: it may be told at any time of what is claimed here, and would take that for another use.
	if fresh, err := to.claim(ctx, k, until); err != nil || !fresh {
		return false, err
	}
	return p.own.Claim(ctx, k, until)
}

// relayTo begins to ask another process, and tells it all that was claimed before.
func (p *relayedProofs) relayTo(ctx context.Context, to *successor) (err error) {
	p.ask(to)
	for part := range p.own.Parts() {
		if err := to.call(ctx, "Remember", part, new(bool)); err != nil {
			p.ask(nil)
			return err
		}
	}
	return nil
}

// ask sets who is asked. No Claim that has not heard of it is under way when it returns.
func (p *relayedProofs) ask(to *successor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.successor = to
}

// successor is the process that takes over.
type successor struct {
	client  *rpc.Client
	serving atomic.Bool // it may have been told to: from here on it may accept proofs
}

// call asks the other process for something.
func (to *successor) call(ctx context.Context, method string, arg, reply any) error {
	call := to.client.Go("Heir."+method, arg, reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		return call.Error
	case <-ctx.Done():
		return ctx.Err()
	}
}

// claim asks whether a proof is fresh. A process that ended before it was told to serve has accepted nothing, so its
// answer is not needed.
func (to *successor) claim(ctx context.Context, k dpop.ReplayKey, until time.Time) (fresh bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	err = to.call(ctx, "Claim", Claim{k, until}, &fresh)
	if isGone(err) && !to.serving.Load() {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking the process that takes over: %w", err)
	}
	return fresh, nil
}

// isGone says whether a call failed because the way to the other process is no more: it has answered nothing, nor has time
// run out.
func isGone(err error) bool {
	return err != nil && !errors.As(err, new(rpc.ServerError)) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled)
}

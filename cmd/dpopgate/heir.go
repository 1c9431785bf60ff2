package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"syscall"
	"time"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
)

// readyTimeout bounds how long a new process waits for what it stands on. It is below prepareTimeout, so that the reason
// is heard.
const readyTimeout = 20 * time.Second

// Bequest is what a process leaves to the one that takes over from it, beside its sockets. Nothing of it is in an
// environment, a file or a process list.
type Bequest struct {
	Replay   string    // what kind of memory of used proofs it has
	Started  time.Time // since when that has every used proof, where it is the process's own
	NonceKey []byte    // of the nonces that clients have got
}

// Claim is the question whether a proof may be used, of a process that has handed over and still finishes its requests.
type Claim struct {
	Key   dpop.ReplayKey
	Until time.Time
}

// Heir is what a process that takes over from another is asked by that one, by net/rpc: Prepare, then Remember until it
// knows every used proof, then Serve, and from the first Remember on Claim. Until Serve it accepts nothing by itself.
type Heir struct {
	bequest chan Bequest
	ready   chan error
	told    bool // that it is ready
	serve   chan struct{}
	serving chan struct{} // closed when it does
	gone    chan struct{} // closed when the other process has ended
	proofs  *relayedProofs
}

// newHeir begins to listen to the process at the other end.
func newHeir(way net.Conn) *Heir {
	h := &Heir{
		bequest: make(chan Bequest, 1), ready: make(chan error, 1),
		serve: make(chan struct{}, 1), serving: make(chan struct{}), gone: make(chan struct{}),
	}
	s := rpc.NewServer()
	if err := s.RegisterName("Heir", h); err != nil {
		panic(err) // Heir's methods are not what net/rpc wants
	}
	go func() {
		defer close(h.gone)
		s.ServeConn(way)
	}()
	return h
}

// Prepare returns when this process could serve, or with the reason why it cannot.
func (h *Heir) Prepare(b Bequest, _ *bool) error {
	h.bequest <- b
	return <-h.ready
}

// Remember takes a part of the used proofs.
func (h *Heir) Remember(m cache.Memory, _ *bool) error {
	if h.proofs == nil {
		return errors.New("this process does not remember proofs by itself")
	}
	return h.proofs.own.Learn(m)
}

// Serve returns when this process serves.
func (h *Heir) Serve(bool, *bool) error {
	h.serve <- struct{}{}
	<-h.serving
	return nil
}

// Claim says whether a proof is fresh, and uses it up.
func (h *Heir) Claim(c Claim, fresh *bool) (err error) {
	if h.proofs == nil {
		return errors.New("this process does not remember proofs by itself")
	}
	*fresh, err = h.proofs.Claim(context.Background(), c.Key, c.Until)
	return err
}

// takeOver serves in place of the process that has started this one, which goes on if anything is wrong here.
func takeOver(ctx context.Context, path string, from inheritance, e *env) (err error) {
	h := newHeir(from.predecessor)
	defer from.predecessor.Close()
	defer from.sockets.close()
	defer func() {
		if err != nil && !h.told {
			h.ready <- errors.New(oneLine(err))
			<-h.gone // it has read that
		}
	}()
	var b Bequest
	select {
	case b = <-h.bequest:
	case <-h.gone:
		return errors.New("the process to take over from has ended")
	}
	seen := config.Fingerprint(path)
	c, err := loadConfig(path)
	if err != nil {
		return err
	}
	if is := replayKind(c); is != b.Replay {
		return fmt.Errorf("dpop.replay was %s and is %s, which does not know the proofs that were used: stop the gateway, and start it %s later",
			b.Replay, is, c.DPoP.MaxAge.Std()+c.DPoP.MaxSkew.Std())
	}
	s, err := newServer(ctx, path, c, &b, e)
	if err != nil {
		return err
	}
	defer s.close()
	s.sockets, s.heir, s.reloads.seen = from.sockets, h, seen
	return s.run(ctx, e)
}

// replayKind names the memory of used proofs without its address, which may hold a password.
func replayKind(c *config.Config) string {
	switch c.DPoP.Replay {
	case "memory", "postgres":
		return string(c.DPoP.Replay)
	}
	return "valkey"
}

// await tells the other process when this one is ready, and waits for its word to serve.
func (h *Heir) await(ctx context.Context, s *server, signals <-chan os.Signal) error {
	h.proofs = s.proofs
	late := time.After(readyTimeout)
	for lacking := s.ready.lacking(); lacking != ""; lacking = s.ready.lacking() {
		select {
		case <-time.After(readyFor):
		case <-late:
			return fmt.Errorf("not ready: %s", lacking)
		case <-h.gone:
			return fmt.Errorf("not ready: %s", lacking)
		}
	}
	h.told = true
	h.ready <- nil
	for {
		select {
		case <-h.serve:
			return nil
		case <-h.gone:
			return errors.New("the process to take over from has ended")
		case <-ctx.Done():
			return ctx.Err()
		case sig := <-signals:
			if sig != syscall.SIGHUP && sig != syscall.SIGUSR2 {
				return fmt.Errorf("stopped by %s", sig)
			}
		}
	}
}

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"
)

// A lock is a row with an end by the clock of the database, which its holder moves on while it works. Postgres' own
// advisory locks would be shorter, but they belong to a session: behind a PgBouncer in transaction mode the session is
// anybody's, a holder whose connection breaks loses its lock without noticing while it works on, and one whose machine
// froze keeps it until TCP gives up, which takes hours. A row has none of that: it needs no connection between statements,
// and its end comes by itself.
//
// A holder that was cut off from the database for longer than the lease works on beside the next one, as it does with any
// lock that ends (certmagic expects so): at worst a certificate is ordered twice.

// certLock is a lock that this process has.
type certLock struct {
	holder  string // of this one time
	stop    context.CancelFunc
	stopped chan struct{} // closed when nothing renews it any more
}

const (
	firstPoll   = 50 * time.Millisecond
	longestPoll = time.Second
)

// takeLockSQL takes a lock that is free or has ended. Doing so twice is doing so once.
const takeLockSQL = `
INSERT INTO dpopgate.locks AS lock (name, holder, until)
VALUES ($1::text, $2::text, clock_timestamp() + $3::interval)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
    WHERE lock.holder = excluded.holder OR lock.until <= clock_timestamp()`

// renewLockSQL is an UPDATE alone, so that one on its way while the lock is given up cannot bring it back.
const renewLockSQL = `
UPDATE dpopgate.locks SET until = clock_timestamp() + $3::interval WHERE name = $1::text AND holder = $2::text`

const giveUpLockSQL = "DELETE FROM dpopgate.locks WHERE name = $1::text AND holder = $2::text"

// Lock implements certmagic.Locker. It waits until it has the lock or ctx ends; a database that does not answer is an error
// within the timeout of two statements.
func (s *certStore) Lock(ctx context.Context, name string) error {
	turn := s.turn(name)
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("locking %s: %w", name, ctx.Err())
	}
	for pause := firstPoll; ; pause = min(2*pause, longestPoll) {
		taken, err := s.take(ctx, name)
		if err != nil {
			<-turn
			return err
		}
		if taken {
			return nil
		}
		select {
		case <-time.After(pause/2 + mathrand.N(pause/2)): // so that a fleet does not ask in step
		case <-ctx.Done():
			<-turn
			return fmt.Errorf("locking %s: %w", name, ctx.Err())
		}
	}
}

// TryLock implements certmagic.TryLocker.
func (s *certStore) TryLock(ctx context.Context, name string) (taken bool, err error) {
	turn := s.turn(name)
	select {
	case turn <- struct{}{}:
	default:
		return false, nil
	}
	if taken, err = s.take(ctx, name); !taken {
		<-turn
	}
	return taken, err
}

// turn is what a goroutine of this process must fill before it may take a lock, and empties after giving it up. So a lock
// that has ended unnoticed is never taken a second time here, one goroutine asks the database for all that wait, and the
// name alone says which lock Unlock is about.
func (s *certStore) turn(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	turn := s.turns[name]
	if turn == nil { // one for every name ever locked, which are few
		turn = make(chan struct{}, 1)
		s.turns[name] = turn
	}
	return turn
}

// take tries once to take a lock, and has it renewed from then on.
func (s *certStore) take(ctx context.Context, name string) (taken bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("locking %s: %w", name, err)
	}
	holder := rand.Text()
	n, err := s.exec(ctx, "locking "+name, takeLockSQL, name, holder, s.lease)
	if err != nil {
		_ = s.giveUp(ctx, name, holder) // it may have been taken without our being told; else it ends with the lease
		return false, err
	}
	if n == 0 {
		return false, nil
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	lock := &certLock{holder: holder, stop: stop, stopped: make(chan struct{})}
	s.mu.Lock()
	s.held[name] = lock
	s.mu.Unlock()
	go func() {
		defer close(lock.stopped)
		s.keepRenewing(ctx, name, holder)
	}()
	return true, nil
}

// keepRenewing moves the end of a lock on until ctx ends. It goes on after another has taken the lock: RenewLockLease may
// get it back.
func (s *certStore) keepRenewing(ctx context.Context, name, holder string) {
	tick := time.NewTicker(s.lease / 3)
	defer tick.Stop()
	lost := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n, err := s.exec(ctx, "renewing the lock "+name, renewLockSQL, name, holder, s.lease)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.Warn("certificate lock not renewed", "lock", name, "error", err)
		case n == 0 && !lost:
			s.log.Warn("certificate lock lost: it was not renewed in time", "lock", name, "lease", s.lease)
		}
		lost = err == nil && n == 0
	}
}

// RenewLockLease implements certmagic.LockLeaseRenewer: an error means that another has the lock now. A lock is renewed in
// any case; certmagic calls this before each attempt at an order and asks for the time until the next, up to hours, for
// which a holder that died would block the others. So the time is not what it asks for.
func (s *certStore) RenewLockLease(ctx context.Context, name string, _ time.Duration) error {
	s.mu.Lock()
	lock := s.held[name]
	s.mu.Unlock()
	if lock == nil {
		return fmt.Errorf("renewing the lock %s: %w", name, errNotHeld)
	}
	n, err := s.exec(ctx, "renewing the lock "+name, takeLockSQL, name, lock.holder, s.lease)
	if err == nil && n == 0 {
		err = fmt.Errorf("renewing the lock %s: another has it, as it was not renewed in time", name)
	}
	return err
}

var errNotHeld = errors.New("it is not held here")

// Unlock implements certmagic.Locker. A lock that another has taken since is left alone. When the database does not answer,
// the lock ends with its lease.
func (s *certStore) Unlock(ctx context.Context, name string) error {
	s.mu.Lock()
	lock, turn := s.held[name], s.turns[name]
	delete(s.held, name)
	s.mu.Unlock()
	if lock == nil {
		return fmt.Errorf("unlocking %s: %w", name, errNotHeld)
	}
	defer func() { <-turn }()
	lock.stop()
	<-lock.stopped
	return s.giveUp(ctx, name, lock.holder)
}

// giveUp deletes a lock that may be held, also for a caller whose own time is over.
func (s *certStore) giveUp(ctx context.Context, name, holder string) error {
	_, err := s.exec(context.WithoutCancel(ctx), "unlocking "+name, giveUpLockSQL, name, holder)
	return err
}

// unlockAll gives up all locks, together in the time of one.
func (s *certStore) unlockAll() {
	s.mu.Lock()
	names := slices.Collect(maps.Keys(s.held))
	s.mu.Unlock()
	var all sync.WaitGroup
	for _, name := range names {
		all.Go(func() { _ = s.Unlock(context.Background(), name) }) // its holder may be quicker, and the lease ends it
	}
	all.Wait()
}

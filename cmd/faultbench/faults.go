package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// fault is one thing that goes wrong with a fleet.
type fault struct {
	name   string
	allows allowance
	short  bool // it is part of the short form, too
	// strike breaks something, waits for as long as that is to last, and mends it.
	strike func(ctx context.Context, s *script) error
}

// script is a run of faults, one after the other, under load.
type script struct {
	*bench
	long  bool
	rows  []*row
	wrong []string // what faults found that no request shows

	restarted time.Duration // the longest from the start of an instance that was killed until it was ready
}

// row is what a fault came to.
type row struct {
	fault    fault
	from     time.Time // until the next row's
	mended   time.Time
	lasted   time.Duration
	notes    []string // what it showed besides
	tally    tally
	recovery time.Duration // from the mending to the last that a client felt
	slowest  time.Duration // answer
}

// hold is how long a fault lasts, in the long form and in the short one.
func (s *script) hold(ctx context.Context, long, short time.Duration) {
	if !s.long {
		long = short
	}
	sleep(ctx, long)
}

func (s *script) note(format string, args ...any) {
	last := s.rows[len(s.rows)-1]
	last.notes = append(last.notes, fmt.Sprintf(format, args...))
}

// clocksApart is the fault that needs a gateway of its own.
const clocksApart = "clocks 8 s apart"

// allFaults are in the order in which they strike.
var allFaults = []fault{
	{"nothing is wrong", 0, true, func(ctx context.Context, s *script) error {
		s.hold(ctx, 10*time.Second, 3*time.Second)
		return nil
	}},
	{"Postgres is killed", unknowable | cutOff, true, func(ctx context.Context, s *script) error {
		s.postgres.process.kill()
		began := time.Now()
		s.hold(ctx, 12*time.Second, 3*time.Second)
		s.dials(began)
		return s.postgres.start(ctx)
	}},
	{"Postgres is frozen", unknowable | cutOff, true, func(ctx context.Context, s *script) error {
		s.postgres.freeze()
		began := time.Now()
		s.hold(ctx, 12*time.Second, 3*time.Second)
		s.dials(began)
		s.postgres.thaw()
		return nil
	}},
	{"Postgres is out of an instance's reach", unknowable | cutOff, false, func(ctx context.Context, s *script) error {
		s.fleet[1].relay.sever(true)
		s.hold(ctx, 8*time.Second, 0)
		s.fleet[1].relay.sever(false)
		return nil
	}},
	{"the listening connections are cut", deaf, true, func(ctx context.Context, s *script) error {
		for range 3 {
			if err := s.postgres.exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%pg_listening_channels%'"); err != nil {
				return err
			}
			s.hold(ctx, time.Second, time.Second)
		}
		return nil
	}},
	{"the notices get stuck on the way", deaf, true, func(ctx context.Context, s *script) error {
		for _, i := range s.fleet {
			i.relay.hold()
		}
		s.hold(ctx, 10*time.Second, 4*time.Second)
		for _, i := range s.fleet {
			i.relay.release()
		}
		return nil
	}},
	{"Valkey is killed", unavailable, true, func(ctx context.Context, s *script) error {
		s.valkey.process.kill()
		s.hold(ctx, 5*time.Second, 2*time.Second)
		return s.valkey.start(ctx)
	}},
	{"Valkey is killed, replay_on_error: nonce", unavailable | renonced, true, func(ctx context.Context, s *script) error {
		return s.fallBack(ctx)
	}},
	{"Valkey is frozen", unavailable, false, func(ctx context.Context, s *script) error {
		s.valkey.process.signal(syscall.SIGSTOP, false)
		s.hold(ctx, 5*time.Second, 2*time.Second)
		s.valkey.process.signal(syscall.SIGCONT, false)
		return nil
	}},
	{"an instance is killed", broken | unavailable, true, func(ctx context.Context, s *script) error {
		took, err := s.fleet[0].crash(ctx, time.Second)
		s.restarted = max(s.restarted, took)
		return err
	}},
	{"each instance is rolled", 0, true, func(ctx context.Context, s *script) error {
		for _, i := range s.fleet {
			if err := i.roll(ctx); err != nil {
				return err
			}
			s.hold(ctx, time.Second, 500*time.Millisecond)
		}
		return nil
	}},
	{"each instance is replaced in place", 0, true, func(ctx context.Context, s *script) error {
		rounds := 1
		if s.long {
			rounds = 4
		}
		for range rounds {
			for _, i := range s.fleet {
				if err := i.handOver(ctx); err != nil {
					return err
				}
			}
		}
		s.note("%d hand-overs", rounds*len(s.fleet))
		return nil
	}},
	{"reloads, every other one of a bad file", 0, true, func(ctx context.Context, s *script) error {
		return s.reloads(ctx)
	}},
	{"DELETE FROM users", 0, true, func(ctx context.Context, s *script) error {
		conn, err := s.postgres.connect(ctx)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		gone := append(s.crowd.users(), s.revoker.stop()...)
		defer s.revoker.goOn()
		if _, err := revoke(ctx, conn, gone, "DELETE FROM users"); err != nil {
			return err
		}
		sleep(ctx, s.bounds.notice+2*time.Second) // clients go on with what they have
		s.note("%d tokens in use were revoked", len(gone))
		return s.crowd.renew(ctx)
	}},
	{"one proof many times at once", unavailable, true, func(ctx context.Context, s *script) error {
		return s.stampede(ctx)
	}},
	{"a storm of connections", 0, true, func(ctx context.Context, s *script) error {
		return s.storm(ctx)
	}},
	{clocksApart, 0, false, func(ctx context.Context, s *script) error {
		return s.clocks(ctx)
	}},
	{"the disk of an embedded store is full", 0, true, func(ctx context.Context, s *script) error {
		return s.fullDisk(ctx)
	}},
}

// dials notes how often the busiest instance has tried to reach Postgres.
func (s *script) dials(from time.Time) {
	most := 0
	for _, i := range s.fleet {
		most = max(most, i.relay.busiest(from, time.Now()))
	}
	s.note("at most %d dials in any second", most)
	if most > 10 {
		s.wrong = append(s.wrong, fmt.Sprintf("Postgres was dialled %d times in a second by one instance: want at most 10", most))
	}
}

// fallBack has instances remember proofs by themselves while Valkey is away, with nonces of their own, and has a load
// balancer that keeps each token with one instance.
func (s *script) fallBack(ctx context.Context) error {
	if err := s.reconfigure(ctx, "nonce"); err != nil {
		return err
	}
	s.front.Store(&s.kept)
	s.valkey.process.kill()
	s.hold(ctx, 8*time.Second, 3*time.Second)
	if err := s.valkey.start(ctx); err != nil {
		return err
	}
	s.hold(ctx, 3*time.Second, 2*time.Second)
	s.front.Store(&s.turns)
	return s.reconfigure(ctx, "refuse")
}

// reconfigure rolls all instances to another dpop.replay_on_error.
func (s *script) reconfigure(ctx context.Context, onReplayError string) error {
	s.onReplayError = onReplayError
	for _, i := range s.fleet {
		if err := i.configure(s.config(i, true)); err != nil {
			return err
		}
		if err := i.roll(ctx); err != nil {
			return err
		}
	}
	return nil
}

// reloads has all instances reread their files, which are broken every other time.
func (s *script) reloads(ctx context.Context) error {
	rounds := 4
	if s.long {
		rounds = 20
	}
	for n := range rounds {
		for _, i := range s.fleet {
			good := s.config(i, true)
			text := good
			if n%2 == 0 {
				text = strings.Replace(good, "scopes: [admin]", "public: yes, scope: []", 1)
			}
			word := map[bool]string{true: `"msg":"config reloaded"`, false: "config not reloaded"}[text == good]
			before := i.logged(word)
			if err := i.configure(text); err != nil {
				return err
			}
			i.process.signal(syscall.SIGHUP, false)
			if err := await(ctx, "a line about the reload: "+word, func() bool { return i.logged(word) > before }); err != nil {
				return err
			}
		}
	}
	s.note("%d reloads of each instance", rounds)
	return nil
}

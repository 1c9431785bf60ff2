package main

import (
	"context"
	"errors"
	"slices"
	"time"
)

// play has the faults strike one after the other while everybody calls, and reconciles afterwards.
func (s *script) play(ctx context.Context, faults []fault) error {
	calling, hangUp := context.WithCancel(ctx)
	hungUp := make(chan struct{})
	go func() {
		defer close(hungUp)
		s.work(calling)
	}()
	defer func() {
		hangUp()
		<-hungUp
	}()
	sleep(ctx, time.Second)
	for _, f := range faults {
		if err := s.strike(ctx, f); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// strike has one fault strike, and gives the fleet the time that it has to recover, and a moment in which all is well.
func (s *script) strike(ctx context.Context, f fault) error {
	r := &row{fault: f, from: time.Now()}
	s.rows = append(s.rows, r)
	s.tell("%s", f.name)
	if f.allows&unknowable != 0 {
		s.crowd.acquaint()
	}
	s.windows.open(f.allows)
	err := f.strike(ctx, s)
	r.mended = time.Now()
	r.lasted = r.mended.Sub(r.from)
	if err == nil && f.allows != 0 {
		err = s.recover(ctx)
	}
	s.windows.close()
	s.hold(ctx, 2*time.Second, time.Second)
	return errors.Join(err, ctx.Err())
}

// recover waits for as long as the fleet may take to be well again: in the short form, whose machine may be busy with
// anything else, until it says that it is.
func (s *script) recover(ctx context.Context) error {
	if s.long {
		sleep(ctx, s.bounds.recovery)
		return nil
	}
	err := await(ctx, "the fleet says that it is well", func() bool {
		return !slices.ContainsFunc(s.fleet, func(i *instance) bool { return !i.well() })
	})
	sleep(ctx, time.Second)
	return err
}

// reconcile judges every request, by the fault in which it ended.
func (s *script) reconcile() (total tally, findings []*finding) {
	requests := s.ledger.requests
	slices.SortFunc(requests, func(a, b *request) int { return a.end.Compare(b.end) })
	j := newJudge(s.bench, requests)
	n := 0
	for _, r := range requests {
		for n+1 < len(s.rows) && !r.end.Before(s.rows[n+1].from) {
			n++
		}
		row, t := s.rows[n], j.verdict(r)
		row.tally.add(t)
		total.add(t)
		if t.away > 0 && !r.unsent {
			row.recovery = max(row.recovery, r.start.Sub(row.mended))
		}
		if r.intent == honest {
			row.slowest = max(row.slowest, r.end.Sub(r.start))
		}
	}
	return total, j.findings
}

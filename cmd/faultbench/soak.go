package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"
)

// soak is a long run at a steady load, with reloads, revocations and upstreams that are restarted, after which the
// instances are to hold what they held at its beginning.
type soak struct {
	*bench
	total    tally
	findings []*finding
	samples  []sample
}

// sample is what the instances held at a moment, each sum over the fleet.
type sample struct {
	at     time.Time
	values [len(gauges)]float64
}

// gauges are what must not grow. The heap's is what it had come to when it was last collected, times two.
var gauges = [...]string{"go_goroutines", "process_open_fds", "go_memstats_next_gc_bytes", "process_resident_memory_bytes"}

const (
	share       = 0.7               // of what the machine can do
	calibration = 10 * time.Second  // how long clients call without a pause to find that out
	warming     = 100 * time.Second // until what is remembered of used proofs has come to its size
	growth      = 1.1               // what a median of the end may be of one of the beginning
	few         = 10                // or by how much it may be more
)

// run says what grew and what else was wrong, or nothing.
func (s *soak) run(ctx context.Context, long time.Duration, stdout io.Writer) error {
	if long < 3*warming {
		return fmt.Errorf("a soak of %s: want at least %s, since the first %s do not count", long, 3*warming, warming)
	}
	calling, hangUp := context.WithCancel(ctx)
	hungUp := make(chan struct{})
	go func() {
		defer close(hungUp)
		s.work(calling)
	}()
	s.calibrate(ctx)
	err := s.churn(ctx, time.Now().Add(long))
	hangUp()
	<-hungUp
	if err != nil {
		return err
	}
	s.fold(s.ledger.ids.Load() + 1)
	grown := s.print(stdout)
	if grown || !s.total.faultless() {
		for _, f := range s.findings {
			fmt.Fprintln(stdout, f)
		}
		return errFaults
	}
	return nil
}

// calibrate finds out what the machine can do, and has clients pause so that they ask for a share of it.
func (s *soak) calibrate(ctx context.Context) {
	s.crowd.think.Store(0)
	sleep(ctx, calibration/5)
	before := s.ledger.ids.Load()
	sleep(ctx, calibration)
	most := float64(s.ledger.ids.Load()-before) / calibration.Seconds()
	clients := float64(len(s.crowd.hot) + len(s.thieves))
	// Without a pause a client's request takes clients/most; with less load it takes less, so this asks for a little more.
	s.crowd.think.Store(int64(float64(time.Second) * clients / most * (1/share - 0.5)))
	s.tell("the machine can do %.0f requests a second, counting its own clients", most)
}

// churn lasts until the end.
func (s *soak) churn(ctx context.Context, end time.Time) error {
	began := time.Now()
	for n := 1; time.Now().Before(end); n++ {
		if !sleep(ctx, 5*time.Second) {
			return ctx.Err()
		}
		for _, i := range s.fleet {
			if n%2 == 0 {
				i.process.signal(syscall.SIGHUP, false)
			}
			if !i.process.running() {
				return fmt.Errorf("instance %s has ended:\n%s", i.name, i.process.tail())
			}
		}
		if n%6 == 0 {
			s.windows.open(unavailable | broken | repeated)
			err := s.upstream.restart()
			sleep(ctx, time.Second)
			s.windows.close()
			if err != nil {
				return err
			}
		}
		if err := s.sample(); err != nil {
			return err
		}
		if n%12 == 0 {
			s.fold(s.ledger.before(time.Now().Add(-2 * wait)))
			s.tell("%s: %d requests, %v", time.Since(began).Round(time.Second), s.total.requests, s.samples[len(s.samples)-1].values)
		}
	}
	return nil
}

func (s *soak) sample() error {
	now := sample{at: time.Now()}
	for n, name := range gauges {
		for _, i := range s.fleet {
			value, err := i.metric(name)
			if err != nil {
				return err
			}
			now.values[n] += value
		}
	}
	s.samples = append(s.samples, now)
	return nil
}

// fold judges and forgets the requests whose proofs have a number below that.
func (s *soak) fold(below uint64) {
	requests := s.ledger.take(below)
	j := newJudge(s.bench, requests)
	for _, r := range requests {
		s.total.add(j.verdict(r))
	}
	s.findings = append(s.findings, j.findings...)
	s.upstream.forget(requests)
}

// print compares the end with the beginning, and says whether anything has grown.
func (s *soak) print(to io.Writer) (grown bool) {
	t := s.total
	fmt.Fprintf(to, "%d requests: %d honest ones let through, %d told to come again while the upstream was restarted, %d illegal ones refused; %d illegal through, %d proofs twice, %d lost, %d wrongly refused\n",
		t.requests, t.passed, t.away, t.refused, t.through+t.imposter, t.doubled, t.lost, t.denied)
	from := s.samples[0].at.Add(warming)
	warm := s.samples[slices.IndexFunc(s.samples, func(one sample) bool { return one.at.After(from) }):]
	fifth := max(1, len(warm)/5)
	fmt.Fprintf(to, "\n| held by the fleet | at first | at last | |\n| --- | ---: | ---: | --- |\n")
	for n, name := range gauges {
		first, last := median(warm[:fifth], n), median(warm[len(warm)-fifth:], n)
		word := "flat"
		if last > first*growth && last > first+few {
			word, grown = "GROWN", true
		}
		fmt.Fprintf(to, "| %s | %.0f | %.0f | %s |\n", name, first, last, word)
	}
	return grown
}

// median is that of one gauge.
func median(samples []sample, gauge int) float64 {
	var values []float64
	for _, one := range samples {
		values = append(values, one.values[gauge])
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// soak runs one.
func (b *bench) soak(ctx context.Context, long time.Duration, stdout io.Writer) error {
	return errors.Join((&soak{bench: b}).run(ctx, long, stdout), ctx.Err())
}

package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// lane is one row of a bench: a server, where requests go, and which.
type lane struct {
	name    string
	to      address
	usage   func() (usage, error)                                // of the server; nil: unknown
	load    func(ctx context.Context, count int) ([]shot, error) // what a round sends
	warm    func(ctx context.Context, count int) ([]shot, error) // what is sent before the first round, and not counted
	warmUp  int                                                  // how much of that
	seen    func() (uint64, error)                               // requests that the upstream has answered so far; nil: nobody knows
	every   time.Duration                                        // between two requests; 0: as fast as they are answered
	forward bool                                                 // whether what is sent reaches the upstream: all of it, or nothing

	senders []sender
	rounds  []laneRound
}

// laneRound is what one round of a lane has cost, by the request.
type laneRound struct {
	cpu       time.Duration
	allocs    float64
	allocated float64 // bytes
	perSecond float64
	memory    int64 // bytes at its end
	pause     time.Duration
	took      []time.Duration // each of its requests
}

// race runs all lanes in turn, a round each, until each has sent requests in that many rounds or the time is over. What
// happens on the machine meanwhile happens to all of them, so that ratios within a round hold.
func race(ctx context.Context, lanes []*lane, rounds, requests, connections int, end time.Time, show func(round int, lane string)) error {
	for _, l := range lanes {
		l.senders = l.to.senders(connections)
		defer func() {
			for _, s := range l.senders {
				s.close()
			}
		}()
		show(0, l.name)
		for left := l.warmUp; left > 0; left -= maxRound {
			shots, err := l.warm(ctx, min(left, maxRound))
			if err == nil {
				_, err = l.shoot(ctx, shots)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
		}
	}
	for round := range rounds {
		if round >= minRounds && time.Now().After(end) {
			break
		}
		for i := range lanes {
			l := lanes[(i+round)%len(lanes)] // nobody always comes after the same one
			show(round, l.name)
			shots, err := l.load(ctx, requests)
			var r laneRound
			if err == nil {
				r, err = l.shoot(ctx, shots)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			l.rounds = append(l.rounds, r)
		}
	}
	return nil
}

// minRounds are run also when there is no time left: a median of fewer says nothing.
const minRounds = 3

// shoot sends all shots and says what they have cost.
func (l *lane) shoot(ctx context.Context, shots []shot) (r laneRound, err error) {
	seen, err := l.count()
	if err != nil {
		return r, err
	}
	var before, after usage
	if l.usage != nil {
		if before, err = l.usage(); err != nil {
			return r, err
		}
	}
	began := time.Now()
	took, err := fire(ctx, l.senders, shots, l.every)
	if err != nil {
		return r, err
	}
	wall := time.Since(began)
	if l.usage != nil {
		if after, err = l.usage(); err != nil {
			return r, err
		}
	}
	n := float64(len(shots))
	return laneRound{
		cpu:       time.Duration(float64(after.CPU-before.CPU) / n),
		allocs:    float64(after.Allocs-before.Allocs) / n,
		allocated: float64(after.Allocated-before.Allocated) / n,
		perSecond: n / wall.Seconds(),
		memory:    after.Memory,
		pause:     after.Pause - before.Pause,
		took:      took,
	}, l.countAgain(seen, len(shots))
}

func (l *lane) count() (uint64, error) {
	if l.seen == nil {
		return 0, nil
	}
	return l.seen()
}

// countAgain checks that the upstream has seen every request of a round, or none.
func (l *lane) countAgain(before uint64, requests int) error {
	if l.seen == nil {
		return nil
	}
	after, err := l.seen()
	if err != nil {
		return err
	}
	want := uint64(0)
	if l.forward {
		want = uint64(requests)
	}
	if got := after - before; got != want {
		return fmt.Errorf("the upstream has seen %d of %d requests, want %d", got, requests, want)
	}
	return nil
}

// laneResult is a row, as it is printed. Durations are nanoseconds; 0 is unknown.
type laneResult struct {
	Name      string        `json:"name"`
	CPU       time.Duration `json:"cpu_ns_per_request"`
	Ratio     float64       `json:"cpu_ratio"` // to the first row's, of the same round each
	Low       float64       `json:"cpu_ratio_low"`
	High      float64       `json:"cpu_ratio_high"`
	PerSecond float64       `json:"requests_per_second"`
	P50       time.Duration `json:"p50_ns"`
	P99       time.Duration `json:"p99_ns"`
	Allocs    float64       `json:"allocations_per_request"`
	Allocated float64       `json:"allocated_bytes_per_request"`
	Memory    int64         `json:"resident_bytes"`
	Pause     time.Duration `json:"gc_pause_ns_per_round"`
	Requests  int           `json:"requests"`
	Rounds    int           `json:"rounds"`
}

// results are the medians of lanes that have raced, and the ratios to the first.
func results(lanes []*lane) []laneResult {
	all := make([]laneResult, len(lanes))
	for i, l := range lanes {
		each := func(of func(laneRound) float64) []float64 {
			var values []float64
			for _, r := range l.rounds {
				values = append(values, of(r))
			}
			slices.Sort(values)
			return values
		}
		var took []time.Duration
		for _, r := range l.rounds {
			took = append(took, r.took...)
		}
		slices.Sort(took)
		r := laneResult{
			Name:      l.name,
			CPU:       time.Duration(median(each(func(r laneRound) float64 { return float64(r.cpu) }))),
			PerSecond: median(each(func(r laneRound) float64 { return r.perSecond })),
			Allocs:    median(each(func(r laneRound) float64 { return r.allocs })),
			Allocated: median(each(func(r laneRound) float64 { return r.allocated })),
			Memory:    int64(median(each(func(r laneRound) float64 { return float64(r.memory) }))),
			Pause:     time.Duration(median(each(func(r laneRound) float64 { return float64(r.pause) }))),
			P50:       took[len(took)/2],
			P99:       took[len(took)*99/100],
			Requests:  len(took),
			Rounds:    len(l.rounds),
		}
		var ratios []float64
		for n, round := range l.rounds {
			if base := lanes[0].rounds[n].cpu; base > 0 {
				ratios = append(ratios, float64(round.cpu)/float64(base))
			}
		}
		if slices.Sort(ratios); len(ratios) > 0 {
			r.Ratio = median(ratios)
			r.Low, r.High = ratios[len(ratios)/4], ratios[len(ratios)*3/4]
		}
		all[i] = r
	}
	return all
}

// median is that of sorted values.
func median(sorted []float64) float64 {
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

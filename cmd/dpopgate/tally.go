package main

import (
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
)

// maxTallied bounds what is told apart by client, route and reason: clients beyond it are counted together.
const maxTallied = 4096

// otherClients stands for the clients that are counted together.
var otherClients = uuid.Max

// shade is what became of a request, as a person looks at it.
type shade int

const (
	shadePassed  shade = iota
	shadeWould         // let through by mode report, and enforce would have refused it
	shadeRefused       //
	shadeFailed        // by the upstream
	shades
)

func shadeOf(e *proxy.Event) shade {
	switch {
	case e.Would != "":
		return shadeWould
	case e.Verdict == proxy.Refused:
		return shadeRefused
	case e.Verdict == proxy.Failed:
		return shadeFailed
	default:
		return shadePassed
	}
}

// line is what requests are told apart by. All of it comes from the config, the token table and closed sets.
type line struct {
	client uuid.UUID // Nil: no token that is known came with it
	route  string    // the pattern; empty for none
	scheme string    // DPoP, Bearer, or empty
	shade  shade
	reason dpop.Reason // of a refusal or failure, or of what would have been one
}

// tally remembers the requests of the last hour and the last day: what the counters of /metrics cannot say by themselves. It may
// be used concurrently.
type tally struct {
	now     func() time.Time
	started time.Time

	mu      sync.Mutex
	minutes [shades]window
	offsets [len(offsetBounds) + 1]window
	lines   map[line]*span
	misuses map[misuse]*window
	swept   time.Time
}

// offsetBounds are where the classes of clock offsets end, in seconds of iat minus now.
var offsetBounds = [...]float64{-60, -10, -2, 2, 10, 60}

// span is one line over the last hour and over the last day.
type span struct{ hour, day window }

// The windows, in slots: each has one more than its time takes, since the newest has only begun.
const (
	minuteSlots = 60
	hourSlots   = 13
	daySlots    = 25
)

func newTally(now func() time.Time) *tally {
	t := &tally{now: now, started: now(), lines: map[line]*span{}, misuses: map[misuse]*window{}}
	for i := range t.minutes {
		t.minutes[i] = newWindow(time.Minute, minuteSlots)
	}
	for i := range t.offsets {
		t.offsets[i] = newWindow(5*time.Minute, hourSlots)
	}
	return t
}

// observe counts one request.
func (t *tally) observe(e *proxy.Event) {
	l := line{client: e.ClientID, route: e.Route, scheme: e.Scheme, shade: shadeOf(e)}
	switch l.shade {
	case shadeWould:
		l.reason = e.Would
	case shadeRefused, shadeFailed:
		l.reason = e.Reason
	}
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.minutes[l.shade].add(now)
	if e.Thumbprint != "" {
		t.offsets[offsetClass(e.Offset)].add(now)
	}
	s := t.span(l, now)
	s.hour.add(now)
	s.day.add(now)
}

// misuse is a kind of misuse and what became of it, both of closed sets.
type misuse struct {
	kind   proxy.MisuseKind
	result string
}

// misused counts one misuse.
func (t *tally) misused(kind proxy.MisuseKind, result string) {
	now, key := t.now(), misuse{kind, result}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.misuses[key] == nil {
		w := newWindow(time.Hour, daySlots)
		t.misuses[key] = &w
	}
	t.misuses[key].add(now)
}

// span is where a line is counted. When there is no room, lines that have ended make it, and then clients share one.
func (t *tally) span(l line, now time.Time) *span {
	if s := t.lines[l]; s != nil {
		return s
	}
	if len(t.lines) >= maxTallied && now.Sub(t.swept) > time.Minute {
		t.swept = now
		for l, s := range t.lines {
			if s.day.sum(now) == 0 {
				delete(t.lines, l)
			}
		}
	}
	if len(t.lines) >= maxTallied && l.client != uuid.Nil {
		l.client = otherClients
	}
	s := t.lines[l]
	if s == nil {
		s = &span{newWindow(5*time.Minute, hourSlots), newWindow(time.Hour, daySlots)}
		t.lines[l] = s
	}
	return s
}

// offsetClass is the class of an offset.
func offsetClass(offset time.Duration) int {
	for i, bound := range offsetBounds {
		if offset.Seconds() < bound {
			return i
		}
	}
	return len(offsetBounds)
}

// counts are the lines of the last day, or of the last hour, that there are requests of.
func (t *tally) counts(day bool) map[line]uint64 {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := map[line]uint64{}
	for l, s := range t.lines {
		w := &s.hour
		if day {
			w = &s.day
		}
		if n := w.sum(now); n > 0 {
			counts[l] = n
		}
	}
	return counts
}

// window counts in slots of time, and forgets what is older than all of them.
type window struct {
	step   time.Duration
	newest int64 // the number of the newest slot, counted from 1970 on
	slots  []uint32
}

func newWindow(step time.Duration, slots int) window {
	return window{step: step, slots: make([]uint32, slots)}
}

// move forgets what is too old by now. A clock that was set back counts in the slot that it had reached.
func (w *window) move(now time.Time) {
	slot := now.UnixNano() / int64(w.step)
	for range min(slot-w.newest, int64(len(w.slots))) {
		w.newest++
		w.slots[w.newest%int64(len(w.slots))] = 0
	}
	w.newest = max(w.newest, slot)
}

func (w *window) add(now time.Time) {
	w.move(now)
	w.slots[w.newest%int64(len(w.slots))]++
}

func (w *window) sum(now time.Time) uint64 {
	w.move(now)
	var n uint64
	for _, c := range w.slots {
		n += uint64(c)
	}
	return n
}

// inOrder are the slots, the oldest first.
func (w *window) inOrder(now time.Time) []uint32 {
	w.move(now)
	n := int64(len(w.slots))
	all := make([]uint32, 0, n)
	for i := int64(1); i <= n; i++ {
		all = append(all, w.slots[(w.newest+i)%n])
	}
	return all
}

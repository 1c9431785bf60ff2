package main

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
)

// handClock is moved by hand.
type handClock struct{ time.Time }

func (c *handClock) now() time.Time { return c.Time }

func newHandClock() *handClock { return &handClock{time.Date(2026, 11, 24, 10, 0, 30, 0, time.UTC)} }

var tallied = uuid.MustParse("6f1c1c6e-7d5b-4d0a-9c55-0f2f4e3f0a01")

func totalOf(counts map[line]uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}

func TestTallyForgetsAfterAnHourAndAfterADay(t *testing.T) {
	clock := newHandClock()
	tally := newTally(clock.now)
	e := &proxy.Event{Route: "/", Verdict: proxy.Passed, ClientID: tallied, Scheme: dpop.SchemeDPoP}
	tally.observe(e)
	for _, c := range []struct {
		later     time.Duration
		hour, day uint64
	}{
		{0, 1, 1}, {59 * time.Minute, 1, 1}, {66 * time.Minute, 0, 1}, {24 * time.Hour, 0, 1}, {25*time.Hour + time.Minute, 0, 0},
	} {
		clock.Time = newHandClock().Add(c.later)
		assert.Equal(t, c.hour, totalOf(tally.counts(false)), "the hour, after %s", c.later)
		assert.Equal(t, c.day, totalOf(tally.counts(true)), "the day, after %s", c.later)
	}
	tally.observe(e)
	clock.Time = clock.Add(-3 * time.Hour)
	tally.observe(e)
	assert.Equal(t, uint64(2), totalOf(tally.counts(false)), "a clock that is set back loses nothing")
}

func TestTallyDrawsTheLastHourByMinutes(t *testing.T) {
	clock := newHandClock()
	tally := newTally(clock.now)
	for minute := range 3 {
		for range minute + 1 {
			tally.observe(&proxy.Event{Verdict: proxy.Refused, Reason: dpop.HTUMismatch})
		}
		clock.Time = clock.Add(time.Minute)
	}
	refused := tally.minutes[shadeRefused].inOrder(clock.Time)
	require.Len(t, refused, minuteSlots)
	assert.Equal(t, []uint32{1, 2, 3, 0}, refused[minuteSlots-4:])
	assert.Zero(t, slices.Max(tally.minutes[shadePassed].inOrder(clock.Time)))
}

func TestTallyStaysBoundedWhateverClientsCome(t *testing.T) {
	clock := newHandClock()
	tally := newTally(clock.now)
	for range maxTallied + 100 {
		tally.observe(&proxy.Event{Route: "/", Verdict: proxy.Passed, ClientID: uuid.New(), Scheme: dpop.SchemeDPoP})
	}
	assert.Len(t, tally.lines, maxTallied+1)
	assert.Equal(t, uint64(100), tally.counts(true)[line{client: otherClients, route: "/", scheme: dpop.SchemeDPoP}])
	assert.Equal(t, uint64(maxTallied+100), totalOf(tally.counts(true)), "nothing is lost")

	clock.Time = clock.Add(26 * time.Hour)
	tally.observe(&proxy.Event{Route: "/", Verdict: proxy.Passed, ClientID: tallied, Scheme: dpop.SchemeDPoP})
	assert.Len(t, tally.lines, 1, "lines that have ended make room")
}

func TestTallyOfOneMoreRequestAllocatesNothing(t *testing.T) {
	tally := newTally(time.Now)
	e := &proxy.Event{Route: "/", Verdict: proxy.Passed, ClientID: tallied, Scheme: dpop.SchemeDPoP, Thumbprint: "x"}
	tally.observe(e)
	assert.Zero(t, testing.AllocsPerRun(100, func() { tally.observe(e) }))
}

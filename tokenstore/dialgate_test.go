package tokenstore

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// clock is one that the test moves.
type clock struct{ now time.Time }

func newGate() (*dialGate, *clock) {
	c := &clock{now: time.Now()}
	return &dialGate{now: func() time.Time { return c.now }}, c
}

// attempts tries to connect as often as it can for so long, with so many dials each, and says when it dialled.
func (c *clock) attempts(g *dialGate, d time.Duration, each int) (dialled []time.Time) {
	for end := c.now.Add(d); c.now.Before(end); c.now = c.now.Add(time.Millisecond) {
		if _, err := g.admit(); err != nil {
			continue
		}
		dial := g.dialler(func(context.Context, string, string) (net.Conn, error) {
			dialled = append(dialled, c.now)
			return nil, errors.New("connection refused")
		})
		for range each {
			_, _ = dial(context.Background(), "tcp", "localhost:1")
		}
	}
	return dialled
}

func TestGateAllowsTenDialsInAnySecond(t *testing.T) {
	for each := 1; each <= 5; each++ {
		g, c := newGate()
		dialled := c.attempts(g, 10*time.Second, each)
		assert.Greater(t, len(dialled), 60, "it goes on trying")
		for i, first := range dialled {
			within := 0
			for _, d := range dialled[i:] {
				if d.Sub(first) < time.Second {
					within++
				}
			}
			assert.LessOrEqual(t, within, 10, "%d dials an attempt", each)
		}
	}
}

func TestGateIsOpenFromAnAnswerToAFailure(t *testing.T) {
	g, c := newGate()
	era, err := g.admit()
	require.NoError(t, err)
	g.answered(era)
	for range 100 {
		_, err := g.admit()
		require.NoError(t, err)
	}
	g.failed(errors.New("reset by peer"))
	_, err = g.admit()
	assert.ErrorIs(t, err, errDialsSpent)
	assert.EqualError(t, err, "not tried again so soon after: reset by peer")
	c.now = c.now.Add(time.Second) // however many dials there were
	_, err = g.admit()
	assert.NoError(t, err)
}

func TestGateStaysShutForAnswersOnOlderConnections(t *testing.T) {
	g, c := newGate()
	older, err := g.admit()
	require.NoError(t, err)
	g.answered(older)
	g.failed(errors.New("too many clients"))
	g.answered(older)
	_, err = g.admit()
	require.ErrorIs(t, err, errDialsSpent)

	c.now = c.now.Add(time.Second)
	newer, err := g.admit()
	require.NoError(t, err)
	g.answered(newer)
	_, err = g.admit()
	assert.NoError(t, err)
}

func TestGateTakesItsOwnRefusalForNoFailure(t *testing.T) {
	g, _ := newGate()
	era, err := g.admit()
	require.NoError(t, err)
	_, refused := g.admit()
	g.failed(refused)
	g.answered(era)
	_, err = g.admit()
	assert.NoError(t, err)
}

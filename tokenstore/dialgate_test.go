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
		a, err := g.admit()
		if err != nil {
			continue
		}
		for range each {
			_, _ = a.dial(context.Background(), "tcp", "localhost:1", func(context.Context, string, string) (net.Conn, error) {
				dialled = append(dialled, c.now)
				return nil, errors.New("connection refused")
			})
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
	first, err := g.admit()
	require.NoError(t, err)
	g.answered(first)
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
	_, err := g.admit()
	require.NoError(t, err)
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
	first, err := g.admit()
	require.NoError(t, err)
	_, err = g.admit()
	require.NoError(t, err, "a lookup and a listener may begin together")
	_, refused := g.admit()
	require.ErrorIs(t, refused, errDialsSpent)
	g.failed(refused)
	g.answered(first)
	_, err = g.admit()
	assert.NoError(t, err)
}

func TestOnlyAServerThatIsThereIsDialledToCancel(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(ours, theirs net.Conn)
		want error
	}{
		"gone": {func(_, theirs net.Conn) { theirs.Close() }, errDialsSpent},
		"slow": {func(ours, _ net.Conn) { ours.SetReadDeadline(time.Now().Add(-time.Second)) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g, _ := newGate()
			a, err := g.admit()
			require.NoError(t, err)
			ours, theirs := net.Pipe()
			dial := func(context.Context, string, string) (net.Conn, error) { return ours, nil }
			conn, err := a.dial(context.Background(), "tcp", "localhost:1", dial)
			require.NoError(t, err)
			a.up.Store(true)
			c.end(ours, theirs)
			_, err = conn.Read(make([]byte, 1))
			require.Error(t, err)
			_, err = a.dial(context.Background(), "tcp", "localhost:1", dial)
			assert.ErrorIs(t, err, c.want)
		})
	}
}

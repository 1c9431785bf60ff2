package tokenstore

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// gateAt is a gate with a clock that the test moves, and a dialler that answers with what the test sets.
func gateAt(clock *time.Time, answer *error) *dialGate {
	return &dialGate{
		dial: func(context.Context, string, string) (net.Conn, error) { return nil, *answer },
		now:  func() time.Time { return *clock },
	}
}

// dials says how many of n get through.
func (g *dialGate) dials(n int) (through int) {
	for range n {
		if _, err := g.Dial(context.Background(), "tcp", "localhost:1"); !errors.Is(err, errDialsSpent) {
			through++
		}
	}
	return through
}

func TestGateBoundsDialsInAnySecondUntilAnAnswer(t *testing.T) {
	clock, answer := time.Now(), error(nil)
	g := gateAt(&clock, &answer)
	assert.Equal(t, 4, g.dials(4))
	clock = clock.Add(900 * time.Millisecond)
	assert.Equal(t, 6, g.dials(100))
	assert.ErrorIs(t, g.check(), errDialsSpent)
	clock = clock.Add(100 * time.Millisecond)
	assert.NoError(t, g.check())
	assert.Equal(t, 4, g.dials(100))
	clock = clock.Add(time.Hour)
	assert.Equal(t, dialsPerSecond, g.dials(100))
}

func TestGateOpensOnAnAnswerAndShutsOnAFailure(t *testing.T) {
	clock, answer := time.Now(), error(nil)
	g := gateAt(&clock, &answer)
	g.answered(g.current())
	assert.Equal(t, 100, g.dials(100))
	answer = errors.New("connection refused")
	assert.Equal(t, 1, g.dials(1), "the one that fails")
	assert.Equal(t, 0, g.dials(100), "there were ten just now")
	answer = nil
	clock = clock.Add(time.Second)
	assert.Equal(t, dialsPerSecond, g.dials(100))
	g.answered(g.current())
	assert.Equal(t, 100, g.dials(100))
}

func TestGateStaysShutForAnswersOnOlderConnections(t *testing.T) {
	clock, answer := time.Now(), error(nil)
	g := gateAt(&clock, &answer)
	older := g.current()
	g.answered(older)
	g.failed()
	g.answered(older)
	assert.Equal(t, dialsPerSecond, g.dials(100))
	g.answered(g.current())
	assert.Equal(t, 100, g.dials(100))
}

package tokenstore

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// dialsPerSecond is how often one instance tries to reach a database that does not answer. Without a bound, requests
// that each dial anew hit a dead server thousands of times a second, and the server that comes back as well.
const dialsPerSecond = 10

// errDialsSpent says that no connection was tried.
var errDialsSpent = errors.New("not tried again so soon after the last attempts")

// dialGate lets dials through freely while connections come up and answer queries. Before the first such answer, and
// again from every failure on, it lets through dialsPerSecond in any second and refuses the others at once. Only an
// answer on a connection that was dialled after the last failure opens it again: an older connection says nothing about
// dialling, as when a server has too many clients but serves those it has.
type dialGate struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	now  func() time.Time

	mu     sync.Mutex
	open   bool
	era    int                       // how many failures there were
	recent [dialsPerSecond]time.Time // when the last dials were made, as a ring
	next   int                       // the oldest of them
}

// Dial is a pgconn.DialFunc. Every connection comes through here, one that cancels a query included.
func (g *dialGate) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if !g.pass(true) {
		return nil, errDialsSpent
	}
	c, err := g.dial(ctx, network, addr)
	if err != nil {
		g.failed()
	}
	return c, err
}

// check refuses early what Dial would refuse, before names are resolved.
func (g *dialGate) check() error {
	if !g.pass(false) {
		return errDialsSpent
	}
	return nil
}

// pass says whether a dial may be made now, and counts it if it is to be.
func (g *dialGate) pass(count bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if !g.open && now.Sub(g.recent[g.next]) < time.Second {
		return false
	}
	if count {
		g.recent[g.next] = now
		g.next = (g.next + 1) % len(g.recent)
	}
	return true
}

// current is the era that a connection dialled now belongs to.
func (g *dialGate) current() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.era
}

// answered says that a connection dialled in the given era has answered a query.
func (g *dialGate) answered(era int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = g.open || era == g.era
}

// failed says that a connection could not be made or did not answer.
func (g *dialGate) failed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = false
	g.era++
}

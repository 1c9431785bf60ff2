package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// dialCost is the time from one dial to the next when the database does not answer. Without a bound, requests that
// each dial anew hit a dead server thousands of times a second, and the server that comes back as well. One attempt to
// connect can take several dials (addresses of a name, with TLS and without): for up to five, this keeps an instance to
// ten dials in any second.
const dialCost = 125 * time.Millisecond

// errDialsSpent says that no connection was tried.
var errDialsSpent = errors.New("not tried again so soon")

// dialGate lets connections be made freely while they come up and answer queries. Before the first such answer, and
// again from every failure on, it lets one attempt through as often as dialCost allows and refuses the others at once.
// Only an answer on a connection that was dialled after the last failure opens it again: an older connection says
// nothing about dialling, as when a server has too many clients but serves those it has.
type dialGate struct {
	now func() time.Time

	mu   sync.Mutex
	open bool
	era  int       // how many failures there were
	last error     // the last of them
	next time.Time // when the dials so far are paid for
}

// admit says whether a connection may be tried now, and if so in which era that is.
func (g *dialGate) admit() (era int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.open && g.now().Before(g.next) {
		if g.last == nil {
			return 0, errDialsSpent
		}
		return 0, fmt.Errorf("%w after: %v", errDialsSpent, g.last) // in words: it is not the cause of this one
	}
	g.charge()
	return g.era, nil
}

// charge puts the next dial off by the cost of one, to at most a second from now.
func (g *dialGate) charge() {
	now := g.now()
	if g.next.Before(now) {
		g.next = now
	}
	if g.next = g.next.Add(dialCost); g.next.After(now.Add(time.Second)) {
		g.next = now.Add(time.Second)
	}
}

// dialler is the dial function of one admitted attempt. Its first dial is paid for; the others, and those that cancel
// a query of the connection later, are charged.
func (g *dialGate) dialler(dial pgconn.DialFunc) pgconn.DialFunc {
	var dials atomic.Int64
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dials.Add(1) > 1 {
			g.mu.Lock()
			g.charge()
			g.mu.Unlock()
		}
		c, err := dial(ctx, network, addr)
		if err != nil {
			g.failed(err)
		}
		return c, err
	}
}

// answered says that a connection dialled in the given era has answered a query.
func (g *dialGate) answered(era int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = g.open || era == g.era
}

// failed says that a connection could not be made or did not answer. The gate's own refusal is no news to it.
func (g *dialGate) failed(err error) {
	if errors.Is(err, errDialsSpent) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open, g.last = false, err
	g.era++
}

package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// dialCost is the time from one dial to the next when the database does not answer. Without a bound, requests that
// each dial anew hit a dead server thousands of times a second, and the server that comes back as well. One attempt to
// connect can take several dials (addresses of a name, with TLS and without): for up to five, this keeps an instance to
// ten dials in any second, although two attempts may begin at once: one for a lookup, one to listen.
const dialCost = 150 * time.Millisecond

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

// admit says whether a connection may be tried now: the attempt, or why not.
func (g *dialGate) admit() (*attempt, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.open && g.now().Before(g.next) {
		if g.last == nil {
			return nil, errDialsSpent
		}
		return nil, fmt.Errorf("%w after: %v", errDialsSpent, g.last) // in words: it is not the cause of this one
	}
	g.charge()
	return &attempt{gate: g, era: g.era}, nil
}

// guard admits one connection with cfg, and has it carry the attempt.
func (g *dialGate) guard(cfg *pgx.ConnConfig) error {
	a, err := g.admit()
	if err != nil {
		return err
	}
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return a.dial(ctx, network, addr, dial)
	}
	cfg.AfterConnect = func(_ context.Context, c *pgconn.PgConn) error {
		a.up.Store(true)
		c.CustomData()[attemptKey] = a
		return nil
	}
	return nil
}

// charge puts the next dial off by the cost of one, to at most a second from now.
func (g *dialGate) charge() {
	now := g.now()
	if idle := now.Add(-dialCost); g.next.Before(idle) {
		g.next = idle
	}
	if g.next = g.next.Add(dialCost); g.next.After(now.Add(time.Second)) {
		g.next = now.Add(time.Second)
	}
}

// answered says that the connection that came of the attempt has answered a query.
func (g *dialGate) answered(a *attempt) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = g.open || a.era == g.era
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

// attemptKey is where a connection carries the attempt that it came of.
const attemptKey = "dpopgate.attempt"

// attempt is one try to connect, and then the connection that came of it.
type attempt struct {
	gate  *dialGate
	era   int
	dials atomic.Int64
	conn  atomic.Pointer[watchedConn] // the last one dialled to connect
	up    atomic.Bool                 // it is connected
}

// dial makes the attempt's dials. The first is paid for; the others, and those that cancel a query of the connection
// later, are charged. pgx also dials to cancel what a server that has gone was doing: that is in vain, and would put
// off the dial to the server that is back.
func (a *attempt) dial(ctx context.Context, network, addr string, dial pgconn.DialFunc) (net.Conn, error) {
	up := a.up.Load()
	if up && a.conn.Load().gone.Load() {
		return nil, errDialsSpent
	}
	if a.dials.Add(1) > 1 {
		a.gate.mu.Lock()
		a.gate.charge()
		a.gate.mu.Unlock()
	}
	c, err := dial(ctx, network, addr)
	if err != nil {
		a.gate.failed(err)
		return nil, err
	}
	w := &watchedConn{Conn: c}
	if !up {
		a.conn.Store(w)
	}
	return w, nil
}

// watchedConn is a connection that knows when its other end has gone.
type watchedConn struct {
	net.Conn
	gone atomic.Bool
}

// Read implements net.Conn.
func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, c.note(err)
}

// Write implements net.Conn.
func (c *watchedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, c.note(err)
}

// note takes every error for the end of the connection but one of time.
func (c *watchedConn) note(err error) error {
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.gone.Store(true)
	}
	return err
}

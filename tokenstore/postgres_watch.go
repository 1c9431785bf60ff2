package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// beat is the time from one question to the next that a listener asks its server: a connection that has died says
	// nothing, and one that has nothing to say does so, too.
	beat = time.Second
	// beatTimeout bounds the answer, and so with beat how long a dead connection goes unnoticed.
	beatTimeout = 2 * time.Second
)

var _ Watcher = (*Postgres)(nil)

// hotline is for connections to the server that announces changes, which need not be the one that lookups go to. They
// are not out of a pool: notices come to the session that listens.
type hotline struct {
	config *pgx.ConnConfig
	gate   *dialGate // of the pool for that server: what both dial together is bounded
	login  *login    // too
}

// newHotline reads a DSN as OpenPool does. Its gate and its login are yet to be set.
func newHotline(dsn string) (*hotline, error) {
	cfg, err := parseDSN(dsn)
	if err != nil {
		return nil, err
	}
	c := cfg.ConnConfig
	c.ConnectTimeout = min(c.ConnectTimeout, beatTimeout)
	if params := c.RuntimeParams; params["application_name"] == applicationName {
		params["application_name"] += " watch"
	}
	return &hotline{config: c}, nil
}

// connect dials, in its turn: a server that does not answer is tried at most so often. ctx bounds it.
func (h *hotline) connect(ctx context.Context) (*pgx.Conn, error) {
	cfg := h.config.Copy()
	for err := h.gate.guard(cfg); err != nil; err = h.gate.guard(cfg) {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connecting to the database: %w", err)
		case <-time.After(anotherTurn):
		}
	}
	h.login.use(cfg)
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) { // that the caller left says nothing about the server
			h.gate.failed(err)
		}
		h.login.failed(err)
		return nil, fmt.Errorf("connecting to the database: %w", err)
	}
	return conn, nil
}

// answered tells the gate that a connection is good. That one has ended later says nothing about dialling: it may be this
// session alone, and lookups are to go on.
func (h *hotline) answered(c *pgx.Conn) {
	h.gate.answered(c.PgConn().CustomData()[attemptKey].(*attempt))
}

// hangUp closes a connection, and does not wait long for one that is dead.
func hangUp(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c.Close(ctx)
}

// Watch implements Watcher, with a connection of its own that LISTENs. It returns an error that wraps ErrNoNotices when
// the triggers of MigrateRevocation are not there, are dropped or disabled, or the server is a read replica. A connection
// that is silent is given up after three seconds.
func (p *Postgres) Watch(ctx context.Context, report func(Change)) error {
	err := p.watch(ctx, report)
	if errors.Is(err, ErrNoNotices) {
		return err
	}
	return because(ctx, "listening for revocations", err)
}

// watch is Watch until something is wrong.
func (p *Postgres) watch(ctx context.Context, report func(Change)) error {
	conn, err := p.notices.connect(ctx)
	if err != nil {
		return err
	}
	defer hangUp(conn)
	before, err := p.ask(ctx, conn)
	if err != nil {
		return err
	}
	p.notices.answered(conn)
	if _, err := conn.Exec(ctx, "LISTEN "+quoteIdentifier(before.Channel), pgx.QueryExecModeExec); err != nil {
		return err
	}
	if err := p.reassure(ctx, conn, before); err != nil {
		return err
	}
	lookups := &replica{p: p}
	if p.primary != nil {
		defer lookups.end()
		report = lookups.follow(report)
	}
	report(Change{All: true})
	for next := time.Now().Add(beat); ; next = time.Now().Add(beat) {
		for p.behind.Load() && time.Now().Before(next) {
			if err := lookups.catchUp(ctx, conn); err != nil {
				return err
			}
			if err := hear(ctx, conn, time.Now().Add(catchUpEvery), report); err != nil {
				return err
			}
		}
		if err := hear(ctx, conn, next, report); err != nil {
			return err
		}
		if err := p.reassure(ctx, conn, before); err != nil {
			return err
		}
	}
}

// hear reports the notices that come in until then.
func hear(ctx context.Context, conn *pgx.Conn, until time.Time, report func(Change)) error {
	wait, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	for {
		switch n, err := conn.WaitForNotification(wait); {
		case err == nil:
			report(parseNotice(n.Payload))
		case ctx.Err() == nil && wait.Err() != nil && pgconn.Timeout(err) && !conn.IsClosed():
			return nil
		default:
			return err
		}
	}
}

// reassure is the beat: that the server answers in time, that it is still the same session that answers, that this one
// listens, and that the triggers are there.
func (p *Postgres) reassure(ctx context.Context, conn *pgx.Conn, before *announcements) error {
	now, err := p.ask(ctx, conn)
	switch {
	case err != nil:
		return err
	case now.Channel != before.Channel:
		return errors.New("the table is another one now")
	case now.Session != before.Session || !now.Listening:
		return fmt.Errorf("%w here: the connection changes its session, as through a pooler in transaction mode; "+
			"store.listen must name the server itself", ErrNoNotices)
	default:
		return nil
	}
}

// ask is announcements in time and without a problem.
func (p *Postgres) ask(ctx context.Context, conn *pgx.Conn) (*announcements, error) {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	found, err := p.announcements(ctx, conn)
	if err != nil {
		return nil, err
	}
	return found, found.problem(p.table)
}

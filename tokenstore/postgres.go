package tokenstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// PostgresOptions are what the DSN cannot say. The zero value is good for the documented table.
type PostgresOptions struct {
	Table   string        // schema.table, or a table on the search path; empty: DefaultTable
	Timeout time.Duration // of one Lookup or Ping, waiting for a connection included; 0: DefaultTimeout
	Listen  string        // DSN of the server that announces changes, when lookups go to its replica; empty: the same
	Log     *slog.Logger  // told when the database stops answering and when it answers again; nil: nobody is
	// Again is the DSN and Listen as they read by now, for when a server turns the user and password down that are in
	// use: only those are taken of it. nil: never.
	Again func() (dsn, listen string, err error)
}

// Postgres is the Store on a Postgres server. To serve, its role needs SELECT on the one table and nothing else.
type Postgres struct {
	pool    *Pool
	primary *Pool       // of the server that announces changes, when that is another
	behind  atomic.Bool // pool's server may not show yet what has been announced: ask primary
	notices *hotline
	table   tableName
	lookup  string // the statement of Lookup
}

var _ Store = (*Postgres)(nil)

// OpenPostgres makes the store for a DSN, a libpq URL or its keyword=value form, pgx's pool_… settings included. It
// does not connect: the database may come up later. An error never holds any part of the DSN.
func OpenPostgres(ctx context.Context, dsn string, opts PostgresOptions) (*Postgres, error) {
	if opts.Table == "" {
		opts.Table = DefaultTable
	}
	table, err := parseTable(opts.Table)
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	if opts.Listen == "" {
		opts.Listen = dsn
	}
	var again, listen func() (string, error)
	if opts.Again != nil {
		again = func() (string, error) { dsn, _, err := opts.Again(); return dsn, err }
		listen = func() (string, error) {
			dsn, listen, err := opts.Again()
			return cmp.Or(listen, dsn), err
		}
	}
	notices, err := newHotline(opts.Listen)
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	pool, err := OpenPool(ctx, dsn, PoolOptions{Name: "token store", Timeout: opts.Timeout, Log: opts.Log, Again: again})
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	p := &Postgres{pool: pool, notices: notices, table: table, lookup: lookupSQL(table)}
	if opts.Listen != dsn {
		o := PoolOptions{Name: "primary of the token store", Timeout: opts.Timeout, Log: opts.Log, Again: listen}
		if p.primary, err = OpenPool(ctx, opts.Listen, o); err != nil {
			pool.Close()
			return nil, fmt.Errorf("opening store: %w", err)
		}
		pool = p.primary
	}
	notices.gate, notices.login = pool.gate, pool.login
	return p, nil
}

// Close closes all connections.
func (p *Postgres) Close() error {
	p.pool.Close()
	if p.primary != nil {
		p.primary.Close()
	}
	return nil
}

// Pools are the pools of connections: tokens, and primary when store.listen is another server.
func (p *Postgres) Pools() map[string]*Pool {
	pools := map[string]*Pool{"tokens": p.pool}
	if p.primary != nil {
		pools["primary"] = p.primary
	}
	return pools
}

// serverError is the server's own answer in err, if it is one.
func serverError(err error) (*pgconn.PgError, bool) {
	var e *pgconn.PgError
	ok := errors.As(err, &e)
	return e, ok
}

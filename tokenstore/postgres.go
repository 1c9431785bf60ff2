package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// connectTimeout bounds one attempt to connect when the DSN has no connect_timeout.
	connectTimeout = 5 * time.Second
	// maxConns is the size of the pool when the DSN has no pool_max_conns.
	maxConns = 10
	// anotherTurn is how long to wait for a connection that is in use when no new one is to be had.
	anotherTurn = 5 * time.Millisecond
)

// PostgresOptions are what the DSN cannot say. The zero value is good for the documented table.
type PostgresOptions struct {
	Table   string        // schema.table, or a table on the search path; empty: DefaultTable
	Timeout time.Duration // of one Lookup or Ping, waiting for a connection included; 0: DefaultTimeout
	Log     *slog.Logger  // told when the database stops answering and when it answers again; nil: nobody is
}

// Postgres is the Store on a Postgres server. To serve, its role needs SELECT on the one table and nothing else.
type Postgres struct {
	pool    *pgxpool.Pool
	gate    *dialGate
	table   tableName
	lookup  string // the statement of Lookup
	timeout time.Duration
	log     *slog.Logger
	silent  atomic.Bool // the last news for the log was that the database does not answer
}

// eraKey is where a connection carries the era of the dialGate in which it was dialled.
const eraKey = "dpopgate.era"

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
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", dsnError(err))
	}
	p := &Postgres{table: table, lookup: lookupSQL(table), timeout: timeoutOf(opts.Timeout), log: loggerOf(opts.Log)}
	p.gate = &dialGate{dial: cfg.ConnConfig.DialFunc, now: time.Now}
	cfg.BeforeConnect = func(_ context.Context, conn *pgx.ConnConfig) error {
		era := p.gate.current()
		conn.AfterConnect = func(_ context.Context, c *pgconn.PgConn) error {
			c.CustomData()[eraKey] = era
			return nil
		}
		return p.gate.check()
	}
	cfg.ConnConfig.DialFunc = p.gate.Dial
	setDefaults(cfg, dsn)
	if p.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	return p, nil
}

// setDefaults fills in what a DSN rarely says and pgx leaves unbounded or too small.
func setDefaults(cfg *pgxpool.Config, dsn string) {
	conn := cfg.ConnConfig
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = connectTimeout
	}
	if !strings.Contains(dsn, "pool_max_conns") {
		cfg.MaxConns = maxConns
	}
	if conn.RuntimeParams["application_name"] == "" {
		conn.RuntimeParams["application_name"] = "dpopgate"
	}
	// Behind a PgBouncer people turn prepared statements off this way. Exec does so too, and keeps values out of the
	// statement's text.
	if conn.DefaultQueryExecMode == pgx.QueryExecModeSimpleProtocol {
		conn.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
}

// dsnError says what is wrong with a DSN in words of our own: pgx's may hold pieces of it, and so of the password.
func dsnError(err error) error {
	text := strings.ToLower(err.Error())
	text = text[strings.LastIndex(text, "`")+1:] // after the DSN that it quotes
	for _, key := range []string{
		"invalid port", "sslmode", "sslcert", "sslkey", "sslrootcert", "sslnegotiation", "connect_timeout", "target_session_attrs",
		"pool_max_conns", "pool_min_conns", "pool_max_conn_lifetime", "pool_max_conn_idle_time", "pool_health_check_period",
		"default_query_exec_mode", "statement_cache_capacity", "service", "passfile",
	} {
		if strings.Contains(text, key) {
			return fmt.Errorf("the Postgres DSN is not valid near %s", key)
		}
	}
	return errors.New("the Postgres DSN is not valid: want postgres://user:password@host:5432/database (a password's " +
		"special characters percent-encoded) or host=… user=… password=… dbname=…")
}

// Close closes all connections.
func (p *Postgres) Close() error {
	p.pool.Close()
	return nil
}

// read runs f on a connection within the store's timeout. A connection that turns out to be broken is replaced, and as
// after a restart of the server all of a pool are, so is the next.
func (p *Postgres) read(ctx context.Context, doing string, f func(context.Context, *pgxpool.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	broken, err := p.use(ctx, f)
	for range p.pool.Stat().MaxConns() {
		if !broken || ctx.Err() != nil {
			break
		}
		broken, err = p.use(ctx, f)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return because(ctx, doing, err)
	}
	return err
}

// once runs f on a connection, bounded by ctx alone, and never twice.
func (p *Postgres) once(ctx context.Context, doing string, f func(context.Context, *pgxpool.Conn) error) error {
	if _, err := p.use(ctx, f); err != nil {
		return because(ctx, doing, err)
	}
	return nil
}

// use runs f on a connection of the pool and says whether the connection did not survive it.
func (p *Postgres) use(ctx context.Context, f func(context.Context, *pgxpool.Conn) error) (broken bool, err error) {
	conn, err := p.acquire(ctx)
	if err != nil {
		p.silence(ctx, err)
		return false, fmt.Errorf("connecting to the database: %w", err)
	}
	defer conn.Release()
	err = f(ctx, conn)
	if conn.Conn().IsClosed() {
		p.silence(ctx, err)
		return true, err
	}
	era, _ := conn.Conn().PgConn().CustomData()[eraKey].(int)
	p.gate.answered(era)
	if p.silent.CompareAndSwap(true, false) {
		p.log.Info("token store answers")
	}
	return false, err
}

// acquire takes a connection from the pool. When a new one cannot be had (the server has too many, or dials are
// spent) but others are in use, it waits for one of those: the pool that is there keeps serving.
func (p *Postgres) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	for {
		conn, err := p.pool.Acquire(ctx)
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
		p.failed(err)
		if stat := p.pool.Stat(); stat.AcquiredConns()+stat.IdleConns() == 0 {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(anotherTurn):
		}
	}
}

// silence tells the gate and the log that the database did not answer. That the caller left says nothing about it.
func (p *Postgres) silence(ctx context.Context, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	p.failed(err)
	if p.silent.CompareAndSwap(false, true) {
		p.log.Warn("token store does not answer", "error", err)
	}
}

// failed tells the gate of a failure, unless it is the gate's own refusal.
func (p *Postgres) failed(err error) {
	if !errors.Is(err, errDialsSpent) {
		p.gate.failed()
	}
}

// serverError is the server's own answer in err, if it is one.
func serverError(err error) (*pgconn.PgError, bool) {
	var e *pgconn.PgError
	ok := errors.As(err, &e)
	return e, ok
}

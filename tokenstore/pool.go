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
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// connectTimeout bounds one attempt to connect when the DSN has no connect_timeout.
	connectTimeout = 5 * time.Second
	// maxConns is the size of the pool when the DSN has no pool_max_conns.
	maxConns = 10
	// applicationName is what the server calls our connections when the DSN does not say.
	applicationName = "dpopgate"
	// anotherTurn is how long to wait for a connection that is in use when no new one is to be had.
	anotherTurn = 5 * time.Millisecond
)

// PoolOptions are what the DSN cannot say.
type PoolOptions struct {
	Name    string        // what the log calls the database
	Timeout time.Duration // of one Read, waiting for a connection included; 0: DefaultTimeout
	Log     *slog.Logger  // told when the database stops answering and when it answers again; nil: nobody is
	// Again is the DSN as it reads by now. It is asked for when the server turns the user and password down that are in
	// use, and only those of it are taken. nil: never.
	Again func() (dsn string, err error)
}

// Pool is connections to a Postgres server that may be down, slow or frozen: it dials a server that does not answer only
// so often, replaces connections that broke, and lets nobody wait without a bound. It may be used concurrently.
type Pool struct {
	conns   *pgxpool.Pool
	gate    *dialGate
	login   *login
	name    string
	timeout time.Duration
	log     *slog.Logger
	silent  atomic.Bool // the last news for the log was that the database does not answer
}

// OpenPool makes a pool for a DSN, a libpq URL or its keyword=value form, pgx's pool_… settings included. It does not
// connect: the database may come up later. An error never holds any part of the DSN.
func OpenPool(ctx context.Context, dsn string, o PoolOptions) (*Pool, error) {
	cfg, err := parseDSN(dsn)
	if err != nil {
		return nil, err
	}
	p := &Pool{name: o.Name, timeout: timeoutOf(o.Timeout), log: loggerOf(o.Log)}
	p.gate = &dialGate{now: time.Now}
	p.login = &login{again: o.Again, log: p.log, name: p.name}
	cfg.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		if err := p.gate.guard(c); err != nil {
			return err
		}
		p.login.use(c)
		return nil
	}
	if p.conns, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, err
	}
	return p, nil
}

// Close closes all connections, and waits for those in use.
func (p *Pool) Close() { p.conns.Close() }

// PoolStats is the state of a Pool: connections now, and waits since the start.
type PoolStats struct {
	InUse, Idle, Opening, Max int
	Waits                     int64         // uses that had to wait for a connection
	Waited                    time.Duration // how long, all together
}

// Stats returns the state of the pool. It asks nobody.
func (p *Pool) Stats() PoolStats {
	s := p.conns.Stat()
	return PoolStats{
		InUse: int(s.AcquiredConns()), Idle: int(s.IdleConns()), Opening: int(s.ConstructingConns()), Max: int(s.MaxConns()),
		Waits: s.EmptyAcquireCount(), Waited: s.EmptyAcquireWaitTime(),
	}
}

// Read runs f on a connection within the pool's timeout. A connection that turns out to be broken is replaced and f runs
// again, and as after a restart of the server all of a pool are broken, so does it with the next.
func (p *Pool) Read(ctx context.Context, doing string, f func(context.Context, *pgxpool.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	broken, err := p.use(ctx, f)
	for range p.conns.Stat().MaxConns() {
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

// Once runs f on a connection, bounded by ctx alone, and never twice.
func (p *Pool) Once(ctx context.Context, doing string, f func(context.Context, *pgxpool.Conn) error) error {
	if _, err := p.use(ctx, f); err != nil {
		return because(ctx, doing, err)
	}
	return nil
}

// use runs f on a connection of the pool and says whether the connection did not survive it.
func (p *Pool) use(ctx context.Context, f func(context.Context, *pgxpool.Conn) error) (broken bool, err error) {
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
	p.gate.answered(conn.Conn().PgConn().CustomData()[attemptKey].(*attempt))
	if p.silent.CompareAndSwap(true, false) {
		p.log.Info(p.name + " answers")
	}
	return false, err
}

// acquire takes a connection from the pool. When a new one cannot be had (the gate is shut, or the server has too many)
// but there are others, in use or coming up, it waits for one of those: the pool that is there keeps serving.
func (p *Pool) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	for {
		conn, err := p.conns.Acquire(ctx)
		if err == nil || ctx.Err() != nil {
			return conn, err
		}
		p.gate.failed(err)
		p.login.failed(err)
		if p.conns.Stat().TotalConns() == 0 {
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
func (p *Pool) silence(ctx context.Context, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	p.gate.failed(err)
	if p.silent.CompareAndSwap(false, true) {
		p.log.Warn(p.name+" does not answer", "error", err)
	}
}

// parseDSN reads a DSN, with our defaults.
func parseDSN(dsn string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, dsnError(err)
	}
	setDefaults(cfg, dsn)
	return cfg, nil
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
		conn.RuntimeParams["application_name"] = applicationName
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

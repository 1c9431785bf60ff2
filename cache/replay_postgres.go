package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

const (
	proofsTable  = "dpopgate_proofs"
	purgeEvery   = 5 * time.Second
	purgeBatch   = 5000 // rows of one statement
	purgeTimeout = 10 * time.Second
)

// PostgresProofsOptions are what the DSN cannot say. The zero value is good beside the documented token table.
type PostgresProofsOptions struct {
	// TokenTable is the table in whose schema dpopgate_proofs is, as tokenstore.PostgresOptions has it; empty:
	// tokenstore.DefaultTable.
	TokenTable string
	Timeout    time.Duration    // of one Claim or Ping, waiting for a connection included; 0: tokenstore.DefaultTimeout
	Log        *slog.Logger     // told when the database stops answering and when it answers again; nil: nobody is
	Now        func() time.Time // the clock; nil: time.Now
	// Again is the DSN as it reads by now, as tokenstore.PoolOptions has it; nil: never.
	Again func() (dsn string, err error)
}

// PostgresProofs is a dpop.Replay in a table of its own, dpopgate_proofs, shared by all instances on one database. It is
// exact as long as the database keeps what it has committed: the table is a logged one, since Postgres empties an unlogged
// one after a crash; synchronous_commit and fsync must be on, and a standby that may take over a synchronous one.
//
// Its role needs SELECT, INSERT, UPDATE and DELETE on that table. Rows that have ended are deleted in the background, by
// whichever instance comes first.
type PostgresProofs struct {
	pool  *tokenstore.Pool
	table string // as SQL takes it
	take  string // the statement of Claim
	now   func() time.Time
	slack time.Duration
	log   *slog.Logger

	stop    context.CancelFunc
	stopped chan struct{}
}

// OpenPostgresProofs makes the store for a DSN as tokenstore.OpenPostgres takes it. It does not connect: the database may
// come up later, and until then each Claim is an error. An error never holds any part of the DSN.
func OpenPostgresProofs(dsn string, o PostgresProofsOptions) (*PostgresProofs, error) {
	table, err := tokenstore.Sibling(o.TokenTable, proofsTable)
	if err != nil {
		return nil, fmt.Errorf("opening replay store: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	pool, err := tokenstore.OpenPool(ctx, dsn, tokenstore.PoolOptions{Name: "replay store", Timeout: o.Timeout, Log: o.Log, Again: o.Again})
	if err != nil {
		stop()
		return nil, fmt.Errorf("opening replay store: %w", err)
	}
	p := &PostgresProofs{
		pool: pool, table: table, take: fmt.Sprintf(claimSQL, table), now: clockOf(o.Now), slack: slack, log: loggerOf(o.Log),
		stop: stop, stopped: make(chan struct{}),
	}
	go p.keepPurging(ctx)
	return p, nil
}

// Close stops the deleting and closes all connections.
func (p *PostgresProofs) Close() error {
	p.stop()
	<-p.stopped
	p.pool.Close()
	return nil
}

// PoolStats returns the state of its connections.
func (p *PostgresProofs) PoolStats() tokenstore.PoolStats { return p.pool.Stats() }

// claimSQL takes a key ($1) until a time ($2), in one statement and so at once, and says whether it did and whether by the
// clock of the database the time is over by more than the slack ($3). A row is overwritten only when its time is over, and
// by a later one only: the same proof, claimed again, never is.
const claimSQL = `
WITH taken AS (
    INSERT INTO %[1]s AS proof (key, until)
    SELECT $1::bytea, $2::timestamptz WHERE now() <= $2::timestamptz + $3::interval
    ON CONFLICT (key) DO UPDATE SET until = excluded.until
        WHERE proof.until <= now() AND proof.until < excluded.until
    RETURNING 1
)
SELECT EXISTS (SELECT FROM taken), now() > $2::timestamptz + $3::interval`

// Claim implements dpop.Replay. A connection that breaks is replaced; when the claim was on it, it is made again, and if it
// is not fresh then, Claim cannot know whether its own first attempt took it, and says so with an error.
func (p *PostgresProofs) Claim(ctx context.Context, k dpop.ReplayKey, until time.Time) (fresh bool, err error) {
	if !p.now().Before(until) {
		return false, nil
	}
	fresh, late, unsure, err := p.claim(ctx, k, until)
	switch {
	case err != nil:
		return false, err
	case fresh:
		return true, nil
	case late:
		return false, fmt.Errorf("claiming a proof: %w", errClocks)
	case unsure:
		return false, fmt.Errorf("claiming a proof: %w", errUnsure)
	}
	return false, nil
}

func (p *PostgresProofs) claim(ctx context.Context, k dpop.ReplayKey, until time.Time) (fresh, late, unsure bool, err error) {
	err = p.pool.Read(ctx, "claiming a proof", func(ctx context.Context, c *pgxpool.Conn) error {
		err := c.QueryRow(ctx, p.take, k[:], until, p.slack).Scan(&fresh, &late)
		if err != nil && !pgconn.SafeToRetry(err) {
			unsure = true
		}
		return p.explain(err)
	})
	return fresh, late, unsure, err
}

// Ping asks for a claim that takes nothing, with the rights and the time of a Claim.
func (p *PostgresProofs) Ping(ctx context.Context) error {
	_, _, _, err := p.claim(ctx, dpop.ReplayKey{}, time.Unix(0, 0))
	return err
}

const checkSQL = `
SELECT c.relpersistence = 'u', current_setting('fsync')::boolean, current_setting('synchronous_commit') <> 'off',
    has_table_privilege(c.oid, 'DELETE'), clock_timestamp()
FROM pg_class c WHERE c.oid = to_regclass($1)`

// Check does what Ping does, and then says what could make the database forget used proofs, or keep them for ever: one
// sentence each. It needs no more rights.
func (p *PostgresProofs) Check(ctx context.Context) (doubts []string, err error) {
	if err := p.Ping(ctx); err != nil {
		return nil, err
	}
	var unlogged, fsync, synchronous, deletes bool
	var clock time.Time
	err = p.pool.Read(ctx, "checking the replay store", func(ctx context.Context, c *pgxpool.Conn) error {
		return c.QueryRow(ctx, checkSQL, p.table).Scan(&unlogged, &fsync, &synchronous, &deletes, &clock)
	})
	if err != nil {
		return nil, err
	}
	if unlogged {
		doubts = append(doubts, "table "+p.table+" is unlogged: a crash of the database empties it; ALTER TABLE … SET LOGGED")
	}
	if !fsync {
		doubts = append(doubts, "fsync is off: a crash of the database's machine loses used proofs")
	}
	if !synchronous {
		doubts = append(doubts, "synchronous_commit is off: a crash of the database loses the last used proofs")
	}
	if !deletes {
		doubts = append(doubts, "the role may not DELETE from "+p.table+", which grows for ever")
	}
	return append(doubts, clockDoubt(clock.Sub(p.now()))...), nil
}

// clockDoubt is a doubt when the store's clock is too far from ours.
func clockDoubt(ahead time.Duration) []string {
	if ahead.Abs() <= slack {
		return nil
	}
	return []string{fmt.Sprintf("the clocks of the replay store and of this machine differ by %s: beyond %s, proofs near their end are refused", ahead.Abs().Round(time.Second), slack)}
}

const proofsSchema = `-- Used DPoP proofs (RFC 9449 section 11.1), for dpop.replay: postgres. Where the table exists, this changes nothing.
BEGIN;

-- Two at once would trip over each other's half.
SELECT pg_advisory_xact_lock(hashtextextended('dpopgate migrate', 0));

-- Not UNLOGGED: after a crash that would be empty, and every proof could be used once more. Rows live for a minute or two,
-- so they are to be vacuumed early.
CREATE TABLE IF NOT EXISTS %[1]s (
    key   bytea       NOT NULL PRIMARY KEY CHECK (octet_length(key) = 32),
    until timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS dpopgate_proofs_until ON %[1]s (until);

COMMENT ON TABLE %[1]s IS 'Used DPoP proofs, so that none is taken twice.';
COMMENT ON COLUMN %[1]s.key IS 'SHA-256 over the thumbprint of the key and the jti.';
COMMENT ON COLUMN %[1]s.until IS 'From when on no such proof is taken any more.';

COMMIT;
`

// SQL is what Migrate runs: one script with its own transaction, for psql as well. The schema must be there.
func (p *PostgresProofs) SQL() string { return fmt.Sprintf(proofsSchema, p.table) }

// Migrate creates the table where it is missing, which needs the right to create in the schema. Several instances may do
// it at once.
func (p *PostgresProofs) Migrate(ctx context.Context) error {
	return p.pool.Once(ctx, "creating the table of used proofs", func(ctx context.Context, c *pgxpool.Conn) error {
		var there bool
		err := c.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", pgx.QueryExecModeExec, p.table).Scan(&there)
		if err != nil || there { // a role that may not create may still find that there is nothing to do
			return err
		}
		_, err = c.Conn().PgConn().Exec(ctx, p.SQL()).ReadAll()
		return err
	})
}

// keepPurging deletes now and then until ctx ends.
func (p *PostgresProofs) keepPurging(ctx context.Context) {
	defer close(p.stopped)
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := p.purge(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			p.log.Warn("used proofs that have ended were not deleted", "error", err)
		}
		failing = err != nil
	}
}

// purgeSQL deletes up to $2 rows that ended more than $1 ago. Instances that do so at the same time share the work.
const purgeSQL = `
DELETE FROM %[1]s WHERE key = ANY (ARRAY (
    SELECT key FROM %[1]s WHERE until < now() - $1::interval ORDER BY until LIMIT $2 FOR UPDATE SKIP LOCKED
))`

// purge deletes all that may be forgotten, and says how many rows those were.
func (p *PostgresProofs) purge(ctx context.Context) (total int64, err error) {
	for {
		n, err := p.purgeSome(ctx)
		total += n
		if err != nil || n < purgeBatch {
			return total, err
		}
	}
}

func (p *PostgresProofs) purgeSome(ctx context.Context) (n int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, purgeTimeout)
	defer cancel()
	err = p.pool.Once(ctx, "deleting used proofs", func(ctx context.Context, c *pgxpool.Conn) error {
		tag, err := c.Exec(ctx, fmt.Sprintf(purgeSQL, p.table), 2*p.slack, purgeBatch)
		n = tag.RowsAffected()
		return p.explain(err)
	})
	return n, err
}

// explain adds to some of the server's answers what is to be done about them.
func (p *PostgresProofs) explain(err error) error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	switch answer.Code {
	case "42P01", "3F000": // undefined_table, invalid_schema_name
		return fmt.Errorf("table %s is not there: run dpopgate migrate (%w)", p.table, err)
	case "42501": // insufficient_privilege
		return fmt.Errorf("the role needs SELECT, INSERT, UPDATE and DELETE on %s (%w)", p.table, err)
	case "25006": // read_only_sql_transaction
		return fmt.Errorf("used proofs must be written, and this database is read-only: name the primary (%w)", err)
	}
	return err
}

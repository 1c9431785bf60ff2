package tokenstore

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// catchUpEvery is how often a replica is asked whether it shows by now what has been announced.
const catchUpEvery = 50 * time.Millisecond

// reads is where a Lookup goes: to the primary, from the moment on at which it announces a change and until the replica
// shows it. A notice overtakes the change itself on its way to a replica: who asked there would get the old record once
// more, and keep it.
func (p *Postgres) reads() *Pool {
	if p.primary != nil && p.behind.Load() {
		return p.primary
	}
	return p.pool
}

// replica follows, for one Watch, how far the server of the lookups is behind the one that announces. A DSN that leads to
// one replica now and to another then is not for it.
type replica struct {
	p    *Postgres
	mark string // a position in the primary's log after the last change; empty: to be asked for
}

// follow is report, with lookups at the primary before anyone is told.
func (r *replica) follow(report func(Change)) func(Change) {
	return func(c Change) {
		r.p.behind.Store(true)
		r.mark = ""
		report(c)
	}
}

// catchUp sends lookups to the replica again when it has come far enough. That the replica does not answer changes nothing.
func (r *replica) catchUp(ctx context.Context, primary *pgx.Conn) error {
	if r.mark == "" {
		ctx, cancel := context.WithTimeout(ctx, beatTimeout)
		defer cancel()
		err := primary.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text", pgx.QueryExecModeExec).Scan(&r.mark)
		if err != nil {
			return err
		}
	}
	var there bool
	err := r.p.pool.Read(ctx, "asking the replica how far it is", func(ctx context.Context, c *pgxpool.Conn) error {
		const sql = "SELECT NOT pg_is_in_recovery() OR coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)"
		return c.QueryRow(ctx, sql, pgx.QueryExecModeExec, r.mark).Scan(&there)
	})
	if err == nil && there {
		r.p.behind.Store(false)
	}
	return nil
}

// end is the end of the Watch: nobody knows any more what the replica lacks.
func (r *replica) end() { r.p.behind.Store(false) }

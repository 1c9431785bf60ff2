package tokenstore

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// pollEvery is how often an embedded store is asked whether somebody has written to it.
const pollEvery = 100 * time.Millisecond

var _ Watcher = (*SQLite)(nil)

// Watch implements Watcher. The file says only that something was written, by this process or another, so that every
// change is All, and an Insert is one as well. It is noticed within a tenth of a second.
func (s *SQLite) Watch(ctx context.Context, report func(Change)) error {
	return because(ctx, "watching the store", s.watch(ctx, report))
}

func (s *SQLite) watch(ctx context.Context, report func(Change)) (err error) {
	// A connection sees the writes of others, and must stay the same one.
	db, err := sql.Open("sqlite", s.file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	ticks := time.NewTicker(pollEvery)
	defer ticks.Stop()
	for last, first := int64(0), true; ; first = false {
		var version int64
		if err := conn.QueryRowContext(ctx, `PRAGMA data_version`).Scan(&version); err != nil {
			return err
		}
		if first || version != last {
			report(Change{All: true})
		}
		last = version
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticks.C:
		}
	}
}

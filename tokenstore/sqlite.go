package tokenstore

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// sqliteTable is the name of the table in an embedded store.
const sqliteTable = "oauth_access_tokens"

// lockTimeout is how long a write waits for another process's, in milliseconds.
const lockTimeout = 5000

//go:embed schema/sqlite.sql
var sqliteSchema string

// SQLiteOptions are what the path cannot say.
type SQLiteOptions struct {
	Timeout time.Duration // of one Lookup or Ping; 0: DefaultTimeout
}

// SQLite is the Store in a file, for one machine. Several processes may have it open at the same time: writers take
// turns, and readers wait for nobody.
type SQLite struct {
	db      *sql.DB
	file    string // the URL, as the driver takes it
	lookup  *sql.Stmt
	timeout time.Duration
}

var _ Store = (*SQLite)(nil)

// OpenSQLite opens the store in the file at path. A file that is not there is created with mode 0600, in a folder that
// is there, and so is the table.
func OpenSQLite(ctx context.Context, path string, opts SQLiteOptions) (*SQLite, error) {
	s, err := openSQLite(ctx, path, opts)
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", path, err)
	}
	return s, nil
}

func openSQLite(ctx context.Context, path string, opts SQLiteOptions) (*SQLite, error) {
	if path == "" {
		return nil, errors.New("the path is empty")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := createFile(path); err != nil {
		return nil, err
	}
	// A deleted or revoked token must stay so when the machine loses power: hence synchronous=FULL, SQLite's own default.
	settings := url.Values{
		"_busy_timeout": {fmt.Sprint(lockTimeout)},
		"_pragma":       {"synchronous(FULL)"},
		"_txlock":       {"immediate"},
	}
	file := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path), RawQuery: settings.Encode()}
	db, err := sql.Open("sqlite", file.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	s := &SQLite{db: db, file: file.String(), timeout: timeoutOf(opts.Timeout)}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// createFile makes an empty file that only its owner can read; SQLite gives its companions the same mode.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the folder %s is not there", filepath.Dir(path))
	case err != nil:
		return err
	}
	return f.Close()
}

// prepare creates the table where it is absent, and the statement of Lookup.
func (s *SQLite) prepare(ctx context.Context) error {
	var table string
	err := s.db.QueryRowContext(ctx, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name = ?`, sqliteTable).Scan(&table)
	if errors.Is(err, sql.ErrNoRows) {
		err = s.Migrate(ctx)
	}
	if err != nil {
		return sqliteError(err)
	}
	s.lookup, err = s.db.PrepareContext(ctx, `SELECT `+sqliteColumns+` FROM `+sqliteTable+` WHERE digest = ?`)
	return err
}

// Migrate implements Store. OpenSQLite has done it already.
func (s *SQLite) Migrate(ctx context.Context) error {
	if err := s.migrate(ctx); err != nil {
		return because(ctx, "creating the token table", err)
	}
	return nil
}

func (s *SQLite) migrate(ctx context.Context) error {
	// Reads then do not wait for writes. It is a property of the file and cannot be set inside a transaction.
	if err := s.useWAL(ctx); err != nil {
		return err
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, s.SQL()); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// useWAL sets the journal mode. SQLite does not wait for a lock here, so that two processes that create the same store
// at once have to try again.
func (s *SQLite) useWAL(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout*time.Millisecond)
	defer cancel()
	for {
		_, err := s.db.ExecContext(ctx, `PRAGMA journal_mode = WAL`)
		if !hasCode(err, lib.SQLITE_BUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(anotherTurn):
		}
	}
}

// SQL implements Store.
func (s *SQLite) SQL() string { return sqliteSchema }

// Close closes the file.
func (s *SQLite) Close() error {
	return errors.Join(s.lookup.Close(), s.db.Close())
}

// hasCode says whether err is SQLite's, with the given primary result code.
func hasCode(err error, primary int) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == primary
}

// hasExtendedCode says whether err is SQLite's, with the given extended result code.
func hasExtendedCode(err error, code int) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == code
}

// sqliteError adds what to do to errors that do not say it.
func sqliteError(err error) error {
	switch {
	case hasCode(err, lib.SQLITE_NOTADB):
		return fmt.Errorf("%w: it is not a SQLite database; name another file, or move this one away", err)
	case hasCode(err, lib.SQLITE_READONLY), hasCode(err, lib.SQLITE_CANTOPEN):
		return fmt.Errorf("%w: the file and its folder must be writable, also to read (WAL)", err)
	default:
		return err
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/tokenstore"
)

const (
	// certTimeout bounds one statement of a certStore, the attempts together. No request waits for these.
	certTimeout = 10 * time.Second
	// certRetry is the time between two attempts.
	certRetry = 100 * time.Millisecond
	// certLease is how long a lock outlives a holder that died.
	certLease = 30 * time.Second
)

// certStoreOptions are what the DSN cannot say. The zero value stores values as they are.
type certStoreOptions struct {
	Key     config.Secret                  // encrypts the values, at least 16 bytes; empty: nothing is encrypted
	Timeout time.Duration                  // of one statement; 0: certTimeout
	Lease   time.Duration                  // of a lock; 0: certLease
	Log     *slog.Logger                   // told of locks that were lost, and when the database stops answering; nil: nobody is
	Again   func() (dsn string, err error) // as tokenstore.PoolOptions has it; nil: never
}

// certStore keeps certificates, accounts and locks in the schema dpopgate of a Postgres, shared by all instances on it, so
// that a fleet orders each certificate once. It implements certmagic.Storage and may be used concurrently. Keys are cleaned
// as paths are, and as in a folder a key is either a value or the folder of other keys, never both; but there are no empty
// folders.
//
// Its role needs SELECT, INSERT, UPDATE and DELETE on both tables, and USAGE on the schema.
type certStore struct {
	pool    *tokenstore.Pool
	seal    *sealer
	timeout time.Duration
	lease   time.Duration
	log     *slog.Logger

	mu    sync.Mutex
	turns map[string]chan struct{} // by lock: whose turn it is in this process to have it or to wait for it
	held  map[string]*certLock     // by lock: those that this process has
}

var (
	_ certmagic.Storage          = (*certStore)(nil)
	_ certmagic.TryLocker        = (*certStore)(nil)
	_ certmagic.LockLeaseRenewer = (*certStore)(nil)
)

// openCertStore makes the store for a DSN as tokenstore.OpenPostgres takes it. It does not connect: the database may come
// up later. An error never holds any part of the DSN or of the key.
func openCertStore(ctx context.Context, dsn string, o certStoreOptions) (*certStore, error) {
	s := &certStore{
		timeout: o.Timeout, lease: o.Lease, log: o.Log,
		turns: make(map[string]chan struct{}), held: make(map[string]*certLock),
	}
	if s.lease <= 0 {
		s.lease = certLease
	}
	if s.timeout <= 0 {
		s.timeout = certTimeout
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.seal, err = newSealer(o.Key); err != nil {
		return nil, fmt.Errorf("opening certificate store: %w", err)
	}
	s.pool, err = tokenstore.OpenPool(ctx, dsn, tokenstore.PoolOptions{Name: "certificate store", Timeout: s.timeout / 3, Log: s.log, Again: o.Again})
	if err != nil {
		return nil, fmt.Errorf("opening certificate store: %w", err)
	}
	return s, nil
}

// Close gives up the locks that are still held, for others to take at once, and closes all connections.
func (s *certStore) Close() error {
	s.unlockAll()
	s.pool.Close()
	return nil
}

// String is what certmagic's log says of the store.
func (s *certStore) String() string { return "postgres schema dpopgate" }

const storeCertSQL = `
INSERT INTO dpopgate.certificates (key, value, sealed, modified)
SELECT $1::text, $2::bytea, $3::boolean, clock_timestamp()
WHERE NOT EXISTS (SELECT FROM dpopgate.certificates WHERE key = ANY ($4::text[]) OR starts_with(key, $1::text || '/'))
ON CONFLICT (key) DO UPDATE SET value = excluded.value, sealed = excluded.sealed, modified = excluded.modified`

// Store implements certmagic.Storage.
func (s *certStore) Store(ctx context.Context, key string, value []byte) error {
	name := cleanKey(key)
	if name == "" {
		return &fs.PathError{Op: "store", Path: key, Err: fs.ErrInvalid}
	}
	n, err := s.exec(ctx, "storing "+name, storeCertSQL, name, s.seal.seal(name, value), s.seal != nil, foldersOf(name))
	if err == nil && n == 0 {
		err = fmt.Errorf("storing %s: it is the folder of other keys, or one of its folders is a value", name)
	}
	return err
}

// Load implements certmagic.Storage. A value that cannot be decrypted is an error, and so is one that was stored without a
// key when there is one: whoever can write to the database could otherwise have the gateway use an account key of theirs.
func (s *certStore) Load(ctx context.Context, key string) (value []byte, err error) {
	name, found, sealed := cleanKey(key), false, false
	err = s.query(ctx, "loading "+name, func(ctx context.Context, c *pgxpool.Conn) error {
		err := c.QueryRow(ctx, "SELECT value, sealed FROM dpopgate.certificates WHERE key = $1::text", name).Scan(&value, &sealed)
		found = err == nil
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, missing("load", key)
	}
	if value, err = s.seal.open(name, value, sealed); err != nil {
		return nil, fmt.Errorf("loading %s: %w", name, err)
	}
	return value, nil
}

// Delete implements certmagic.Storage. It refuses the empty key, which would be everything.
func (s *certStore) Delete(ctx context.Context, key string) error {
	name := cleanKey(key)
	if name == "" {
		return &fs.PathError{Op: "delete", Path: key, Err: fs.ErrInvalid}
	}
	_, err := s.exec(ctx, "deleting "+name,
		"DELETE FROM dpopgate.certificates WHERE key = $1::text OR starts_with(key, $1::text || '/')", name)
	return err
}

// Exists implements certmagic.Storage.
func (s *certStore) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

// List implements certmagic.Storage. The keys are whole ones, sorted, and folders are among them.
func (s *certStore) List(ctx context.Context, key string, recursive bool) ([]string, error) {
	name := cleanKey(key)
	var below []string
	found := name == ""
	err := s.query(ctx, "listing "+name, func(ctx context.Context, c *pgxpool.Conn) error {
		const listSQL = "SELECT key FROM dpopgate.certificates WHERE key = $1::text OR starts_with(key, $2::text)"
		rows, _ := c.Query(ctx, listSQL, name, inside(name))
		var err error
		below, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return nil, err
	}
	if !found && len(below) == 0 {
		return nil, missing("list", key)
	}
	return keysInside(name, below, recursive), nil
}

const statCertSQL = `
SELECT max(modified), coalesce(sum(octet_length(value) - CASE WHEN sealed THEN $3::bigint ELSE 0 END), 0)::bigint,
    coalesce(bool_or(key = $1::text), false)
FROM dpopgate.certificates WHERE key = $1::text OR starts_with(key, $2::text)`

// Stat implements certmagic.Storage. The size and the time of a folder are the sum and the latest of what is in it.
func (s *certStore) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	name, info := cleanKey(key), certmagic.KeyInfo{Key: key}
	var modified *time.Time
	err := s.query(ctx, "looking for "+name, func(ctx context.Context, c *pgxpool.Conn) error {
		return c.QueryRow(ctx, statCertSQL, name, inside(name), sealOverhead).Scan(&modified, &info.Size, &info.IsTerminal)
	})
	switch {
	case err != nil:
		return certmagic.KeyInfo{}, err
	case modified != nil:
		info.Modified = *modified
	case name != "":
		return certmagic.KeyInfo{}, missing("stat", key)
	}
	return info, nil
}

// query runs f until it succeeds, until the server refuses it, or until the timeout: certmagic takes the first failure of a
// store for final, and forgets a certificate that it was to get, so a restart of the database is waited out.
func (s *certStore) query(ctx context.Context, doing string, f func(context.Context, *pgxpool.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for {
		err := s.pool.Read(ctx, doing, func(ctx context.Context, c *pgxpool.Conn) error { return explainCert(f(ctx, c)) })
		if err == nil || isRefusal(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(certRetry):
		}
	}
}

// isRefusal says whether an error is the server's answer to a statement, and would be again.
func isRefusal(err error) bool {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return false
	}
	switch answer.Code[:2] {
	case "08", "53", "57": // connection exception, insufficient resources, operator intervention such as a shutdown
		return false
	}
	return true
}

// exec runs a statement as query does, and says how many rows it was about. All statements here may run twice: nobody can
// tell that from a Store or Delete that takes longer.
func (s *certStore) exec(ctx context.Context, doing, sql string, args ...any) (rows int64, err error) {
	err = s.query(ctx, doing, func(ctx context.Context, c *pgxpool.Conn) error {
		tag, err := c.Exec(ctx, sql, args...)
		rows = tag.RowsAffected()
		return err
	})
	return rows, err
}

// explainCert adds to some of the server's answers what is to be done about them.
func explainCert(err error) error {
	answer, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	switch answer.Code {
	case "42P01", "3F000": // undefined_table, invalid_schema_name
		return fmt.Errorf("the tables of the schema dpopgate are not there: run dpopgate migrate (%w)", err)
	case "42501": // insufficient_privilege
		return fmt.Errorf("the role needs USAGE on the schema dpopgate, and SELECT, INSERT, UPDATE and DELETE on its tables (%w)", err)
	case "25006": // read_only_sql_transaction
		return fmt.Errorf("certificates must be written, and this database is read-only: name the primary (%w)", err)
	}
	return err
}

func missing(op, key string) error { return &fs.PathError{Op: op, Path: key, Err: fs.ErrNotExist} }

// cleanKey is a key in its one spelling: no slash at either end, none doubled, no dots as a part. The root is empty.
func cleanKey(key string) string { return strings.TrimPrefix(path.Clean("/"+key), "/") }

// inside is what the keys in a folder begin with.
func inside(folder string) string {
	if folder == "" {
		return ""
	}
	return folder + "/"
}

// foldersOf lists the folders that a key is in.
func foldersOf(key string) []string {
	folders := []string{}
	for i, r := range key {
		if r == '/' {
			folders = append(folders, key[:i])
		}
	}
	return folders
}

// keysInside lists what is in a folder, given at least the keys of all values in it: with recursive all values and
// folders, else only those that are not in another folder in it.
func keysInside(folder string, values []string, recursive bool) []string {
	var keys []string
	start := inside(folder)
	for _, value := range values {
		rest, ok := strings.CutPrefix(value, start)
		if !ok {
			continue
		}
		parts := append(foldersOf(rest), rest)
		if !recursive {
			parts = parts[:1]
		}
		for _, part := range parts {
			keys = append(keys, start+part)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

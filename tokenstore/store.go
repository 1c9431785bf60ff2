package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
)

// MaxBatch is how many digests one query of a LookupAll is about.
const MaxBatch = 256

// DefaultTimeout bounds a Lookup or a Ping when the options do not say.
const DefaultTimeout = 500 * time.Millisecond

var (
	// ErrNotFound says that no row has that digest.
	ErrNotFound = errors.New("token not found")
	// ErrCorrupt says that what the store holds for that digest is no record: several rows, or one that cannot be read.
	ErrCorrupt = errors.New("the rows of this token cannot be read as one record")
	// ErrDuplicate says that a record cannot be added because its digest is there already.
	ErrDuplicate = errors.New("a token with this digest is there already")
	// ErrEmptySelector says that a Selector without any field was given where it would mean every record.
	ErrEmptySelector = errors.New("no token, jti, user or client given: this would match every token")
)

// UnknownReferenceError says that a record names a client or a user that the table it must be in does not have.
type UnknownReferenceError struct {
	Column string // client_id or user_id
	Table  string // the table it refers to
	ID     uuid.UUID
}

// Error says what is missing where, and what to do.
func (e *UnknownReferenceError) Error() string {
	what := map[string]string{"client_id": "client", "user_id": "user"}[e.Column]
	return fmt.Sprintf("%s %s is not in %s: add it there first, or name one that is there", what, e.ID, e.Table)
}

// Store is where the records behind opaque tokens are kept. All methods may be called concurrently; each is bounded
// by its context and returns an error that wraps the context's when that ends first.
type Store interface {
	// Lookup reads one record. It returns ErrNotFound when there is none; any other error means that the store
	// could not answer. Expired records are returned: the caller knows the time. Beside its context the store's
	// own timeout bounds it.
	Lookup(ctx context.Context, d Digest) (*Record, error)
	// Insert adds a record and leaves r as a Lookup would return it: zero JTI, CreatedAt and UpdatedAt are filled in,
	// and times are rounded down to what the store keeps. It returns ErrDuplicate when the digest is there, and an
	// *UnknownReferenceError when the client or user is not.
	Insert(ctx context.Context, r *Record) error
	// List returns up to limit records that match, in digest order, after the given digest (zero: from the start).
	// The empty selector matches all.
	List(ctx context.Context, s Selector, after Digest, limit int) ([]*Record, error)
	// Revoke deletes the records that match and returns their digests. An empty selector is ErrEmptySelector.
	Revoke(ctx context.Context, s Selector) ([]Digest, error)
	// Purge deletes up to batch records that expired before the given time, the oldest first, and says how many.
	// It is to be called until it returns less than batch.
	Purge(ctx context.Context, before time.Time, batch int) (int, error)
	// Ping asks for one row with the rights and the time of a Lookup.
	Ping(ctx context.Context) error
	// Migrate creates what is missing in an empty database. It changes nothing that is there: where the table exists
	// it does nothing at all.
	Migrate(ctx context.Context) error
	// SQL is what Migrate runs.
	SQL() string
	// Check compares the table with the documented one and returns every difference that matters to us. It needs no
	// more rights than a Lookup.
	Check(ctx context.Context) ([]Difference, error)
	// Close lets go of all connections, and waits for those in use.
	Close() error
}

// Answer is what a store says of one digest: what Lookup returns.
type Answer struct {
	Record *Record // nil with an Err
	Err    error
}

// Selector picks records: those that match all the fields set.
type Selector struct {
	Digest     *Digest
	JTI        *uuid.UUID
	User       *uuid.UUID
	Client     *uuid.UUID
	Thumbprint *string // of the key that the token is bound to
}

// empty says whether the selector matches every record.
func (s Selector) empty() bool { return s == Selector{} }

// Difference is one way in which a table is not as documented.
type Difference struct {
	Object string // such as "column dpop_jkt", "check on scopes", "index on expires_at"
	Found  string // what is there; "missing" when it is not
	Want   string
	Fatal  bool // serving is impossible or unsafe with it
}

// String is the difference in one line.
func (d Difference) String() string {
	return fmt.Sprintf("%s: found %s, want %s", d.Object, d.Found, d.Want)
}

// timeoutOf and loggerOf resolve options that were left out.
func timeoutOf(d time.Duration) time.Duration {
	if d <= 0 {
		return DefaultTimeout
	}
	return d
}

func loggerOf(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// because makes sure that an error brought about by the end of ctx wraps the context's own, whatever the driver says.
func because(ctx context.Context, doing string, err error) error {
	if end := ctx.Err(); end != nil && !errors.Is(err, end) {
		return fmt.Errorf("%s: %w (%w)", doing, end, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

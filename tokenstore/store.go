package tokenstore

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
)

// ErrNotFound says that no row has that digest.
var ErrNotFound = errors.New("token not found")

// Store is where the records behind opaque tokens are kept. All methods may be called concurrently; each is bounded
// by its context and returns an error that wraps context.DeadlineExceeded when that ends first.
type Store interface {
	// Lookup reads one record. It returns ErrNotFound when there is none; any other error means that the store
	// could not answer. Expired records are returned: the caller knows the time.
	Lookup(ctx context.Context, d Digest) (*Record, error)
	// Insert adds a record. Zero JTI, CreatedAt and UpdatedAt are filled in by the store and written back into r.
	Insert(ctx context.Context, r *Record) error
	// List returns up to limit records that match, in digest order, after the given digest (zero: from the start).
	List(ctx context.Context, s Selector, after Digest, limit int) ([]*Record, error)
	// Revoke deletes the records that match and returns their digests. An empty selector is an error.
	Revoke(ctx context.Context, s Selector) ([]Digest, error)
	// Purge deletes up to batch records that expired before the given time, and says how many.
	// Called until it returns less than batch.
	Purge(ctx context.Context, before time.Time, batch int) (int, error)
	// Ping asks for one row with the rights of a Lookup.
	Ping(ctx context.Context) error
	// Migrate creates what is missing in an empty database. It changes nothing that is there.
	Migrate(ctx context.Context) error
	// SQL is what Migrate runs.
	SQL() string
	// Check compares the table with the documented one and returns every difference that matters to us.
	Check(ctx context.Context) ([]Difference, error)
	// Close lets go of all connections.
	Close() error
}

// Selector picks records: those that match all the fields set.
type Selector struct {
	Digest *Digest
	JTI    *uuid.UUID
	User   *uuid.UUID
	Client *uuid.UUID
}

// Difference is one way in which a table is not as documented.
type Difference struct {
	Object string // such as "column dpop_jkt", "check scopes_token_chars", "index …"
	Found  string // what is there; "missing" when it is not
	Want   string
	Fatal  bool // serving is impossible or unsafe with it
}

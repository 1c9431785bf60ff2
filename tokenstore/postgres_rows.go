package tokenstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The SQLSTATE codes that have a meaning of their own here.
const (
	foreignKeyViolation = "23503"
	uniqueViolation     = "23505"
	dataException       = "22" // the class
)

// columns are all of the table's but digest. The casts take in tables whose text columns are varchar and whose
// token_type is an enum, of which a client cannot know the name.
const columns = `jti, client_id, user_id, token_type::text, dpop_jkt::text, scopes::text[], audience::text[], ` +
	`metadata::text, created_at, updated_at, expires_at`

// lookupSQL asks for one row more than there can be of digests, so that it shows when there are more. The cast keeps a
// digest column of another type from being compared as text, which would make every token unknown rather than the store
// broken.
func lookupSQL(t tableName) string {
	return fmt.Sprintf(`SELECT digest, %s FROM %s WHERE digest = ANY ($1::bytea[]) LIMIT %d`, columns, t.quoted(), MaxBatch+1)
}

// row is a record as Postgres has it, before what cannot be trusted is read as granting less.
type row struct {
	jti, client, user         pgtype.UUID
	tokenType, jkt, metadata  pgtype.Text
	scopes, audience          pgtype.Array[pgtype.Text]
	created, updated, expires pgtype.Timestamptz
}

func (r *row) targets() []any {
	return []any{
		&r.jti, &r.client, &r.user, &r.tokenType, &r.jkt, &r.scopes, &r.audience,
		&r.metadata, &r.created, &r.updated, &r.expires,
	}
}

func (r *row) record(d Digest) *Record {
	scopes, whole := elements(r.scopes)
	audience, plain := elements(r.audience)
	return &Record{
		Digest:    d,
		JTI:       r.jti.Bytes,
		ClientID:  r.client.Bytes,
		UserID:    uuid.NullUUID{UUID: r.user.Bytes, Valid: r.user.Valid},
		TokenType: TokenType(r.tokenType.String),
		DPoPJKT:   r.jkt.String,
		Scopes:    grants(scopes, whole),
		Audience:  constraint(audience, !r.audience.Valid, plain),
		Metadata:  object([]byte(r.metadata.String)),
		CreatedAt: instant(r.created),
		UpdatedAt: instant(r.updated),
		ExpiresAt: instant(r.expires),
	}
}

// elements are those of a list, and whether it is one: not NULL, of one dimension, without a NULL in it.
func elements(a pgtype.Array[pgtype.Text]) (list []string, whole bool) {
	list = make([]string, 0, len(a.Elements))
	if !a.Valid || len(a.Dims) > 1 {
		return list, false
	}
	for _, e := range a.Elements {
		if !e.Valid {
			return list, false
		}
		list = append(list, e.String)
	}
	return list, true
}

// instant is the zero time for NULL, infinity and -infinity.
func instant(t pgtype.Timestamptz) time.Time {
	if !t.Valid || t.InfinityModifier != pgtype.Finite {
		return time.Time{}
	}
	return t.Time.UTC()
}

// Lookup implements Store.
func (p *Postgres) Lookup(ctx context.Context, d Digest) (*Record, error) {
	a := p.LookupAll(ctx, []Digest{d})[0]
	return a.Record, a.Err
}

// LookupAll is Lookup for several digests: the answers in their order, each as Lookup would have given it, from one query
// for MaxBatch of them. Where a row cannot be read, or a digest has so many that others are cut off, each half is asked
// for by itself, so that one token is never in the way of another.
func (p *Postgres) LookupAll(ctx context.Context, ds []Digest) []Answer {
	var found []*Record
	var err error
	if len(ds) <= MaxBatch {
		found, err = p.find(ctx, ds)
		if len(found) <= MaxBatch && !isOfARow(err) || len(ds) == 1 {
			return p.answers(ds, found, err)
		}
	}
	half := len(ds) / 2
	return append(p.LookupAll(ctx, ds[:half]), p.LookupAll(ctx, ds[half:])...)
}

// find is one query. It may be cut off after MaxBatch+1 rows.
func (p *Postgres) find(ctx context.Context, ds []Digest) (found []*Record, err error) {
	digests := make([][]byte, len(ds))
	for i := range ds {
		digests[i] = ds[i][:]
	}
	err = p.reads().Read(ctx, "looking up token", func(ctx context.Context, c *pgxpool.Conn) error {
		found, err = p.rows(ctx, c, p.lookup, digests)
		return err
	})
	return found, err
}

// answers sorts what was found.
func (p *Postgres) answers(ds []Digest, found []*Record, err error) []Answer {
	of := make(map[Digest]Answer, len(found))
	for _, r := range found {
		if _, twice := of[r.Digest]; twice {
			of[r.Digest] = Answer{Err: fmt.Errorf("looking up token: table %s has several rows with one digest: %w", p.table.quoted(), ErrCorrupt)}
		} else {
			of[r.Digest] = Answer{Record: r}
		}
	}
	if isOfARow(err) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	answers := make([]Answer, len(ds))
	for i, d := range ds {
		if a, ok := of[d]; ok {
			answers[i] = a
		} else {
			answers[i].Err = cmp.Or(err, ErrNotFound)
		}
	}
	return answers
}

// isOfARow says whether err may come from the content of a single row: a value that does not fit its cast.
func isOfARow(err error) bool {
	answer, ok := serverError(err)
	return ok && strings.HasPrefix(answer.Code, dataException)
}

// rows are the records of a query whose first column is the digest. Rows whose digest is not one (another length) are
// passed over: no token leads to them.
func (p *Postgres) rows(ctx context.Context, c *pgxpool.Conn, query string, args ...any) (list []*Record, err error) {
	rows, err := c.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	var digest []byte
	var one row
	_, err = pgx.ForEachRow(rows, append([]any{&digest}, one.targets()...), func() error {
		if len(digest) == len(Digest{}) {
			list = append(list, one.record(Digest(digest)))
		}
		return nil
	})
	return list, err
}

// Ping implements Store.
func (p *Postgres) Ping(ctx context.Context) error {
	if _, err := p.Lookup(ctx, Digest{}); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

// Insert implements Store. Times are kept to the microsecond.
func (p *Postgres) Insert(ctx context.Context, r *Record) error {
	if err := r.validate(); err != nil {
		return fmt.Errorf("adding token: %w", err)
	}
	n := *r
	n.fill(time.Now(), time.Microsecond)
	insert := `INSERT INTO ` + p.table.quoted() + ` (digest, jti, client_id, user_id, token_type, dpop_jkt, scopes, audience,
		metadata, created_at, updated_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING metadata::text`
	var metadata string
	err := p.pool.Once(ctx, "adding token", func(ctx context.Context, c *pgxpool.Conn) error {
		err := c.QueryRow(ctx, insert, n.Digest[:], pgUUID(n.JTI), pgUUID(n.ClientID),
			pgtype.UUID{Bytes: n.UserID.UUID, Valid: n.UserID.Valid}, string(n.TokenType), pgtype.Text{String: n.DPoPJKT, Valid: n.DPoPJKT != ""},
			n.Scopes, n.Audience, string(n.Metadata), n.CreatedAt, n.UpdatedAt, n.ExpiresAt).Scan(&metadata)
		return p.insertError(ctx, c, &n, err)
	})
	if err != nil {
		return err
	}
	n.Metadata = []byte(metadata) // jsonb does not keep spelling
	*r = n
	return nil
}

func pgUUID(u uuid.UUID) pgtype.UUID { return pgtype.UUID{Bytes: u, Valid: true} }

// insertError turns the server's answer to an insert into what the Store promises.
func (p *Postgres) insertError(ctx context.Context, c *pgxpool.Conn, r *Record, err error) error {
	answer, ok := serverError(err)
	switch {
	case !ok:
		return err
	case answer.Code == uniqueViolation:
		return fmt.Errorf("%w (%s)", ErrDuplicate, answer.ConstraintName)
	case answer.Code != foreignKeyViolation:
		return err
	}
	// The server's own detail is in the language that it is set to, and the constraint can have any name.
	ref := &UnknownReferenceError{ID: r.ClientID}
	lookup := `SELECT a.attname, k.confrelid::regclass::text FROM pg_constraint k
		JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
		WHERE k.conrelid = $1::text::regclass AND k.conname = $2`
	if c.QueryRow(ctx, lookup, p.table.quoted(), answer.ConstraintName).Scan(&ref.Column, &ref.Table) != nil {
		return err
	}
	if ref.Column == "user_id" {
		ref.ID = r.UserID.UUID
	}
	return ref
}

// where is the condition that picks what s does, with its arguments. The empty selector picks all.
func (s Selector) where(arg func(i int, kind string) string, id func(uuid.UUID) any) (condition string, args []any) {
	var terms []string
	add := func(column, kind string, value any) {
		args = append(args, value)
		terms = append(terms, column+" = "+arg(len(args), kind))
	}
	if s.Digest != nil {
		add("digest", "bytea", s.Digest[:])
	}
	if s.JTI != nil {
		add("jti", "uuid", id(*s.JTI))
	}
	if s.User != nil {
		add("user_id", "uuid", id(*s.User))
	}
	if s.Client != nil {
		add("client_id", "uuid", id(*s.Client))
	}
	if s.Thumbprint != nil {
		add("dpop_jkt", "text", *s.Thumbprint)
	}
	if len(terms) == 0 {
		return "true", nil
	}
	return strings.Join(terms, " AND "), args
}

// pgWhere is s as Postgres takes it.
func pgWhere(s Selector) (string, []any) {
	return s.where(
		func(i int, kind string) string { return "$" + strconv.Itoa(i) + "::" + kind },
		func(u uuid.UUID) any { return pgUUID(u) },
	)
}

// List implements Store.
func (p *Postgres) List(ctx context.Context, s Selector, after Digest, limit int) ([]*Record, error) {
	condition, args := pgWhere(s)
	condition += fmt.Sprintf(" AND octet_length(digest) = %d", len(after))
	if after != (Digest{}) {
		args = append(args, after[:])
		condition += fmt.Sprintf(" AND digest > $%d::bytea", len(args))
	}
	query := fmt.Sprintf(`SELECT digest, %s FROM %s WHERE %s ORDER BY digest LIMIT %d`, columns, p.table.quoted(), condition, max(limit, 0))
	var list []*Record
	err := p.pool.Once(ctx, "listing tokens", func(ctx context.Context, c *pgxpool.Conn) error {
		var err error
		list, err = p.rows(ctx, c, query, args...)
		return err
	})
	return list, err
}

// writes is where rows are deleted: the server that announces it.
func (p *Postgres) writes() *Pool {
	if p.primary != nil {
		return p.primary
	}
	return p.pool
}

// MayRevoke says why Revoke cannot delete a row; nil when it can. It deletes none.
func (p *Postgres) MayRevoke(ctx context.Context) error {
	const doing = "checking the right to delete tokens"
	return p.writes().Read(ctx, doing, func(ctx context.Context, c *pgxpool.Conn) error {
		const sql = "SELECT has_table_privilege($1::text, 'DELETE'), pg_is_in_recovery(), current_user::text"
		var may, replica bool
		var role string
		err := c.QueryRow(ctx, sql, pgx.QueryExecModeExec, p.table.quoted()).Scan(&may, &replica, &role)
		switch {
		case err != nil:
			return err
		case replica:
			return errors.New("the server is a read replica: store.listen must name the primary")
		case !may:
			return fmt.Errorf("the role %s has no right to delete: GRANT DELETE ON %s TO %s", role, p.table.quoted(), quoteIdentifier(role))
		default:
			return nil
		}
	})
}

// Revoke implements Store. It goes to the primary, where store.listen names one.
func (p *Postgres) Revoke(ctx context.Context, s Selector) ([]Digest, error) {
	if s.empty() {
		return nil, fmt.Errorf("revoking tokens: %w", ErrEmptySelector)
	}
	condition, args := pgWhere(s)
	query := fmt.Sprintf(`DELETE FROM %s WHERE %s RETURNING digest`, p.table.quoted(), condition)
	var gone []Digest
	err := p.writes().Once(ctx, "revoking tokens", func(ctx context.Context, c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		var digest []byte
		_, err = pgx.ForEachRow(rows, []any{&digest}, func() error {
			if len(digest) == len(Digest{}) { // no token leads to any other
				gone = append(gone, Digest(digest))
			}
			return nil
		})
		return err
	})
	return gone, err
}

// Purge implements Store. The batch is found by the index on expires_at, its rows by the primary key.
func (p *Postgres) Purge(ctx context.Context, before time.Time, batch int) (int, error) {
	query := fmt.Sprintf(`DELETE FROM %[1]s WHERE digest = ANY (ARRAY(
		SELECT digest FROM %[1]s WHERE expires_at < $1 ORDER BY expires_at LIMIT %[2]d))`, p.table.quoted(), max(batch, 0))
	var purged int
	err := p.pool.Once(ctx, "purging tokens", func(ctx context.Context, c *pgxpool.Conn) error {
		tag, err := c.Exec(ctx, query, before)
		purged = int(tag.RowsAffected())
		return err
	})
	return purged, err
}

package tokenstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	lib "modernc.org/sqlite/lib"
)

// sqliteTime is how a time is stored, in UTC: of one length, so that it sorts as text.
const sqliteTime = "2006-01-02T15:04:05.000Z"

const sqliteColumns = `digest, jti, client_id, user_id, token_type, dpop_jkt, scopes, audience, metadata, ` +
	`created_at, updated_at, expires_at`

// sqliteRow is a record as SQLite has it, before what cannot be trusted is read as granting less.
type sqliteRow struct {
	digest, metadata            []byte
	jti, client                 uuid.UUID
	user                        uuid.NullUUID
	tokenType, jkt              sql.NullString
	scopes, audience            sql.NullString
	created, updated, expiresAt sql.NullString
}

func (r *sqliteRow) scan(scan func(...any) error) (*Record, error) {
	err := scan(&r.digest, &r.jti, &r.client, &r.user, &r.tokenType, &r.jkt, &r.scopes, &r.audience, &r.metadata,
		&r.created, &r.updated, &r.expiresAt)
	if err != nil {
		return nil, err
	}
	if len(r.digest) != len(Digest{}) {
		return nil, fmt.Errorf("a digest has %d bytes, want %d", len(r.digest), len(Digest{}))
	}
	scopes, whole := jsonElements(r.scopes.String)
	audience, plain := jsonElements(r.audience.String)
	return &Record{
		Digest:    Digest(r.digest),
		JTI:       r.jti,
		ClientID:  r.client,
		UserID:    r.user,
		TokenType: TokenType(r.tokenType.String),
		DPoPJKT:   r.jkt.String,
		Scopes:    grants(scopes, whole),
		Audience:  constraint(audience, !r.audience.Valid, plain),
		Metadata:  object(r.metadata),
		CreatedAt: sqliteInstant(r.created),
		UpdatedAt: sqliteInstant(r.updated),
		ExpiresAt: sqliteInstant(r.expiresAt),
	}, nil
}

// jsonElements are those of a JSON array, and whether it is one: nothing but strings in it.
func jsonElements(s string) (list []string, whole bool) {
	var elements []*string
	if err := json.Unmarshal([]byte(s), &elements); err != nil || elements == nil {
		return []string{}, false
	}
	list = make([]string, 0, len(elements))
	for _, e := range elements {
		if e == nil {
			return list, false
		}
		list = append(list, *e)
	}
	return list, true
}

// sqliteInstant is the zero time for what is not a time in our form.
func sqliteInstant(s sql.NullString) time.Time {
	t, err := time.Parse(sqliteTime, s.String)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Lookup implements Store.
func (s *SQLite) Lookup(ctx context.Context, d Digest) (*Record, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var one sqliteRow
	r, err := one.scan(s.lookup.QueryRowContext(ctx, d[:]).Scan)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, ErrNotFound
	case err != nil:
		return nil, because(ctx, "looking up token", err)
	default:
		return r, nil
	}
}

// Ping implements Store.
func (s *SQLite) Ping(ctx context.Context) error {
	if _, err := s.Lookup(ctx, Digest{}); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

// Insert implements Store. Times are kept to the millisecond.
func (s *SQLite) Insert(ctx context.Context, r *Record) error {
	if err := r.validate(); err != nil {
		return fmt.Errorf("adding token: %w", err)
	}
	n := *r
	n.fill(time.Now(), time.Millisecond)
	scopes, audience, err := jsonArrays(&n)
	if err != nil {
		return fmt.Errorf("adding token: %w", err)
	}
	user := sql.NullString{String: n.UserID.UUID.String(), Valid: n.UserID.Valid}
	jkt := sql.NullString{String: n.DPoPJKT, Valid: n.DPoPJKT != ""}
	_, err = s.db.ExecContext(ctx, `INSERT INTO `+sqliteTable+` (`+sqliteColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		n.Digest[:], n.JTI.String(), n.ClientID.String(), user, string(n.TokenType), jkt, scopes, audience, string(n.Metadata),
		n.CreatedAt.Format(sqliteTime), n.UpdatedAt.Format(sqliteTime), n.ExpiresAt.Format(sqliteTime))
	if hasExtendedCode(err, lib.SQLITE_CONSTRAINT_PRIMARYKEY) || hasExtendedCode(err, lib.SQLITE_CONSTRAINT_UNIQUE) {
		return fmt.Errorf("adding token: %w", ErrDuplicate)
	}
	if err != nil {
		return because(ctx, "adding token", err)
	}
	*r = n
	return nil
}

// jsonArrays are the two lists as they are stored, audience as NULL when there is none.
func jsonArrays(r *Record) (scopes string, audience sql.NullString, err error) {
	list, err := json.Marshal(r.Scopes)
	if err != nil || r.Audience == nil {
		return string(list), audience, err
	}
	uris, err := json.Marshal(r.Audience)
	return string(list), sql.NullString{String: string(uris), Valid: true}, err
}

// sqliteWhere is s as SQLite takes it.
func sqliteWhere(s Selector) (string, []any) {
	return s.where(
		func(int, string) string { return "?" },
		func(u uuid.UUID) any { return u.String() },
	)
}

// List implements Store.
func (s *SQLite) List(ctx context.Context, sel Selector, after Digest, limit int) ([]*Record, error) {
	condition, args := sqliteWhere(sel)
	if after != (Digest{}) {
		condition += " AND digest > ?"
		args = append(args, after[:])
	}
	query := fmt.Sprintf(`SELECT %s FROM %s WHERE %s ORDER BY digest LIMIT %d`, sqliteColumns, sqliteTable, condition, max(limit, 0))
	var list []*Record
	err := s.each(ctx, query, args, func(rows *sql.Rows) error {
		r, err := new(sqliteRow).scan(rows.Scan)
		list = append(list, r)
		return err
	})
	if err != nil {
		return nil, because(ctx, "listing tokens", err)
	}
	return list, nil
}

// Revoke implements Store.
func (s *SQLite) Revoke(ctx context.Context, sel Selector) ([]Digest, error) {
	if sel.empty() {
		return nil, fmt.Errorf("revoking tokens: %w", ErrEmptySelector)
	}
	condition, args := sqliteWhere(sel)
	var gone []Digest
	err := s.each(ctx, `DELETE FROM `+sqliteTable+` WHERE `+condition+` RETURNING digest`, args, func(rows *sql.Rows) error {
		var digest []byte
		err := rows.Scan(&digest)
		if len(digest) == len(Digest{}) { // no token leads to any other
			gone = append(gone, Digest(digest))
		}
		return err
	})
	if err != nil {
		return nil, because(ctx, "revoking tokens", err)
	}
	return gone, nil
}

// Purge implements Store.
func (s *SQLite) Purge(ctx context.Context, before time.Time, batch int) (int, error) {
	query := fmt.Sprintf(`DELETE FROM %[1]s WHERE digest IN (
		SELECT digest FROM %[1]s WHERE expires_at < ? ORDER BY expires_at LIMIT %[2]d)`, sqliteTable, max(batch, 0))
	result, err := s.db.ExecContext(ctx, query, before.UTC().Format(sqliteTime))
	if err != nil {
		return 0, because(ctx, "purging tokens", err)
	}
	purged, err := result.RowsAffected()
	return int(purged), err
}

// each runs a query and calls f for each of its rows.
func (s *SQLite) each(ctx context.Context, query string, args []any, f func(*sql.Rows) error) error {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

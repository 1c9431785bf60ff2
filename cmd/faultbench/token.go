package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// tokenMark begins every token, so that one can be found where none should be.
const tokenMark = "faultbench-token-"

// token is an access token, with the key that it is bound to and its life as the bench knows it.
type token struct {
	text    string
	key     *dpop.Key
	id      uuid.UUID // the stored jti
	client  uuid.UUID
	user    uuid.NullUUID
	scope   string
	expires time.Time

	ending, ended atomic.Int64 // Unix nanoseconds: when its revocation was begun, and had been committed; 0: not
}

// issuer makes tokens, as an authorization server would.
type issuer struct {
	postgres *postgres
	client   uuid.UUID

	mu   sync.Mutex
	keys []*dpop.Key
	next int
}

// key is the next of a few hundred: making one takes longer than all else.
func (i *issuer) key() (*dpop.Key, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.keys) < 256 {
		alg := dpop.ES256
		if len(i.keys)%4 == 3 {
			alg = dpop.EdDSA
		}
		key, err := dpop.NewKey(alg)
		if err != nil {
			return nil, err
		}
		i.keys = append(i.keys, key)
	}
	i.next++
	return i.keys[i.next%len(i.keys)], nil
}

// issue makes tokens of a scope and stores them, in one transaction. With users, each belongs to a user of its own.
func (i *issuer) issue(ctx context.Context, count int, scope string, expires time.Time, users bool) ([]*token, error) {
	tokens := make([]*token, count)
	rows, owners := make([][]any, count), [][]any{}
	for n := range tokens {
		key, err := i.key()
		if err != nil {
			return nil, err
		}
		t := &token{text: tokenMark + string(tokenstore.NewToken()), key: key, id: uuid.New(), client: i.client, scope: scope, expires: expires}
		if users {
			t.user = uuid.NullUUID{UUID: uuid.New(), Valid: true}
			owners = append(owners, []any{t.user.UUID})
		}
		digest := tokenstore.Digester{}.Digest(tokenstore.Token(t.text))
		rows[n] = []any{digest[:], t.id, t.client, t.user, string(key.Thumbprint()), []string{scope}, expires}
		tokens[n] = t
	}
	conn, err := i.postgres.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	return tokens, pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"users"}, []string{"id"}, pgx.CopyFromRows(owners)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "CREATE TEMPORARY TABLE fresh (digest bytea, jti uuid, client_id uuid, user_id uuid, dpop_jkt text, scopes text[], expires_at timestamptz) ON COMMIT DROP"); err != nil {
			return err
		}
		columns := []string{"digest", "jti", "client_id", "user_id", "dpop_jkt", "scopes", "expires_at"}
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{"fresh"}, columns, pgx.CopyFromRows(rows)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO oauth_access_tokens (digest, jti, client_id, user_id, token_type, dpop_jkt, scopes, expires_at)
			SELECT digest, jti, client_id, user_id, 'DPoP', dpop_jkt, scopes, expires_at FROM fresh`)
		return err
	})
}

// revoke takes tokens out of the store by a statement, and writes down when.
func revoke(ctx context.Context, conn *pgx.Conn, tokens []*token, statement string, args ...any) (committed time.Time, err error) {
	began := time.Now().UnixNano()
	for _, t := range tokens {
		t.ending.Store(began)
	}
	if _, err := conn.Exec(ctx, statement, args...); err != nil {
		return time.Time{}, err // it may have been committed or not: such tokens are neither legal nor illegal
	}
	committed = time.Now()
	for _, t := range tokens {
		t.ended.Store(committed.UnixNano())
	}
	return committed, nil
}

package tokenstore_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

func TestLookupAllAnswersEachInItsPlace(t *testing.T) {
	for _, mode := range []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			dsn := guestDatabase(t)
			store := guest(t, withSetting(dsn, "default_query_exec_mode", mode), tokenstore.PostgresOptions{})
			owner := openPostgres(t, dsn, tokenstore.PostgresOptions{})
			var ds []tokenstore.Digest
			var want []*tokenstore.Record
			for i := range 2*tokenstore.MaxBatch + 3 {
				r := newRecord()
				if i%3 != 0 {
					r = insert(t, owner, nil)
					want = append(want, r)
				} else {
					want = append(want, nil)
				}
				ds = append(ds, r.Digest)
			}
			ds, want = append(ds, ds[1]), append(want, want[1]) // one that is asked for twice
			answers := store.LookupAll(t.Context(), ds)
			require.Len(t, answers, len(ds))
			for i, a := range answers {
				assert.Equal(t, want[i], a.Record)
				if want[i] == nil {
					assert.ErrorIs(t, a.Err, tokenstore.ErrNotFound)
				} else {
					assert.NoError(t, a.Err)
				}
			}
			assert.Empty(t, store.LookupAll(t.Context(), nil))
		})
	}
}

// One digest with many rows hides no other token, and is refused itself.
func TestLookupAllKeepsTokensApart(t *testing.T) {
	dsn := tokenstoretest.Postgres(t)
	tokenstoretest.Exec(t, dsn, looseTable, "ALTER TABLE oauth_access_tokens ALTER scopes TYPE text")
	store := guest(t, dsn, tokenstore.PostgresOptions{})
	const copies = `INSERT INTO oauth_access_tokens (digest, jti, client_id, token_type, scopes, expires_at)
		SELECT sha256('%[1]s'), gen_random_uuid(), gen_random_uuid(), 'DPoP', '%[2]s', now() + interval '1 hour' FROM generate_series(1, %[3]s)`
	add := func(token, scopes, times string) {
		tokenstoretest.Exec(t, dsn, fmt.Sprintf(copies, token, scopes, times))
	}
	tokens := []tokenstore.Token{"unknown", "good", "twice", "a thousand times", "of no list", "good as well"}
	add("a thousand times", "{a}", "1000")
	add("twice", "{a}", "2")
	add("of no list", "{a", "1")
	add("good", "{a}", "1")
	add("good as well", "{b}", "1")
	var ds []tokenstore.Digest
	for _, token := range tokens {
		ds = append(ds, tokenstore.Digester{}.Digest(token))
	}
	for range 2 { // in either order
		for i, a := range store.LookupAll(t.Context(), ds) {
			switch token := tokens[i]; token {
			case "unknown":
				assert.ErrorIs(t, a.Err, tokenstore.ErrNotFound, token)
			case "twice", "a thousand times":
				assert.ErrorIs(t, a.Err, tokenstore.ErrCorrupt, token)
			case "of no list":
				assert.ErrorContains(t, a.Err, "malformed array literal", token)
				assert.ErrorIs(t, a.Err, tokenstore.ErrCorrupt, token)
			default:
				if assert.NoError(t, a.Err, token) {
					assert.Equal(t, ds[i], a.Record.Digest, token)
				}
			}
		}
		slices.Reverse(ds)
		slices.Reverse(tokens)
	}
}

// attack: 172
func TestABatchEndsInTime(t *testing.T) {
	dsn := guestDatabase(t)
	record := insert(t, openPostgres(t, dsn, tokenstore.PostgresOptions{}), nil)
	r, through := tokenstoretest.RelayTo(t, dsn)
	store := openPostgres(t, through, tokenstore.PostgresOptions{Timeout: 100 * time.Millisecond})
	warm(t, store, record.Digest)
	r.Freeze()
	for _, a := range store.LookupAll(t.Context(), []tokenstore.Digest{record.Digest, newRecord().Digest}) {
		assert.Error(t, a.Err)
		assert.NotErrorIs(t, a.Err, tokenstore.ErrNotFound)
		assert.Nil(t, a.Record)
	}
	r.Thaw()
	warm(t, store, record.Digest)
}

package tokenstore_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// BenchmarkRevocation deletes one token and waits until the gateway's side has heard of it; "unheard" is the deletion
// alone, so that the difference is what a notice takes.
func BenchmarkRevocation(b *testing.B) {
	store, dsn, _ := announcing(b, 0)
	conn, err := pgx.Connect(b.Context(), dsn)
	require.NoError(b, err)
	defer conn.Close(b.Context())
	run := func(heard bool) func(*testing.B) {
		return func(b *testing.B) {
			e := listen(b, store)
			for b.Loop() {
				b.StopTimer()
				r := insert(b, store, nil)
				b.StartTimer()
				_, err := conn.Exec(b.Context(), "DELETE FROM oauth_access_tokens WHERE digest = $1", r.Digest[:])
				require.NoError(b, err)
				if heard {
					e.hears(b, r.Digest)
					continue
				}
				b.StopTimer()
				e.hears(b, r.Digest)
				b.StartTimer()
			}
		}
	}
	b.Run("unheard", run(false))
	b.Run("heard", run(true))
}

// BenchmarkAnnouncing is what the trigger adds to a statement.
func BenchmarkAnnouncing(b *testing.B) {
	for _, rows := range []int{1, 100, 5000} {
		for _, announced := range []bool{false, true} {
			b.Run(fmt.Sprintf("rows=%d/announced=%v", rows, announced), func(b *testing.B) {
				_, dsn, _ := announcing(b, rows)
				if !announced {
					tokenstoretest.Exec(b, dsn, "DROP FUNCTION dpopgate_announce_revocations CASCADE")
				}
				conn, err := pgx.Connect(b.Context(), dsn)
				require.NoError(b, err)
				defer conn.Close(b.Context())
				for b.Loop() {
					_, err := conn.Exec(b.Context(), "UPDATE oauth_access_tokens SET expires_at = expires_at + interval '1 second'")
					require.NoError(b, err)
				}
			})
		}
	}
}

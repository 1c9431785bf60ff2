package tokenstore_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore"
)

// BenchmarkLookup reads one token of a thousand. The Postgres figures hold a round trip to the server.
func BenchmarkLookup(b *testing.B) {
	for name, open := range backends {
		b.Run(name, func(b *testing.B) {
			store := open(b).store
			var r *tokenstore.Record
			for range 1000 {
				r = insert(b, store, nil)
			}
			b.Run("one", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_, err := store.Lookup(b.Context(), r.Digest)
					require.NoError(b, err)
				}
			})
			b.Run("parallel", func(b *testing.B) {
				b.SetParallelism(8)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := store.Lookup(b.Context(), r.Digest); err != nil {
							b.Error(err)
						}
					}
				})
			})
		})
	}
}

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// A cache that does not see that its store takes many lookups at once would send each by itself.
func TestTimingAStoreHidesNothingOfIt(t *testing.T) {
	store, err := tokenstore.OpenPostgres(t.Context(), "postgres://127.0.0.1:1/none", tokenstore.PostgresOptions{})
	require.NoError(t, err)
	defer store.Close()
	require.Implements(t, (*cache.Batcher)(nil), store)
	assert.Implements(t, (*cache.Batcher)(nil), newMetrics().timeStore(store))
}

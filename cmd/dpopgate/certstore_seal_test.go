package main

import (
	"bytes"
	"context"
	"io/fs"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

const privateKeyPEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIExampleExampleExampleExampleExample\n-----END EC PRIVATE KEY-----\n"

// storedBytes are those of a key's row.
func storedBytes(t *testing.T, dsn, key string) (value []byte) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT value FROM dpopgate.certificates WHERE key = $1", key).Scan(&value))
	return value
}

func TestSealedValuesAreUnreadableInTheTable(t *testing.T) {
	t.Parallel()
	dsn := migratedDatabase(t)
	s := newCertStore(t, dsn, certStoreOptions{Key: storageKey})
	for _, key := range []string{"a.key", "b.key"} {
		require.NoError(t, s.Store(t.Context(), key, []byte(privateKeyPEM)))
		value := storedBytes(t, dsn, key)
		assert.Len(t, value, len(privateKeyPEM)+sealOverhead)
		for _, word := range []string{"PRIVATE", "Example", "-----"} {
			assert.NotContains(t, string(value), word)
		}
	}
	assert.False(t, bytes.Equal(storedBytes(t, dsn, "a.key"), storedBytes(t, dsn, "b.key")))
	plain := newCertStore(t, dsn, certStoreOptions{})
	require.NoError(t, plain.Store(t.Context(), "c.key", []byte(privateKeyPEM)))
	assert.Equal(t, privateKeyPEM, string(storedBytes(t, dsn, "c.key")))
}

func TestSealedValuesOpenOnlyAsWhatTheyAre(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		reader certStoreOptions
		change string // of the database
		want   string
	}{
		"with another key":        {reader: certStoreOptions{Key: storageKey + "!"}, want: "is not the one"},
		"without a key":           {want: "is encrypted"},
		"in another's place":      {reader: certStoreOptions{Key: storageKey}, change: "UPDATE dpopgate.certificates SET value = (SELECT value FROM dpopgate.certificates WHERE key = 'other.key') WHERE key = 'api.key'", want: "the row was changed"},
		"with a bit changed":      {reader: certStoreOptions{Key: storageKey}, change: "UPDATE dpopgate.certificates SET value = set_bit(value, 300, 1 - get_bit(value, 300))", want: "the row was changed"},
		"cut off":                 {reader: certStoreOptions{Key: storageKey}, change: "UPDATE dpopgate.certificates SET value = substr(value, 1, 5)", want: "the row was changed"},
		"emptied":                 {reader: certStoreOptions{Key: storageKey}, change: "UPDATE dpopgate.certificates SET value = ''", want: "the row was changed"},
		"declared plain":          {reader: certStoreOptions{Key: storageKey}, change: "UPDATE dpopgate.certificates SET sealed = false", want: "before tls.acme.storage_key was set"},
		"replaced by a plain one": {reader: certStoreOptions{Key: storageKey}, change: "UPDATE dpopgate.certificates SET sealed = false, value = 'mine'", want: "before tls.acme.storage_key was set"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := migratedDatabase(t)
			writer := newCertStore(t, dsn, certStoreOptions{Key: storageKey})
			require.NoError(t, writer.Store(t.Context(), "api.key", []byte(privateKeyPEM)))
			require.NoError(t, writer.Store(t.Context(), "other.key", []byte("other "+privateKeyPEM)))
			if c.change != "" {
				tokenstoretest.Exec(t, dsn, c.change)
			}
			value, err := newCertStore(t, dsn, c.reader).Load(t.Context(), "api.key")
			assert.Nil(t, value)
			require.ErrorContains(t, err, "loading api.key: ")
			assert.ErrorContains(t, err, c.want)
			assert.NotErrorIs(t, err, fs.ErrNotExist, "that would have a certificate ordered again")
			assert.NotContains(t, err.Error(), storageKey)
			assert.NotContains(t, err.Error(), "PRIVATE")
		})
	}
}

func TestMigrateSealsWhatIsThere(t *testing.T) {
	t.Parallel()
	dsn := migratedDatabase(t)
	plain := newCertStore(t, dsn, certStoreOptions{})
	require.NoError(t, plain.Store(t.Context(), "a/api.key", []byte(privateKeyPEM)))
	before, err := plain.Stat(t.Context(), "a/api.key")
	require.NoError(t, err)

	s := newCertStore(t, dsn, certStoreOptions{Key: storageKey})
	require.NoError(t, s.Store(t.Context(), "a/new.key", []byte("new")))
	for range 2 {
		require.NoError(t, s.Migrate(t.Context()))
		for key, want := range map[string]string{"a/api.key": privateKeyPEM, "a/new.key": "new"} {
			got, err := s.Load(t.Context(), key)
			require.NoError(t, err)
			assert.Equal(t, want, string(got))
		}
	}
	assert.NotContains(t, string(storedBytes(t, dsn, "a/api.key")), "PRIVATE")
	after, err := s.Stat(t.Context(), "a/api.key")
	require.NoError(t, err)
	assert.Equal(t, before, after, "certmagic takes the account that was stored last")
}

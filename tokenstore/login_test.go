package tokenstore_test

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// The password of the role is changed, and all its connections are ended. What reads the password anew goes on, lookups
// and the listener alike, and whatever is wrong with the new one is said without it.
//
// attack: 178
func TestAPasswordThatIsChangedIsReadAgain(t *testing.T) {
	dsn := guestDatabase(t)
	owner := openPostgres(t, dsn, tokenstore.PostgresOptions{})
	require.NoError(t, owner.MigrateRevocation(t.Context()))
	record := insert(t, owner, nil)
	role := tokenstoretest.Role(t, dsn, "GRANT SELECT ON oauth_access_tokens TO ROLE")
	u, err := url.Parse(role)
	require.NoError(t, err)
	withPassword := func(password string) string {
		changed := *u
		changed.User = url.UserPassword(u.User.Username(), password)
		return changed.String()
	}
	var file atomic.Pointer[string] // nil: it cannot be read
	file.Store(&role)
	var log syncBuffer
	store := openPostgres(t, role, tokenstore.PostgresOptions{
		Timeout: time.Second,
		Log:     slog.New(slog.NewTextHandler(&log, nil)),
		Again: func() (string, string, error) {
			if f := file.Load(); f != nil {
				return *f, "", nil
			}
			return "", "", errors.New("no such file")
		},
	})
	warm(t, store, record.Digest)

	const first, second = "first-new-password", "second-new-password"
	change := func(password string) {
		tokenstoretest.Exec(t, dsn, "ALTER ROLE "+u.User.Username()+" PASSWORD '"+password+"'",
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+u.User.Username()+"'")
	}
	refused := func() {
		t.Helper()
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			_, err := store.Lookup(context.Background(), record.Digest)
			assert.ErrorContains(c, err, "password authentication failed")
		}, patient, 10*time.Millisecond)
	}
	watches := func() { // the first attempt finds out that the password is another
		t.Helper()
		require.Eventually(t, func() bool {
			ctx, heard := context.WithCancel(context.Background())
			defer heard()
			err := store.Watch(ctx, func(tokenstore.Change) { heard() })
			return errors.Is(err, context.Canceled)
		}, patient, 10*time.Millisecond)
	}
	watches()
	change(first)
	refused() // the file has the old one still
	changed := withPassword(first)
	file.Store(&changed)
	warm(t, store, record.Digest)
	watches()

	file.Store(nil)
	change(second)
	refused()
	broken := "postgres://" + second + "@:nonsense"
	file.Store(&broken)
	refused()
	changed = withPassword(second)
	file.Store(&changed)
	warm(t, store, record.Digest)
	watches()
	for _, password := range []string{first, second} {
		assert.NotContains(t, log.String(), password)
	}
	assert.Contains(t, log.String(), "password authentication failed")
}

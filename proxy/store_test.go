package proxy_test

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// unavailable requires that a request is answered with 503, and as nobody's fault.
func unavailable(g *rig, r *http.Request) {
	g.t.Helper()
	res := g.refuses(r, http.StatusServiceUnavailable, proxy.StoreUnavailable)
	assert.NotEmpty(g.t, res.Header.Get("Retry-After"))
	assert.Empty(g.t, res.Header["Www-Authenticate"])
	assert.Equal(g.t, "no-store", res.Header.Get("Cache-Control"))
	assert.Zero(g.t, g.proofs.Stats().Entries, "nothing is used up")
}

// conformance: TOK-09
func TestStoreThatFailsIs503(t *testing.T) {
	g, key := newAPI(t, "base")
	r := g.signed(key, dpop.Claims{})
	for _, err := range []error{errors.New("password authentication failed for user dpopgate"), context.DeadlineExceeded, context.Canceled} {
		g.rows.fail = err
		unavailable(g, r)
	}
	assert.Zero(t, g.count(), "what the upstream saw")
	g.rows.fail = nil
	g.passes(r)
}

// conformance: TOK-09
func TestDatabaseThatIsAwayIs503(t *testing.T) {
	g, key := newAPI(t, "base")
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections into its queue, and says nothing
	require.NoError(t, err)
	t.Cleanup(func() { silent.Close() })
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	for name, l := range map[string]net.Listener{"silent": silent, "gone": gone} {
		t.Run(name, func(t *testing.T) {
			store, err := tokenstore.OpenPostgres(t.Context(), "postgres://dpopgate:secret@"+l.Addr().String()+"/db?sslmode=disable",
				tokenstore.PostgresOptions{Timeout: 100 * time.Millisecond})
			require.NoError(t, err)
			t.Cleanup(func() { store.Close() })
			s := g.sibling(0, func(o *proxy.Options) { o.Tokens = store })
			unavailable(s, s.signed(key, dpop.Claims{}))
			assert.NotContains(t, s.log.String(), "secret@")
		})
	}
	assert.Zero(t, g.count(), "what the upstream saw")
}

// cached is a sibling with a cache in front of the table.
func cached(g *rig) (*rig, *cache.Tokens) {
	var tokens *cache.Tokens
	s := g.sibling(0, func(o *proxy.Options) {
		var err error
		tokens, err = cache.NewTokens(g.rows, cache.TokensOptions{
			MaxSize: 8 << 20, TTL: 30 * time.Second, NegativeTTL: 2 * time.Second, Timeout: time.Minute, Now: o.Now,
		})
		require.NoError(g.t, err)
		g.t.Cleanup(tokens.Close)
		o.Tokens = tokens
	})
	return s, tokens
}

// conformance: TOK-03
// attack: 109
func TestRevocationIsSeenAtOnceOrWithinTheTTL(t *testing.T) {
	g, key := newAPI(t, "base")
	s, tokens := cached(g)
	s.passes(s.signed(key, dpop.Claims{}))
	g.rows.drop("T1")
	tokens.Forget(tokenstore.Digester{}.Digest("T1"))
	s.refuses(s.signed(key, dpop.Claims{}), http.StatusUnauthorized, proxy.TokenUnknown)

	g.rows.put("T2", bound(key.Thumbprint(), "items:read"))
	s.passes(s.signed(key, dpop.Claims{Token: "T2"}))
	g.rows.drop("T2")
	s.offset.Add(int64(30 * time.Second)) // nobody said so, but the ttl is over
	s.refuses(s.signed(key, dpop.Claims{Token: "T2"}), http.StatusUnauthorized, proxy.TokenUnknown)
}

// conformance: TOK-14
// attack: 119
func TestMadeUpTokensDoNotDisturbOthers(t *testing.T) {
	g, key := newAPI(t, "base")
	s, _ := cached(g)
	s.passes(s.signed(key, dpop.Claims{}))
	asked := g.rows.lookups
	for range 100 {
		s.refuses(s.signed(key, dpop.Claims{Token: "T9"}), http.StatusUnauthorized, proxy.TokenUnknown)
	}
	assert.LessOrEqual(t, g.rows.lookups-asked, 1, "one that is known to be unknown")
	for range 1000 {
		s.refuses(s.signed(key, dpop.Claims{Token: uuid.NewString()}), http.StatusUnauthorized, proxy.TokenUnknown)
	}
	asked = g.rows.lookups
	for range 10 {
		s.passes(s.signed(key, dpop.Claims{}))
	}
	assert.Equal(t, asked, g.rows.lookups, "a known token is still known")
	// Whoever makes up tokens without a proof of their own asks the store nothing.
	for range 100 {
		r := s.signed(key, dpop.Claims{})
		r.Header.Set("Authorization", "DPoP "+uuid.NewString())
		s.refuses(r, http.StatusUnauthorized, dpop.ATHMismatch)
	}
	assert.Equal(t, asked, g.rows.lookups)
}

// A migration under way: what is added does not matter, what is taken away is not guessed.
//
// conformance: OPS-07
func TestTableMayGrowWhileInstancesRun(t *testing.T) {
	row := func(key *dpop.Key) *tokenstore.Record {
		rec := bound(key.Thumbprint(), "items:read")
		rec.Digest = tokenstore.Digester{}.Digest("T1")
		rec.UserID = uuid.NullUUID{}
		return &rec
	}
	grow := func(t *testing.T, store tokenstore.Store, exec func(statement string)) {
		g, key := newAPI(t, "base")
		require.NoError(t, store.Insert(t.Context(), row(key)))
		s := g.sibling(0, func(o *proxy.Options) { o.Tokens = store })
		s.passes(s.signed(key, dpop.Claims{}))
		exec("ALTER TABLE oauth_access_tokens ADD COLUMN risk text NOT NULL DEFAULT 'low'")
		s.passes(s.signed(key, dpop.Claims{}))
		exec("ALTER TABLE oauth_access_tokens RENAME COLUMN scopes TO scope")
		before := g.count()
		s.refuses(s.signed(key, dpop.Claims{}), http.StatusServiceUnavailable, proxy.StoreUnavailable)
		assert.Equal(t, before, g.count(), "what the upstream saw")
		exec("ALTER TABLE oauth_access_tokens RENAME COLUMN scope TO scopes")
		s.passes(s.signed(key, dpop.Claims{}))
	}
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "tokens.db")
		store, err := tokenstore.OpenSQLite(t.Context(), path, tokenstore.SQLiteOptions{Timeout: time.Minute})
		require.NoError(t, err)
		t.Cleanup(func() { store.Close() })
		require.NoError(t, store.Migrate(t.Context()))
		db, err := sql.Open("sqlite", path)
		require.NoError(t, err)
		t.Cleanup(func() { db.Close() })
		grow(t, store, func(statement string) {
			_, err := db.ExecContext(t.Context(), statement)
			require.NoError(t, err)
		})
	})
	t.Run("postgres", func(t *testing.T) {
		dsn := tokenstoretest.Postgres(t)
		store, err := tokenstore.OpenPostgres(t.Context(), dsn, tokenstore.PostgresOptions{Timeout: time.Minute})
		require.NoError(t, err)
		t.Cleanup(func() { store.Close() })
		require.NoError(t, store.Migrate(t.Context()))
		tokenstoretest.Exec(t, dsn, "INSERT INTO oauth_clients VALUES ('"+aClient.String()+"')")
		grow(t, store, func(statement string) { tokenstoretest.Exec(t, dsn, statement) })
	})
}

package tokenstore_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore"
)

// These tests say what every Store does. The server that the Postgres ones need is in DPOPGATE_TEST_POSTGRES.

func TestLookupReturnsWhatWasInserted(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		for name, change := range map[string]func(*tokenstore.Record){
			"bound":               nil,
			"bearer":              func(r *tokenstore.Record) { r.TokenType, r.DPoPJKT = tokenstore.Bearer, "" },
			"client only":         func(r *tokenstore.Record) { r.UserID = uuid.NullUUID{} },
			"without scopes":      func(r *tokenstore.Record) { r.Scopes = nil },
			"for any audience":    func(r *tokenstore.Record) { r.Audience = nil },
			"for nobody":          func(r *tokenstore.Record) { r.Audience = []string{} },
			"for several":         func(r *tokenstore.Record) { r.Audience = []string{"urn:example:b", "https://a.example/?q=1"} },
			"without metadata":    func(r *tokenstore.Record) { r.Metadata = nil },
			"with nested values":  func(r *tokenstore.Record) { r.Metadata = []byte(`{"a":[1,{"b":null}],"é":"\u0001"}`) },
			"with its own jti":    func(r *tokenstore.Record) { r.JTI = uuid.New() },
			"with odd scopes":     func(r *tokenstore.Record) { r.Scopes = []string{"!", "a,b{c}", "'NULL'", "NULL", "~", "[]"} },
			"created elsewhere":   func(r *tokenstore.Record) { r.CreatedAt = time.Now().Add(-time.Hour) },
			"expired":             func(r *tokenstore.Record) { r.ExpiresAt = time.Now().Add(-time.Second) },
			"longest thumbprint":  func(r *tokenstore.Record) { r.DPoPJKT = strings.Repeat("k", 128) },
			"furthest expiry":     func(r *tokenstore.Record) { r.ExpiresAt = time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC) },
			"in another timezone": func(r *tokenstore.Record) { r.ExpiresAt = r.ExpiresAt.In(time.FixedZone("", 3600)) },
		} {
			t.Run(name, func(t *testing.T) {
				want := insert(t, b.store, change)
				got, err := b.store.Lookup(t.Context(), want.Digest)
				require.NoError(t, err)
				assert.Equal(t, want, got)
				assert.NotEqual(t, uuid.Nil, got.JTI)
				assert.False(t, got.CreatedAt.IsZero())
				assert.False(t, got.UpdatedAt.IsZero())
			})
		}
	})
}

func TestInsertRoundsTimesDown(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		at := time.Date(2040, 1, 2, 3, 4, 5, 678_999_999, time.UTC)
		r := insert(t, b.store, func(r *tokenstore.Record) { r.ExpiresAt = at })
		assert.Equal(t, at.Truncate(b.unit), r.ExpiresAt)
	})
}

func TestLookupOfAnUnknownDigestIsNotFound(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		insert(t, b.store, nil)
		_, err := b.store.Lookup(t.Context(), newRecord().Digest)
		assert.ErrorIs(t, err, tokenstore.ErrNotFound)
	})
}

func TestEndedContextIsTheError(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		r := insert(t, b.store, nil)
		late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		left, leave := context.WithCancel(t.Context())
		leave()
		calls := map[string]func(context.Context) error{
			"lookup": func(ctx context.Context) error { _, err := b.store.Lookup(ctx, r.Digest); return err },
			"insert": func(ctx context.Context) error { return b.store.Insert(ctx, newRecord()) },
			"list": func(ctx context.Context) error {
				_, err := b.store.List(ctx, tokenstore.Selector{}, tokenstore.Digest{}, 1)
				return err
			},
			"revoke": func(ctx context.Context) error {
				_, err := b.store.Revoke(ctx, tokenstore.Selector{Digest: &r.Digest})
				return err
			},
			"purge": func(ctx context.Context) error { _, err := b.store.Purge(ctx, time.Now(), 1); return err },
			"ping":  b.store.Ping,
			"check": func(ctx context.Context) error { _, err := b.store.Check(ctx); return err },
		}
		for name, call := range calls {
			err := call(late)
			assert.ErrorIs(t, err, context.DeadlineExceeded, name)
			assert.NotErrorIs(t, err, tokenstore.ErrNotFound, name)
			assert.ErrorIs(t, call(left), context.Canceled, name)
		}
		_, err := b.store.Lookup(t.Context(), r.Digest)
		assert.NoError(t, err, "and the store goes on")
	})
}

func TestInsertRefusesADigestTwice(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		first := insert(t, b.store, nil)
		second := newRecord()
		second.Digest = first.Digest
		assert.ErrorIs(t, b.store.Insert(t.Context(), second), tokenstore.ErrDuplicate)
		got, err := b.store.Lookup(t.Context(), first.Digest)
		require.NoError(t, err)
		assert.Equal(t, first.JTI, got.JTI)
	})
}

func TestInsertRefusesWhatTheTableWould(t *testing.T) {
	cases := map[string]struct {
		change func(*tokenstore.Record)
		want   string
	}{
		"no client":          {func(r *tokenstore.Record) { r.ClientID = uuid.Nil }, "client_id is missing"},
		"no expiry":          {func(r *tokenstore.Record) { r.ExpiresAt = time.Time{} }, "expires_at is missing"},
		"far expiry":         {func(r *tokenstore.Record) { r.ExpiresAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "the year 10000"},
		"no type":            {func(r *tokenstore.Record) { r.TokenType = "" }, `token_type is ""`},
		"unknown type":       {func(r *tokenstore.Record) { r.TokenType = "dpop" }, `token_type is "dpop": want Bearer or DPoP`},
		"bound bearer":       {func(r *tokenstore.Record) { r.TokenType = tokenstore.Bearer }, "token_type is Bearer"},
		"dpop without key":   {func(r *tokenstore.Record) { r.DPoPJKT = "" }, "dpop_jkt has 0 characters"},
		"short thumbprint":   {func(r *tokenstore.Record) { r.DPoPJKT = thumbprint[1:] }, "dpop_jkt has 42 characters"},
		"long thumbprint":    {func(r *tokenstore.Record) { r.DPoPJKT = strings.Repeat("k", 129) }, "dpop_jkt has 129 characters"},
		"empty scope":        {func(r *tokenstore.Record) { r.Scopes = []string{"a", ""} }, `scope ""`},
		"scope with space":   {func(r *tokenstore.Record) { r.Scopes = []string{"a b"} }, `scope "a b"`},
		"scope with quote":   {func(r *tokenstore.Record) { r.Scopes = []string{`a"`} }, `scope "a\""`},
		"scope with newline": {func(r *tokenstore.Record) { r.Scopes = []string{"a\nb"} }, `scope "a\nb"`},
		"scope beyond ASCII": {func(r *tokenstore.Record) { r.Scopes = []string{"é"} }, `scope "é"`},
		"relative audience":  {func(r *tokenstore.Record) { r.Audience = []string{"/orders"} }, `audience "/orders"`},
		"audience fragment":  {func(r *tokenstore.Record) { r.Audience = []string{"https://a.example/#x"} }, "without a fragment"},
		"metadata list":      {func(r *tokenstore.Record) { r.Metadata = []byte(`[]`) }, "metadata is not a JSON object"},
		"metadata not JSON":  {func(r *tokenstore.Record) { r.Metadata = []byte(`{"a":}`) }, "metadata is not a JSON object"},
		"several at once":    {func(r *tokenstore.Record) { r.Scopes, r.ClientID = []string{""}, uuid.Nil }, "client_id is missing\nscope \"\""},
	}
	each(t, func(t *testing.T, b backend) {
		for name, c := range cases {
			r := newRecord()
			c.change(r)
			assert.ErrorContains(t, b.store.Insert(t.Context(), r), c.want, name)
		}
		left, err := b.store.List(t.Context(), tokenstore.Selector{}, tokenstore.Digest{}, 1)
		require.NoError(t, err)
		assert.Empty(t, left)
	})
}

// The constraints of the table itself, for those who insert with SQL of their own.
func TestTableRefusesWhatInsertWould(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		r := insert(t, b.store, nil)
		for name, set := range map[string]string{
			"bound bearer":      "token_type = 'Bearer'",
			"dpop without key":  "dpop_jkt = NULL",
			"short thumbprint":  "dpop_jkt = '" + thumbprint[1:] + "'",
			"long thumbprint":   "dpop_jkt = '" + strings.Repeat("k", 129) + "'",
			"unknown type":      "token_type = 'dpop', dpop_jkt = NULL",
			"no type":           "token_type = NULL",
			"no scopes":         "scopes = NULL",
			"empty scope":       "scopes = " + b.array("a", ""),
			"scope with space":  "scopes = " + b.array("a b"),
			"relative audience": "audience = " + b.array("orders"),
			"audience fragment": "audience = " + b.array("https://a.example/#x"),
			"no metadata":       "metadata = NULL",
			"no expiry":         "expires_at = NULL",
			"no client":         "client_id = NULL",
		} {
			assert.Panics(t, func() { b.exec(refusal{t}, "UPDATE oauth_access_tokens SET "+set) }, name)
		}
		got, err := b.store.Lookup(t.Context(), r.Digest)
		require.NoError(t, err)
		assert.Equal(t, r, got)
	})
}

// refusal turns the failure of a test into a panic, for statements that are to fail.
type refusal struct{ testing.TB }

func (refusal) Errorf(string, ...any) {}
func (refusal) FailNow()              { panic("refused") }

func TestTriggerKeepsUpdatedAt(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		old := time.Now().Add(-time.Hour).UTC().Truncate(b.unit)
		r := insert(t, b.store, func(r *tokenstore.Record) { r.CreatedAt, r.UpdatedAt = old, old })
		b.exec(t, "UPDATE oauth_access_tokens SET expires_at = created_at")
		got, err := b.store.Lookup(t.Context(), r.Digest)
		require.NoError(t, err)
		assert.Equal(t, old, got.CreatedAt)
		assert.True(t, got.UpdatedAt.After(old))
		assert.True(t, got.Expired(time.Now()))
	})
}

func TestListGoesThroughAllThatMatchInDigestOrder(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		var all []tokenstore.Digest
		var loose *tokenstore.Record
		for range 7 {
			all = append(all, insert(t, b.store, nil).Digest)
		}
		loose = insert(t, b.store, func(r *tokenstore.Record) { r.UserID = uuid.NullUUID{} })
		slices.SortFunc(all, func(a, b tokenstore.Digest) int { return bytes.Compare(a[:], b[:]) })

		list := func(s tokenstore.Selector, pages int) (found []tokenstore.Digest) {
			var after tokenstore.Digest
			for range pages {
				page, err := b.store.List(t.Context(), s, after, 3)
				require.NoError(t, err)
				for _, r := range page {
					found, after = append(found, r.Digest), r.Digest
				}
			}
			return found
		}
		assert.Equal(t, all, list(tokenstore.Selector{User: &user}, 4))
		assert.Equal(t, all, list(tokenstore.Selector{User: &user, Client: &client}, 4))
		assert.Len(t, list(tokenstore.Selector{Client: &client}, 4), 8)
		assert.Len(t, list(tokenstore.Selector{}, 4), 8)
		assert.Equal(t, []tokenstore.Digest{loose.Digest}, list(tokenstore.Selector{JTI: &loose.JTI}, 1))
		assert.Equal(t, []tokenstore.Digest{loose.Digest}, list(tokenstore.Selector{Digest: &loose.Digest}, 1))
		assert.Empty(t, list(tokenstore.Selector{JTI: &loose.JTI, User: &user}, 1))

		whole, err := b.store.List(t.Context(), tokenstore.Selector{JTI: &loose.JTI}, tokenstore.Digest{}, 1)
		require.NoError(t, err)
		assert.Equal(t, []*tokenstore.Record{loose}, whole)
		for _, limit := range []int{0, -1} {
			none, err := b.store.List(t.Context(), tokenstore.Selector{}, tokenstore.Digest{}, limit)
			require.NoError(t, err)
			assert.Empty(t, none)
		}
	})
}

func TestRevokeDeletesWhatMatchesAndNamesIt(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		one, two, loose := insert(t, b.store, nil), insert(t, b.store, nil), insert(t, b.store, func(r *tokenstore.Record) { r.UserID = uuid.NullUUID{} })
		nobody, anotherKey := uuid.New(), strings.Repeat("x", 43)
		for _, step := range []struct {
			selector tokenstore.Selector
			gone     []tokenstore.Digest
		}{
			{tokenstore.Selector{User: &nobody}, nil},
			{tokenstore.Selector{Digest: &one.Digest, User: &nobody}, nil},
			{tokenstore.Selector{Digest: &one.Digest, Thumbprint: &anotherKey}, nil},
			{tokenstore.Selector{JTI: &one.JTI, Thumbprint: &one.DPoPJKT}, []tokenstore.Digest{one.Digest}},
			{tokenstore.Selector{User: &user}, []tokenstore.Digest{two.Digest}},
			{tokenstore.Selector{Client: &client}, []tokenstore.Digest{loose.Digest}},
		} {
			gone, err := b.store.Revoke(t.Context(), step.selector)
			require.NoError(t, err)
			assert.Equal(t, step.gone, gone)
			for _, d := range gone {
				_, err := b.store.Lookup(t.Context(), d)
				assert.ErrorIs(t, err, tokenstore.ErrNotFound)
			}
		}
	})
}

func TestRevokeRefusesAnEmptySelector(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		r := insert(t, b.store, nil)
		_, err := b.store.Revoke(t.Context(), tokenstore.Selector{})
		assert.ErrorIs(t, err, tokenstore.ErrEmptySelector)
		_, err = b.store.Lookup(t.Context(), r.Digest)
		assert.NoError(t, err)
	})
}

func TestPurgeDeletesTheOldestInBatches(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		now := time.Now().UTC().Truncate(time.Second)
		at := func(d time.Duration) *tokenstore.Record {
			return insert(t, b.store, func(r *tokenstore.Record) { r.ExpiresAt = now.Add(d) })
		}
		edge, live := at(0), at(time.Hour)
		for d := -time.Hour; d > -5*time.Hour; d -= time.Hour {
			at(d)
		}
		oldest := at(-5 * time.Hour)

		for i, want := range []int{3, 2, 0} {
			n, err := b.store.Purge(t.Context(), now, 3)
			require.NoError(t, err)
			assert.Equal(t, want, n)
			if i == 0 {
				_, err = b.store.Lookup(t.Context(), oldest.Digest)
				assert.ErrorIs(t, err, tokenstore.ErrNotFound)
			}
		}
		left, err := b.store.List(t.Context(), tokenstore.Selector{}, tokenstore.Digest{}, 10)
		require.NoError(t, err)
		assert.ElementsMatch(t, []*tokenstore.Record{edge, live}, left)
	})
}

func TestPingAnswers(t *testing.T) {
	each(t, func(t *testing.T, b backend) { assert.NoError(t, b.store.Ping(t.Context())) })
}

func TestCheckFindsNothingToSay(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		differences, err := b.store.Check(t.Context())
		require.NoError(t, err)
		assert.Empty(t, differences)
	})
}

func TestManyAtOnce(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				r := newRecord()
				assert.NoError(t, b.store.Insert(t.Context(), r))
				got, err := b.store.Lookup(t.Context(), r.Digest)
				assert.NoError(t, err)
				assert.Equal(t, r, got)
				gone, err := b.store.Revoke(t.Context(), tokenstore.Selector{Digest: &r.Digest})
				assert.NoError(t, err)
				assert.Len(t, gone, 1)
			})
		}
		all.Wait()
	})
}

func TestBytesOfAMegabyteComeBackWhole(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		want := insert(t, b.store, func(r *tokenstore.Record) {
			r.Scopes = nil
			for range 10_000 {
				r.Scopes = append(r.Scopes, "scope:"+uuid.NewString())
			}
			r.Metadata = []byte(`{"hint": "` + strings.Repeat("x", 4<<20) + `"}`)
		})
		got, err := b.store.Lookup(t.Context(), want.Digest)
		require.NoError(t, err)
		assert.True(t, slices.Equal(want.Scopes, got.Scopes))
		assert.True(t, bytes.Equal(want.Metadata, got.Metadata))
	})
}

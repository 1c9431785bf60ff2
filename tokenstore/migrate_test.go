package tokenstore_test

import (
	"context"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// query reads one column of text.
func query(t testing.TB, dsn, statement string) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	rows, err := conn.Query(t.Context(), statement)
	require.NoError(t, err)
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return list
}

// structureOf is everything in the database that is not the server's own.
func structureOf(t testing.TB, dsn string) []string {
	return query(t, dsn, `SELECT line FROM (
		SELECT format('%s.%s %s', n.nspname, c.relname, c.relkind) AS line FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
			WHERE nspname !~ '^(pg_|information_schema)'
		UNION ALL SELECT format('%s.%s %s %s %s', c.oid::regclass, attname, format_type(atttypid, atttypmod), attnotnull,
			pg_get_expr(d.adbin, d.adrelid)) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace JOIN pg_attribute a ON attrelid = c.oid
			LEFT JOIN pg_attrdef d ON adrelid = c.oid AND adnum = attnum WHERE nspname !~ '^(pg_|information_schema)' AND attnum > 0
		UNION ALL SELECT conname || ' ' || pg_get_constraintdef(k.oid) FROM pg_constraint k JOIN pg_namespace n ON n.oid = connamespace
			WHERE nspname !~ '^(pg_|information_schema)'
		UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
		UNION ALL SELECT pg_get_functiondef(p.oid) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
			WHERE nspname !~ '^(pg_|information_schema)'
		UNION ALL SELECT format('%s %s %s', classoid::regclass, objsubid, description) FROM pg_description WHERE objoid >= 16384
		) AS everything ORDER BY line COLLATE "C"`)
}

func TestMigrateMakesTheDocumentedTable(t *testing.T) {
	dsn := tokenstoretest.Postgres(t)
	require.NoError(t, openPostgres(t, dsn, tokenstore.PostgresOptions{}).Migrate(t.Context()))

	assert.Equal(t, []string{
		"access_token_dpop_consistency_chk CHECK ((((token_type = 'Bearer'::token_type) AND (dpop_jkt IS NULL)) OR " +
			"((token_type = 'DPoP'::token_type) AND (dpop_jkt IS NOT NULL) AND ((length(dpop_jkt) >= 43) AND (length(dpop_jkt) <= 128)))))",
		"audience_uris_valid CHECK (are_valid_oauth_uris_or_null(audience))",
		"oauth_access_tokens_client_id_fkey FOREIGN KEY (client_id) REFERENCES oauth_clients(id) ON DELETE CASCADE",
		"oauth_access_tokens_pkey PRIMARY KEY (digest)",
		"oauth_access_tokens_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE",
		"scopes_token_chars CHECK (scopes_all_valid(scopes))",
	}, query(t, dsn, `SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
		WHERE conrelid = 'oauth_access_tokens'::regclass AND contype <> 'n' ORDER BY conname`))

	assert.Equal(t, []string{
		"CREATE INDEX idx_oauth_access_tokens_expires_at ON public.oauth_access_tokens USING btree (expires_at)",
		"CREATE INDEX idx_oauth_access_tokens_user_client ON public.oauth_access_tokens USING btree (user_id, client_id)",
		"CREATE UNIQUE INDEX oauth_access_tokens_pkey ON public.oauth_access_tokens USING btree (digest)",
	}, query(t, dsn, `SELECT indexdef FROM pg_indexes WHERE tablename = 'oauth_access_tokens' ORDER BY indexname`))

	assert.Equal(t, []string{
		"CREATE TRIGGER set_timestamp_oauth_access_tokens BEFORE UPDATE ON public.oauth_access_tokens FOR EACH ROW EXECUTE FUNCTION trigger_set_timestamp()",
	}, query(t, dsn, `SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'oauth_access_tokens'::regclass AND NOT tgisinternal`))

	assert.Equal(t, []string{
		"audience text[]  null",
		"client_id uuid  not null",
		"created_at timestamp with time zone now() not null",
		"digest bytea  not null",
		"dpop_jkt text  null",
		"expires_at timestamp with time zone  not null",
		"jti uuid gen_random_uuid() not null",
		"metadata jsonb '{}'::jsonb not null",
		"scopes text[] '{}'::text[] not null",
		"token_type token_type 'Bearer'::token_type not null",
		"updated_at timestamp with time zone now() not null",
		"user_id uuid  null",
	}, query(t, dsn, `SELECT format('%s %s %s %s', attname, format_type(atttypid, atttypmod), pg_get_expr(adbin, adrelid),
		CASE WHEN attnotnull THEN 'not null' ELSE 'null' END)
		FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
		WHERE attrelid = 'oauth_access_tokens'::regclass AND attnum > 0 ORDER BY attname`))

	assert.Equal(t, []string{"0"}, query(t, dsn, `SELECT count(*)::text FROM pg_attribute
		WHERE attrelid = 'oauth_access_tokens'::regclass AND attnum > 0 AND col_description(attrelid, attnum) IS NULL`), "columns without a comment")
}

func TestMigrateTwiceIsMigrateOnce(t *testing.T) {
	dsn := tokenstoretest.Postgres(t)
	store := openPostgres(t, dsn, tokenstore.PostgresOptions{})
	require.NoError(t, store.Migrate(t.Context()))
	once := structureOf(t, dsn)
	require.NoError(t, store.Migrate(t.Context()))
	assert.Equal(t, once, structureOf(t, dsn))
}

func TestMigrateAtOnceFromManyInstances(t *testing.T) {
	dsn := tokenstoretest.Postgres(t)
	var all sync.WaitGroup
	for range 8 {
		store := openPostgres(t, dsn, tokenstore.PostgresOptions{})
		all.Go(func() { assert.NoError(t, store.Migrate(t.Context())) })
	}
	all.Wait()
}

func TestMigrateChangesNothingWhereTheTableIs(t *testing.T) {
	for name, ddl := range map[string]string{
		"guest": "", "loose": looseTable, "unrelated": "CREATE TABLE oauth_access_tokens (note text)",
	} {
		t.Run(name, func(t *testing.T) {
			dsn := tokenstoretest.Postgres(t)
			if ddl == "" {
				dsn = guestDatabase(t)
			} else {
				tokenstoretest.Exec(t, dsn, ddl)
			}
			before := structureOf(t, dsn)
			require.NoError(t, openPostgres(t, dsn, tokenstore.PostgresOptions{}).Migrate(t.Context()))
			assert.Equal(t, before, structureOf(t, dsn))
		})
	}
}

func TestMigrateUsesTheClientsUsersAndFunctionsThatAreThere(t *testing.T) {
	dsn := guestDatabase(t)
	tokenstoretest.Exec(t, dsn, "DROP TABLE oauth_access_tokens")
	before := structureOf(t, dsn)
	store := openPostgres(t, dsn, tokenstore.PostgresOptions{})
	require.NoError(t, store.Migrate(t.Context()))
	assert.Subset(t, structureOf(t, dsn), before)
	insert(t, store, nil)
}

func TestMigrateLeavesNothingBehindWhenItFails(t *testing.T) {
	dsn := tokenstoretest.Postgres(t)
	tokenstoretest.Exec(t, dsn, "CREATE TABLE users (id text PRIMARY KEY)") // cannot be referred to
	before := structureOf(t, dsn)
	store := openPostgres(t, dsn, tokenstore.PostgresOptions{})
	require.ErrorContains(t, store.Migrate(t.Context()), "creating the token table: ")
	assert.Equal(t, before, structureOf(t, dsn))
	tokenstoretest.Exec(t, dsn, "DROP TABLE users")
	assert.NoError(t, store.Migrate(t.Context()))
}

func TestEveryTableNameWorksThroughout(t *testing.T) {
	for _, table := range []string{
		"auth.oauth_access_tokens",
		"tokens",
		`"Auth Server"."Tokens; DROP TABLE users; --"`,
		`"it's"."$migrate$ \ ""x"""`,
		`a_schema_with_a_name_as_long_as_postgres_can_hold_in_63_bytes_x.a_table_with_a_name_as_long_as_postgres_can_hold_in_63_bytes_yy`,
	} {
		t.Run(table, func(t *testing.T) {
			dsn := tokenstoretest.Postgres(t)
			store := openPostgres(t, dsn, tokenstore.PostgresOptions{Table: table})
			require.NoError(t, store.Migrate(t.Context()))
			require.NoError(t, store.Migrate(t.Context()))
			differences, err := store.Check(t.Context())
			require.NoError(t, err)
			assert.Empty(t, differences)
			clients := query(t, dsn, "SELECT oid::regclass::text FROM pg_class WHERE relname = 'oauth_clients'")
			require.Len(t, clients, 1)

			r := newRecord()
			r.UserID.Valid = false
			var unknown *tokenstore.UnknownReferenceError
			require.ErrorAs(t, store.Insert(t.Context(), r), &unknown)
			assert.Equal(t, clients[0], unknown.Table)
			tokenstoretest.Exec(t, dsn, "INSERT INTO "+clients[0]+" VALUES ('"+client.String()+"')")
			require.NoError(t, store.Insert(t.Context(), r))
			got, err := store.Lookup(t.Context(), r.Digest)
			require.NoError(t, err)
			assert.Equal(t, r, got)
		})
	}
}

func TestSQLIsAScriptOfItsOwn(t *testing.T) {
	one, other := tokenstoretest.Postgres(t), tokenstoretest.Postgres(t)
	store := openPostgres(t, one, tokenstore.PostgresOptions{Table: "auth.tokens"})
	require.NoError(t, store.Migrate(t.Context()))
	tokenstoretest.Exec(t, other, store.SQL())
	assert.Equal(t, structureOf(t, one), structureOf(t, other))
	assert.Contains(t, store.SQL(), `CREATE TABLE "auth"."tokens"`)
	assert.NotContains(t, store.SQL(), "{{")
}

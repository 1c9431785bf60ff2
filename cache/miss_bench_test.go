package cache_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// BenchmarkMisses is lookups of tokens that are not in memory, from 512 callers at once: each as a query of its own, as
// the pool has them without the cache's queue, and gathered by it. server-us/1000 is the time that the server's processes
// used for a thousand of them, in microseconds; it is 0 where the server is not of this machine.
func BenchmarkMisses(b *testing.B) {
	const rows = 100_000
	dsn := tokenstoretest.Postgres(b)
	store, err := tokenstore.OpenPostgres(b.Context(), dsn, tokenstore.PostgresOptions{Timeout: time.Minute})
	require.NoError(b, err)
	b.Cleanup(func() { store.Close() })
	require.NoError(b, store.Migrate(b.Context()))
	tokenstoretest.Exec(b, dsn, `INSERT INTO oauth_clients VALUES ('00000000-0000-4000-8000-0000000c11e7')`, fmt.Sprintf(
		`INSERT INTO oauth_access_tokens (digest, client_id, expires_at) SELECT sha256(i::text::bytea), '00000000-0000-4000-8000-0000000c11e7',
		now() + interval '1 day' FROM generate_series(1, %d) AS i`, rows), "ANALYZE")
	name := mustParse(b, dsn).Database
	token := func(i int64) tokenstore.Digest {
		return tokenstore.Digester{}.Digest(tokenstore.Token(strconv.FormatInt(i%rows+1, 10)))
	}
	unknown := func(i int64) tokenstore.Digest { return digest(uint64(i) + 1<<40) }
	for _, kind := range []struct {
		name string
		of   func(int64) tokenstore.Digest
	}{{"known", token}, {"unknown", unknown}} {
		run := func(lookups cache.Lookuper) func(*testing.B) {
			return func(b *testing.B) {
				var next atomic.Int64
				before := serverTime(name)
				b.SetParallelism(256)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := lookups.Lookup(context.Background(), kind.of(next.Add(1))); err != nil && err != tokenstore.ErrNotFound {
							b.Error(err)
						}
					}
				})
				b.ReportMetric(float64((serverTime(name)-before).Microseconds())/float64(b.N)*1000, "server-us/1000")
			}
		}
		b.Run(kind.name+"/single", run(store))
		gathered := tokens(b, store, func(o *cache.TokensOptions) { o.TTL, o.MaxSize = 0, 0 })
		b.Run(kind.name+"/gathered", func(b *testing.B) {
			before := gathered.Stats().Queries
			run(gathered)(b)
			b.ReportMetric(float64(gathered.Stats().Queries-before)/float64(b.N)*1000, "queries/1000")
		})
	}
}

func mustParse(t testing.TB, dsn string) *pgx.ConnConfig {
	cfg, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	return cfg
}

// serverTime is the processor time so far of the backends of a database on this machine, from Linux's /proc.
func serverTime(database string) (total time.Duration) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		title, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err != nil || !strings.HasPrefix(string(title), "postgres: ") || !strings.Contains(string(title), " "+database+" ") {
			continue
		}
		stat, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		for _, ticks := range fields[11:13] { // utime and stime, in hundredths of a second
			n, _ := strconv.ParseInt(ticks, 10, 64)
			total += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return total
}

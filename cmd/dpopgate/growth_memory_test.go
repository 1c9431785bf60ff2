package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// lightLoad prints what the gateway adds to the latency of a request when it has a third of what it can do. The row of the
// upstream alone says what the machine does by itself.
func lightLoad(b *testing.B, flags benchFlags, cores benchCores) {
	b.Run("light", func(b *testing.B) {
		g, plain, checked := startVariant(b, variant{name: "checked"}, flags, cores)
		full := []*lane{plain, checked}
		require.NoError(b, race(b.Context(), full, minRounds, g.round(), g.connections, time.Now().Add(benchTime), func(int, string) {}))
		every := time.Duration(3e9 / results(full)[1].PerSecond)
		direct := g.lane("upstream alone", g.at(g.upstream, "/"), g.upstream.usage, false, true)
		light := []*lane{direct, plain, checked}
		for _, l := range light {
			l.every, l.rounds = every, nil
		}
		require.NoError(b, race(b.Context(), light, g.rounds(), g.round(), g.connections, time.Now().Add(benchTime), func(int, string) {}))
		rows := results(light)
		fmt.Printf("\nlatency at a third of full load: checked adds %v to the median of the plain proxy\n\n", (rows[2].P50 - rows[1].P50).Round(time.Microsecond))
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, benchHeads)
		for _, r := range rows {
			fmt.Fprintln(w, r.cells())
		}
		w.Flush()
	})
}

// BenchmarkMemory is what is remembered, by the entry, and what that does to the garbage collector.
func BenchmarkMemory(b *testing.B) {
	flags := readBenchFlags(b)
	if !flags.growth {
		b.Skip("./test bench --growth")
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Printf("\nused proofs in memory\n\n")
	fmt.Fprintln(w, "entries\tbytes an entry\tfull collection\tlongest pause\tlongest claim\tclaim\t")
	for _, n := range []int{10_000, 100_000, 1_000_000, 10_000_000} {
		fmt.Fprintln(w, proofsRow(b, n))
	}
	w.Flush()
	fmt.Printf("\ntokens in the cache\n\n")
	fmt.Fprintln(w, "tokens\tbytes a token\tfull collection\tlongest pause\tlookup\t")
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		fmt.Fprintln(w, tokensRow(b, n))
	}
	w.Flush()
	fmt.Printf("\nhot tokens still answered from memory in a flood of unknown ones, 20 for each: %.1f %%\n", 100*floodedHits(b))
}

// heapInUse is what is reachable, and how long it took the collector to find that out.
func heapInUse() (bytes uint64, took, longest time.Duration) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before := m.NumGC
	began := time.Now()
	runtime.GC()
	took = time.Since(began)
	runtime.ReadMemStats(&m)
	for n := before; n < m.NumGC; n++ {
		longest = max(longest, time.Duration(m.PauseNs[n%256]))
	}
	return m.HeapAlloc, took, longest
}

func proofsRow(b *testing.B, count int) string {
	before, _, _ := heapInUse()
	p := cache.NewProofs(2<<30, nil)
	until := time.Now().Add(time.Hour)
	var longest time.Duration
	began := time.Now()
	for i := range count {
		var k dpop.ReplayKey
		binary.BigEndian.PutUint64(k[:], uint64(i)*0x9e3779b97f4a7c15) // spread as digests are
		binary.BigEndian.PutUint64(k[8:], uint64(i))
		at := time.Now()
		fresh, err := p.Claim(context.Background(), k, until)
		longest = max(longest, time.Since(at))
		require.True(b, fresh && err == nil)
	}
	each := time.Since(began) / time.Duration(count)
	after, took, pause := heapInUse()
	runtime.KeepAlive(p)
	return fmt.Sprintf("%d\t%.1f\t%s\t%s\t%s\t%v\t", count, float64(after-before)/float64(count), brief(took), brief(pause), brief(longest), each)
}

// inventedStore has a record for every token.
type inventedStore struct{ known int }

func (s inventedStore) Lookup(_ context.Context, d tokenstore.Digest) (*tokenstore.Record, error) {
	if int(binary.BigEndian.Uint64(d[8:])) >= s.known {
		return nil, tokenstore.ErrNotFound
	}
	return &tokenstore.Record{
		Digest: d, JTI: uuid.New(), ClientID: demoClient, UserID: uuid.NullUUID{UUID: uuid.New(), Valid: true},
		TokenType: tokenstore.DPoP, DPoPJKT: fmt.Sprintf("%043d", d[0]), Scopes: []string{"orders:read", "orders:write"},
		CreatedAt: time.Now(), UpdatedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
	}, nil
}

func inventedDigest(i int) (d tokenstore.Digest) {
	binary.BigEndian.PutUint64(d[:], uint64(i)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(d[8:], uint64(i))
	return d
}

func newInventedTokens(b *testing.B, known int, size int64) *cache.Tokens {
	c, err := cache.NewTokens(inventedStore{known}, cache.TokensOptions{MaxSize: size, TTL: time.Hour, NegativeTTL: 2 * time.Second, Timeout: time.Second})
	require.NoError(b, err)
	return c
}

func tokensRow(b *testing.B, count int) string {
	before, _, _ := heapInUse()
	c := newInventedTokens(b, count, 4<<30)
	defer c.Close()
	empty, _, _ := heapInUse()
	look := func() time.Duration {
		began := time.Now()
		for i := range count {
			_, err := c.Lookup(context.Background(), inventedDigest(i))
			require.NoError(b, err)
		}
		return time.Since(began) / time.Duration(count)
	}
	look()
	look() // those that were dropped for a full buffer
	seen := c.Stats().Hits
	each := look()
	held := c.Stats().Hits - seen
	after, took, pause := heapInUse()
	runtime.KeepAlive(c)
	return fmt.Sprintf("%d\t%.0f\t%s\t%s\t%v\t %d held; %.1f MiB when empty", count, float64(after-empty)/float64(held), brief(took), brief(pause), each, held, float64(empty-before)/(1<<20))
}

// floodedHits is how many lookups of a hot set are answered from memory while unknown tokens come in.
func floodedHits(b *testing.B) float64 {
	const hot, rounds, flood = 10_000, 5, 20
	c := newInventedTokens(b, hot, 64<<20)
	defer c.Close()
	hits, unknown := uint64(0), hot
	for round := range rounds {
		for i := range hot {
			before := c.Stats().Hits
			_, err := c.Lookup(context.Background(), inventedDigest(i))
			require.NoError(b, err)
			if round > 0 {
				hits += c.Stats().Hits - before
			}
			for range flood {
				unknown++
				_, err := c.Lookup(context.Background(), inventedDigest(unknown))
				require.ErrorIs(b, err, tokenstore.ErrNotFound)
			}
		}
	}
	return float64(hits) / (hot * (rounds - 1))
}

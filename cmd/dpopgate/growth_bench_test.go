package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// variant is a gateway whose load or config differs from the usual one.
type variant struct {
	name    string
	load    func(*benchLoad)
	adapt   func(testing.TB, *benchRig, *benchPart) // its config
	pick    func(*benchRig) func() (*benchClient, string)
	warmUp  int
	refused bool // the requests have tokens that nobody has issued
}

// BenchmarkGrowth is what a checked request costs by all that can grow or be chosen, each table as ratios to a plain proxy
// in the same rounds.
func BenchmarkGrowth(b *testing.B) {
	flags := readBenchFlags(b)
	if !flags.growth {
		b.Skip("./test bench --growth")
	}
	cores := splitCores(allowedCores())
	if cores.load != nil {
		back, err := stayOn(cores.load)
		require.NoError(b, err)
		b.Cleanup(back)
	}
	run := func(title string, variants ...variant) { raceVariants(b, title, flags, cores, variants) }

	run("unknown tokens", variant{name: "checked"}, variant{name: "refused: the token is unknown", refused: true})
	var algorithms []variant
	for _, alg := range []dpop.Algorithm{dpop.ES256, dpop.ES384, dpop.ES512, dpop.EdDSA, dpop.PS256, dpop.RS256} {
		algorithms = append(algorithms, variant{name: string(alg), load: func(o *benchLoad) { o.alg, o.keys = alg, 10 }})
	}
	run("algorithms, 10 keys", algorithms...)
	run("keys", each([]int{1, 100, 10_000}, func(n int) variant {
		return variant{name: fmt.Sprint(n), load: func(o *benchLoad) { o.keys = n }}
	})...)
	run("tokens looked up in the embedded store", each([]int{0, 1, 10, 100}, func(percent int) variant {
		return variant{name: fmt.Sprint(percent, " %"), load: func(o *benchLoad) { o.missRatio = float64(percent) / 100 }}
	})...)
	run("used proofs in", variant{name: "memory"}, variant{name: "Redis", load: func(o *benchLoad) { o.replay = os.Getenv("DPOPGATE_TEST_REDIS") }},
		variant{name: "Postgres", load: func(o *benchLoad) { o.replay = "postgres" }, adapt: onPostgres(0, 0)})
	run("over TLS, beside a plain proxy over TLS", variant{name: "HTTP/1.1", load: func(o *benchLoad) { o.tls = true }})
	run("over HTTP/2, beside a plain proxy over HTTP/2", variant{name: "HTTP/2", load: func(o *benchLoad) { o.tls, o.http2 = true, true }})
	run("routes", each([]int{2, 100, 10_000}, func(n int) variant { return variant{name: fmt.Sprint(n), adapt: withRoutes(n)} })...)
	live, rows := []int{100, 10_000, 100_000}, []int{10_000, 100_000, 1_000_000}
	if flags.huge {
		live, rows = append(live, 1_000_000), append(rows, 10_000_000)
	}
	run("live tokens in the cache", each(live, func(n int) variant {
		return variant{name: fmt.Sprint(n), adapt: onPostgres(n, 0, "cache: {ttl: 1h, max_size: 2GiB}"), pick: liveTokens(n), warmUp: 2 * n}
	})...)
	run("rows in the table, every token looked up there", each(rows, func(n int) variant {
		return variant{name: fmt.Sprint(n), adapt: onPostgres(10_000, n-10_000, "cache: {ttl: 0s}"), pick: liveTokens(10_000)}
	})...)
	lightLoad(b, flags, cores)
}

func each(counts []int, of func(int) variant) []variant {
	var all []variant
	for _, n := range counts {
		all = append(all, of(n))
	}
	return all
}

// startVariant starts the gateway of a variant, and a plain proxy before the same upstream.
func startVariant(b *testing.B, v variant, flags benchFlags, cores benchCores) (g *benchRig, plain, checked *lane) {
	b.Helper()
	load := benchLoad{alg: "ES256", keys: 100, connections: 32, requests: flags.requests, replay: "memory"}
	if v.load != nil {
		v.load(&load)
	}
	g, err := newBenchRig(b.Context(), benchProgram(b), cores, load, &progress{})
	b.Cleanup(g.close)
	require.NoError(b, err)
	proxy, err := g.start(benchProgram(b), cores.server, g.plainPart())
	require.NoError(b, err)
	part := g.gatewayPart()
	if v.adapt != nil {
		v.adapt(b, g, &part)
	}
	gateway, err := g.start(benchProgram(b), cores.server, part)
	require.NoError(b, err)
	plain = g.lane("plain ReverseProxy", g.at(proxy, "/plain"), proxy.usage, false, true)
	if v.refused {
		return g, plain, g.refusedLane(v.name, gateway)
	}
	checked = g.lane(v.name, g.at(gateway, "/checked"), gateway.usage, true, false)
	if v.pick != nil {
		pick, want := v.pick(g), func(c *benchClient) answered { return answered{200, upstreamBody(c.subject.String(), false)} }
		checked.load = func(ctx context.Context, n int) ([]shot, error) { return signShots(ctx, checked.to, n, pick, want) }
		checked.warm, checked.warmUp = checked.load, max(v.warmUp, g.round())
	}
	return g, plain, checked
}

// raceVariants prints a table of the variants, the plain proxy first.
func raceVariants(b *testing.B, title string, flags benchFlags, cores benchCores, variants []variant) {
	b.Run(strings.Fields(title)[0], func(b *testing.B) {
		var lanes []*lane
		requests, rounds, connections := 0, 0, 0
		for i, v := range variants {
			g, plain, checked := startVariant(b, v, flags, cores)
			if i == 0 {
				lanes = append(lanes, plain)
			}
			lanes = append(lanes, checked)
			requests, rounds, connections = g.round(), g.rounds(), g.connections
		}
		require.NoError(b, race(b.Context(), lanes, rounds, requests, connections, time.Now().Add(benchTime), func(int, string) {}))
		fmt.Printf("\n%s\n\n", title)
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(w, benchHeads)
		for _, r := range results(lanes) {
			fmt.Fprintln(w, r.cells())
		}
		w.Flush()
	})
}

// withRoutes gives a gateway that many routes.
func withRoutes(count int) func(testing.TB, *benchRig, *benchPart) {
	return func(_ testing.TB, _ *benchRig, p *benchPart) {
		var b strings.Builder
		for i := range count - 2 {
			fmt.Fprintf(&b, "  - {match: \"GET /api/v1/resource%d/{id}/items\", upstream: \"${BENCH_UPSTREAM}\", scopes: [%s]}\n", i, benchScope)
		}
		p.Config += b.String()
	}
}

// onPostgres has a gateway look into a table with tokens that liveTokens picks from, and with rows of others.
func onPostgres(live, others int, config ...string) func(testing.TB, *benchRig, *benchPart) {
	return func(t testing.TB, g *benchRig, p *benchPart) {
		dsn := tokenstoretest.Postgres(t)
		store, err := tokenstore.OpenPostgres(t.Context(), dsn, tokenstore.PostgresOptions{Timeout: time.Minute})
		require.NoError(t, err)
		t.Cleanup(func() { store.Close() })
		require.NoError(t, store.Migrate(t.Context()))
		var users, jkts []string
		for _, c := range g.clients {
			users, jkts = append(users, c.subject.String()), append(jkts, string(c.key.Thumbprint()))
		}
		array := func(words []string) string { return "ARRAY['" + strings.Join(words, "','") + "']" }
		tokenstoretest.Exec(t, dsn, fmt.Sprintf("INSERT INTO oauth_clients VALUES ('%s')", demoClient),
			fmt.Sprintf("INSERT INTO users SELECT unnest(%s::uuid[])", array(users)),
			fmt.Sprintf(`INSERT INTO oauth_access_tokens (digest, client_id, user_id, token_type, dpop_jkt, scopes, expires_at)
				SELECT sha256(('live' || i)::bytea), '%s', (%s::uuid[])[1 + i %% %d], 'DPoP', (%s)[1 + i %% %d], '{%s}', now() + interval '1 day'
				FROM generate_series(1, %d) AS i`, demoClient, array(users), len(users), array(jkts), len(jkts), benchScope, live))
		const batch = 500_000 // tokenstoretest has bounded patience
		for from := 0; from < others; from += batch {
			tokenstoretest.Exec(t, dsn, fmt.Sprintf(`INSERT INTO oauth_access_tokens (digest, client_id, scopes, expires_at)
				SELECT sha256(('other' || i)::bytea), '%s', '{%s}', now() + interval '1 day' FROM generate_series(%d, %d) AS i`,
				demoClient, benchScope, from, min(from+batch, others)-1))
		}
		tokenstoretest.Exec(t, dsn, "ANALYZE")
		for _, c := range g.clients {
			require.NoError(t, store.Insert(t.Context(), c.record(c.token, benchTokenLife)))
		}
		if g.replay == "postgres" {
			proofs, err := cache.OpenPostgresProofs(dsn, cache.PostgresProofsOptions{TokenTable: "public.oauth_access_tokens", Timeout: time.Minute})
			require.NoError(t, err)
			t.Cleanup(func() { proofs.Close() })
			require.NoError(t, proofs.Migrate(t.Context()))
		}
		p.Variables["BENCH_DSN"] = dsn
		p.Config = strings.Replace(p.Config, `store: {sqlite: "${BENCH_STORE}", timeout: 5s}`, `store: {postgres: "${BENCH_DSN}", timeout: 5s}`+"\n"+strings.Join(config, "\n"), 1)
	}
}

// liveTokens picks the tokens of onPostgres in turn.
func liveTokens(live int) func(*benchRig) func() (*benchClient, string) {
	return func(g *benchRig) func() (*benchClient, string) {
		i := 0
		return func() (*benchClient, string) {
			i = i%live + 1
			return g.clients[i%len(g.clients)], fmt.Sprint("live", i)
		}
	}
}

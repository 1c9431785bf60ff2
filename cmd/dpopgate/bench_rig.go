package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// benchLoad is what a bench sends, and how.
type benchLoad struct {
	alg         dpop.Algorithm
	keys        int // and as many clients, each with a token
	connections int
	requests    int // of each row, in all
	tls, http2  bool
	replay      string  // as dpop.replay has it
	missRatio   float64 // how many of the checked requests come with a token that was not seen before
}

// All rows take turns in rounds. There are at least benchRounds, and none is longer than maxRound: proofs are good for a
// minute from when they were signed.
const (
	benchRounds = 20
	maxRound    = 5000
)

// round is how many requests one is.
func (o *benchLoad) round() int { return min(max(o.requests/benchRounds, 1), maxRound) }

// rounds is how many there are.
func (o *benchLoad) rounds() int { return max(o.requests/o.round(), 1) }

// protocol is how requests are sent, for people.
func (o *benchLoad) protocol() string {
	switch {
	case o.http2:
		return "HTTP/2 over TLS"
	case o.tls:
		return "HTTP/1.1 over TLS"
	default:
		return "HTTP/1.1"
	}
}

// benchCores says where processes run: the servers on one core, and the load with the upstream on the others.
type benchCores struct{ server, load []int }

func splitCores(all []int) benchCores {
	if len(all) < 2 {
		return benchCores{}
	}
	return benchCores{server: all[len(all)-1:], load: all[:len(all)-1]}
}

// String is for people.
func (c benchCores) String() string {
	if c.server == nil {
		return "not pinned: the server shares its cores with the load"
	}
	return fmt.Sprintf("server on core %d, load and upstream on %s", c.server[0], strings.Trim(fmt.Sprint(c.load), "[]"))
}

// benchRig is an upstream, a gateway and a plain proxy before it, each a process of its own.
type benchRig struct {
	benchLoad
	folder   string
	clients  []*benchClient
	root     *x509.CertPool
	upstream *benchProcess
	closes   []func()

	turn      int      // counts what known has picked
	fresh     []string // tokens to be missed, which the clients have in turn
	missCount int      // of those that were used
	owed      float64
}

// newBenchRig makes the keys and the store, and starts the upstream. The rig has to be closed also when there is an
// error.
func newBenchRig(ctx context.Context, program string, cores benchCores, o benchLoad, bar *progress) (*benchRig, error) {
	g := &benchRig{benchLoad: o}
	var err error
	if g.folder, err = os.MkdirTemp("", "dpopgate-bench-"); err != nil {
		return g, fmt.Errorf("making a temporary folder: %w", err)
	}
	g.closes = append(g.closes, func() { os.RemoveAll(g.folder) })
	if g.clients, err = newBenchClients(ctx, o.alg, o.keys, func(n int) { bar.at(n, o.keys, "making keys") }); err != nil {
		return g, fmt.Errorf("making keys: %w", err)
	}
	if err := g.fillStore(ctx, bar); err != nil {
		return g, err
	}
	if o.tls {
		ca, err := openLocalCA(filepath.Join(g.folder, "ca"), time.Now)
		if err != nil {
			return g, err
		}
		g.root = x509.NewCertPool()
		g.root.AddCert(ca.root)
	}
	g.upstream, err = g.start(program, cores.load, benchPart{Role: "upstream"})
	return g, err
}

func (g *benchRig) close() {
	for i := range g.closes {
		g.closes[len(g.closes)-1-i]()
	}
}

// start starts a process that ends with the rig.
func (g *benchRig) start(program string, cores []int, part benchPart) (*benchProcess, error) {
	p, err := startPart(program, cores, part)
	if err == nil {
		g.closes = append(g.closes, p.close)
	}
	return p, err
}

func (g *benchRig) store() string { return filepath.Join(g.folder, "tokens.db") }

// fillStore inserts a token for each client, and those that are to be missed.
func (g *benchRig) fillStore(ctx context.Context, bar *progress) error {
	store, err := tokenstore.OpenSQLite(ctx, g.store(), tokenstore.SQLiteOptions{})
	if err != nil {
		return err
	}
	defer store.Close()
	misses := int(g.missRatio*float64(g.round()*g.rounds())) + 1
	if g.missRatio == 0 {
		misses = 0
	}
	total := len(g.clients) + misses
	for i := range total {
		bar.at(i, total, "inserting tokens")
		c := g.clients[i%len(g.clients)]
		token := c.token
		if i >= len(g.clients) {
			token = string(tokenstore.NewToken())
			g.fresh = append(g.fresh, token)
		}
		if err := store.Insert(ctx, c.record(token, benchTokenLife)); err != nil {
			return err
		}
	}
	return nil
}

const benchTokenLife = 24 * time.Hour

// gatewayPart is a gateway before the upstream: /checked wants a token and a proof, and /public nothing.
func (g *benchRig) gatewayPart() benchPart {
	replay, _ := json.Marshal(g.replay) // which is a string in YAML, too
	scheme, listen, certificates := "http", "http", ""
	if g.tls {
		scheme, listen = "https", `http: "", https`
		certificates = `tls: {internal: true, internal_storage: "${BENCH_CA}"}`
	}
	return benchPart{
		Role: "gateway",
		Config: fmt.Sprintf(`
public_urls: ["%s://localhost:${BENCH_PORT}"]
listen: {%s: "127.0.0.1:${BENCH_PORT}", admin: ""}
%s
store: {sqlite: "${BENCH_STORE}", timeout: 5s}
dpop: {algorithms: [%s], replay: %s}
log: {access: false}
routes:
  - {match: GET /checked, upstream: "${BENCH_UPSTREAM}", scopes: [%s]}
  - {match: GET /public, upstream: "${BENCH_UPSTREAM}", public: true}
`, scheme, listen, certificates, g.alg, replay, benchScope),
		Variables: map[string]string{
			"BENCH_STORE":    g.store(),
			"BENCH_CA":       filepath.Join(g.folder, "ca"),
			"BENCH_UPSTREAM": "http://" + g.upstream.address,
		},
	}
}

// plainPart is a proxy before the upstream that checks nothing.
func (g *benchRig) plainPart() benchPart {
	p := benchPart{Role: "plain", Upstream: "http://" + g.upstream.address}
	if g.tls {
		p.CA = filepath.Join(g.folder, "ca")
	}
	return p
}

// at is where a server of the rig answers at a path.
func (g *benchRig) at(p *benchProcess, path string) address {
	_, port, _ := strings.Cut(p.address, ":")
	a := address{url: &url.URL{Scheme: "http", Host: "localhost:" + port, Path: path}, http2: g.http2}
	if g.tls {
		a.url.Scheme, a.tls = "https", &tls.Config{RootCAs: g.root}
	}
	return a
}

// lane is a row for a server before the upstream of the rig that lets all requests through. Where they are checked, the
// upstream hears who calls; it sees their credentials unless the server takes them away.
func (g *benchRig) lane(name string, to address, used func() (usage, error), checked, shown bool) *lane {
	want := func(c *benchClient) answered {
		if checked {
			return answered{http.StatusOK, upstreamBody(c.subject.String(), shown)}
		}
		return answered{http.StatusOK, upstreamBody("", shown)}
	}
	pick := g.known
	if checked && g.missRatio > 0 {
		pick = g.missed
	}
	return &lane{
		name:    name,
		to:      to,
		usage:   used,
		load:    func(ctx context.Context, n int) ([]shot, error) { return signShots(ctx, to, n, pick, want) },
		warm:    func(ctx context.Context, n int) ([]shot, error) { return signShots(ctx, to, n, g.known, want) },
		warmUp:  max(4*len(g.clients), g.round()), // each key has come several times
		seen:    g.seen,
		forward: true,
	}
}

// refusedLane is a row for requests with good proofs and tokens that nobody has issued.
func (g *benchRig) refusedLane(name string, p *benchProcess) *lane {
	to := g.at(p, "/checked")
	want := func(*benchClient) answered { return answered{status: http.StatusUnauthorized} }
	unknown := func() (*benchClient, string) {
		c, _ := g.known()
		return c, string(tokenstore.NewToken())
	}
	sign := func(ctx context.Context, n int) ([]shot, error) { return signShots(ctx, to, n, unknown, want) }
	return &lane{name: name, to: to, usage: p.usage, load: sign, warm: sign, warmUp: g.round(), seen: g.seen}
}

func (g *benchRig) seen() (uint64, error) {
	used, err := g.upstream.usage()
	return used.Seen, err
}

// known is the next client, with its token.
func (g *benchRig) known() (*benchClient, string) {
	g.turn++
	c := g.clients[g.turn%len(g.clients)]
	return c, c.token
}

// missed is known, but for missRatio of the calls the token is one that no request has come with yet.
func (g *benchRig) missed() (*benchClient, string) {
	if g.owed += g.missRatio; g.owed < 1 || g.missCount == len(g.fresh) {
		return g.known()
	}
	g.owed--
	g.missCount++
	return g.clients[(g.missCount-1)%len(g.clients)], g.fresh[g.missCount-1]
}

// signShots makes shots, with a fresh proof each; those without a token are sent without credentials.
func signShots(ctx context.Context, to address, count int, pick func() (*benchClient, string), want func(*benchClient) answered) ([]shot, error) {
	shots, clients := make([]shot, count), make([]*benchClient, count)
	for i := range shots {
		clients[i], shots[i].token = pick()
		shots[i].want = want(clients[i])
	}

	target := to.url.Scheme + "://" + to.url.Host + to.url.EscapedPath()
	return shots, inParallel(ctx, count, func(int) {}, func(i int) (err error) {
		if shots[i].token == "" {
			return nil
		}
		shots[i].proof, err = clients[i].key.Sign(dpop.Claims{Method: http.MethodGet, URL: target, Token: shots[i].token})
		return err
	})
}

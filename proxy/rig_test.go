package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// start is the time at which every rig begins, so that vectors can be written down.
var start = time.Unix(1795474889, 0)

// rig is a gateway on a real listener with an upstream that counts, a store, and a clock of its own.
type rig struct {
	t       testing.TB
	gateway *proxy.Gateway
	server  *httptest.Server
	rows    *rows
	proofs  *cache.Proofs
	config  *config.Config
	logger  *slog.Logger
	api     string       // the upstream's URL
	offset  atomic.Int64 // of the clock from start, in nanoseconds
	live    atomic.Bool  // the clock is the machine's

	mu     sync.Mutex
	seen   []*http.Request // what the upstream saw, bodies read
	bodies []string
	events []proxy.Event
	heard  sync.Cond    // that there is another event
	log    bytes.Buffer // everything that was logged, and every event as a log would have it
	reply  http.HandlerFunc
	intake func(*http.Request) // reads a request's body; nil: it is read and kept
}

func (g *rig) now() time.Time {
	if g.live.Load() {
		return time.Now()
	}
	return start.Add(time.Duration(g.offset.Load()))
}

// upstream answers for the legacy API and remembers.
func (g *rig) upstream(w http.ResponseWriter, r *http.Request) {
	if g.intake != nil {
		g.intake(r)
	}
	body, _ := io.ReadAll(r.Body)
	g.mu.Lock()
	g.seen = append(g.seen, r)
	g.bodies = append(g.bodies, string(body))
	reply := g.reply
	g.mu.Unlock()
	if reply != nil {
		reply(w, r)
		return
	}
	io.WriteString(w, "legacy\n")
}

// count is how many requests the upstream has seen.
func (g *rig) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.seen)
}

// last is the latest request that the upstream saw.
func (g *rig) last() *http.Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen[len(g.seen)-1]
}

// event is the latest event.
func (g *rig) event() proxy.Event {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.events[len(g.events)-1]
}

// told is how many events there are.
func (g *rig) told() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.events)
}

// eventAfter is the latest event if there are more than n. net/http tells nothing of what it refuses by itself.
func (g *rig) eventAfter(n int) (e proxy.Event) {
	if g.told() > n {
		e = g.event()
	}
	return e
}

// newRig starts a gateway with the config of testdata/vectors/rigs/NAME.yaml.
func newRig(t *testing.T, name string, changes ...func(o *proxy.Options)) *rig {
	data, err := os.ReadFile("../testdata/vectors/rigs/" + name + ".yaml")
	require.NoError(t, err)
	return newRigFrom(t, name, data, changes...)
}

// newRigFrom starts a gateway with a config in which ${UPSTREAM} and ${GATEWAY} are URLs.
func newRigFrom(t testing.TB, name string, yaml []byte, changes ...func(o *proxy.Options)) *rig {
	g := &rig{t: t, rows: &rows{byDigest: map[tokenstore.Digest]*tokenstore.Record{}}}
	g.heard.L = &g.mu
	up := httptest.NewServer(http.HandlerFunc(g.upstream))
	t.Cleanup(up.Close)
	g.api = up.URL
	g.server = httptest.NewUnstartedServer(nil)
	names := map[string]string{"UPSTREAM": up.URL, "GATEWAY": "http://" + g.server.Listener.Addr().String()}
	c, err := config.Parse(name+".yaml", yaml, func(key string) (string, bool) { v, ok := names[key]; return v, ok })
	require.NoError(t, err)
	g.logger = slog.New(slog.NewJSONHandler(writerFunc(func(b []byte) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.log.Write(b)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	g.proofs = cache.NewProofs(8<<20, g.now)
	g.config = c
	o := g.options()
	for _, change := range changes {
		change(&o)
	}
	g.begin(o)
	return g
}

// options are those of a gateway on the rig's table and used proofs.
func (g *rig) options() proxy.Options {
	return proxy.Options{
		Tokens:  g.rows,
		Replay:  g.proofs,
		Headers: cache.NewHeaders(cache.HeadersOptions{Tables: true, Log: g.logger, Now: g.now}),
		Now:     g.now,
		Log:     g.logger,
		Events: func(e *proxy.Event) {
			g.logger.Info("event", "event", fmt.Sprintf("%+v", *e))
			g.mu.Lock()
			defer g.mu.Unlock()
			g.events = append(g.events, *e)
			g.heard.Broadcast()
		},
	}
}

// eventOf waits for the event of a response: that of a forwarded one comes after its last byte.
func (g *rig) eventOf(res *http.Response) proxy.Event {
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		for _, e := range g.events {
			if e.RequestID == res.Header.Get("X-Request-Id") {
				return e
			}
		}
		g.heard.Wait()
	}
}

// begin starts the gateway on the rig's listener.
func (g *rig) begin(o proxy.Options) {
	var err error
	g.gateway, err = proxy.New(g.config, o)
	require.NoError(g.t, err)
	g.t.Cleanup(g.gateway.Close)
	g.server.Config.Handler = g.gateway
	g.server.Config.DisableGeneralOptionsHandler = true
	g.server.Config.MaxHeaderBytes = 64 << 10
	g.server.Start()
	g.t.Cleanup(g.server.Close)
}

// sibling is another instance of a fleet: the same config, table, upstream and used proofs, and a clock of its own,
// which is ahead of g's. Change o's fields in change, which may be nil.
func (g *rig) sibling(ahead time.Duration, change func(o *proxy.Options)) *rig {
	s := &rig{t: g.t, rows: g.rows, proofs: g.proofs, config: g.config, logger: g.logger}
	s.offset.Store(g.offset.Load() + int64(ahead))
	s.heard.L = &s.mu
	s.server = httptest.NewUnstartedServer(nil)
	o := s.options()
	if change != nil {
		change(&o)
	}
	s.begin(o)
	return s
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

// raw sends bytes over a socket of their own, with no client's help, and reads one answer. The body is read whole.
func (g *rig) raw(method, text string) *http.Response {
	conn, err := net.Dial("tcp", g.server.Listener.Addr().String())
	require.NoError(g.t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = io.WriteString(conn, text)
	require.NoError(g.t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	require.NoError(g.t, err, "%.300q", text)
	body, err := io.ReadAll(res.Body)
	require.NoError(g.t, err)
	if res.Close {
		io.Copy(io.Discard, conn) // until the server is done with the request, and has told of it
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res
}

// rows is the token table of a rig. It is a map and not one of the stores, since many rows here are such as a table
// with its checks would never hold.
type rows struct {
	mu       sync.Mutex
	byDigest map[tokenstore.Digest]*tokenstore.Record
	fail     error
	lookups  int
}

func (r *rows) Lookup(_ context.Context, d tokenstore.Digest) (*tokenstore.Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookups++
	if r.fail != nil {
		return nil, r.fail
	}
	if rec := r.byDigest[d]; rec != nil {
		return rec, nil
	}
	return nil, tokenstore.ErrNotFound
}

func (r *rows) put(token string, rec tokenstore.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec.Digest = tokenstore.Digester{}.Digest(tokenstore.Token(token))
	r.byDigest[rec.Digest] = &rec
}

func (r *rows) drop(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byDigest, tokenstore.Digester{}.Digest(tokenstore.Token(token)))
}

var (
	aClient = uuid.MustParse("6f1c1c6e-7d5b-4d0a-9c55-0f2f4e3f0a01")
	aUser   = uuid.MustParse("0b9a3a52-30a4-4c0e-8b5a-2a5ad25e7e02")
)

// bound is the row of a live token that is bound to a key.
func bound(jkt dpop.Thumbprint, scopes ...string) tokenstore.Record {
	return tokenstore.Record{
		JTI: uuid.MustParse("7d4f6c1a-55a1-4e8e-9a2c-6f0c8a1b0003"), ClientID: aClient,
		UserID:    uuid.NullUUID{UUID: aUser, Valid: true},
		TokenType: tokenstore.DPoP, DPoPJKT: string(jkt), Scopes: scopes,
		Metadata: []byte(`{}`), CreatedAt: start.Add(-time.Minute), UpdatedAt: start.Add(-time.Minute),
		ExpiresAt: start.Add(10 * time.Minute),
	}
}

// fields are header lines in the order sent.
type fields []string

func (f fields) drop(name string) fields {
	var kept fields
	for _, line := range f {
		if n, _, _ := strings.Cut(line, ":"); !strings.EqualFold(n, name) {
			kept = append(kept, line)
		}
	}
	return kept
}

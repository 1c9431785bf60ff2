package proxy

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dpopgate/dpopgate/config"
)

// upstream is a pool of servers that serve the same, with connections of its own: one that hangs cannot take another
// one's.
type upstream struct {
	name      string // as routes name it
	made      source
	headers   map[string]string
	proxy     *httputil.ReverseProxy
	transport *http.Transport
	http1     atomic.Bool // known not to speak HTTP/2
	health    *config.Health
	leastConn bool
	patience  time.Duration // for the one request that tries a target that failed
	log       *slog.Logger
	now       func() time.Time
	targets   []*target

	mu   sync.Mutex // guards turn, and how the targets are doing
	turn int        // of choices, for who is the next among equals

	stop   context.CancelFunc // of the health checks; nil: none are running. Gateway.mu guards it
	checks sync.WaitGroup
}

// source is what an upstream was made from: a reload that changes nothing of it keeps the upstream, and so its
// connections and what is known about its targets.
type source struct {
	config config.Upstream
	files  [32]byte
}

func (s source) equal(o source) bool {
	return s.files == o.files && reflect.DeepEqual(s.config, o.config)
}

// compileUpstreams makes the pools: those with a name, and one for each URL that a route gives outright.
func (t *table) compileUpstreams(c *config.Config, o Options, before *table) error {
	t.pools = map[string]*upstream{}
	for name, cu := range c.Upstreams {
		u, err := newUpstream(name, cu, o, before)
		if err != nil {
			return fmt.Errorf("upstreams.%s: %w", name, err)
		}
		t.pools[name] = u
	}
	for _, cr := range c.Routes {
		if t.pools[cr.Upstream] != nil || !strings.Contains(cr.Upstream, "://") {
			continue
		}
		cu := config.DefaultUpstream()
		cu.Targets = []string{cr.Upstream}
		u, err := newUpstream(cr.Upstream, cu, o, before)
		if err != nil {
			return fmt.Errorf("route %q: upstream: %w", cr.Match, err)
		}
		t.pools[cr.Upstream] = u
	}
	return nil
}

// newUpstream makes an upstream, or takes the one that before has when it would be the same.
func newUpstream(name string, c config.Upstream, o Options, before *table) (*upstream, error) {
	tlsConfig, files, err := readUpstreamTLS(c.TLS)
	if err != nil {
		return nil, err
	}
	made := source{c, files}
	if before != nil && before.pools[name] != nil && before.pools[name].made.equal(made) {
		return before.pools[name], nil
	}
	u := &upstream{
		name:      name,
		made:      made,
		headers:   map[string]string{},
		health:    c.Health,
		leastConn: c.Balance == "least_conn",
		patience:  max(c.ConnectTimeout.Std(), firstBench),
		log:       o.Log,
		now:       o.Now,
	}
	for header, value := range c.Headers {
		u.headers[header] = string(value)
	}
	secure := false
	for _, text := range c.Targets {
		t, err := newTarget(text)
		if err != nil {
			return nil, fmt.Errorf("targets: %q: %w", text, err)
		}
		secure = secure || t.scheme == "https"
		u.targets = append(u.targets, t)
	}
	if len(u.targets) == 0 {
		return nil, errors.New("targets: want at least one")
	}
	u.http1.Store(!secure && !c.H2C)
	u.transport = u.newTransport(c, tlsConfig)
	u.proxy = &httputil.ReverseProxy{
		Rewrite:        rewrite,
		ModifyResponse: modifyResponse,
		ErrorHandler:   upstreamFailed,
		Transport:      u,
		BufferPool:     &buffers,
		FlushInterval:  flushDelay,
		ErrorLog:       log.New(quietWriter{o.Log}, "", 0),
	}
	return u, nil
}

// watch starts the health checks that are not running.
func (t *table) watch() {
	for _, u := range t.pools {
		u.watch()
	}
}

// close ends the upstreams of a table, nil for none, that the next one does not have.
func (t *table) close(next *table) {
	if t == nil {
		return
	}
	for name, u := range t.pools {
		if next == nil || next.pools[name] != u {
			u.close()
		}
	}
}

// String says how a pool is set up, for the route table.
func (u *upstream) String() string {
	var parts []string
	if n := len(u.targets); n > 1 {
		parts = append(parts, fmt.Sprintf("%d targets by %s", n, u.made.config.Balance))
	}
	if u.health != nil {
		parts = append(parts, "checked at "+u.health.Path)
	}
	if u.made.config.H2C {
		parts = append(parts, "h2c")
	}
	if c := u.made.config.TLS; c != nil && c.CertFile != "" {
		parts = append(parts, "with a client certificate")
	}
	if parts == nil {
		return u.name
	}
	return u.name + " (" + strings.Join(parts, ", ") + ")"
}

// flushDelay is how long what an upstream has written of a body may wait for more of it. It holds where the length of the
// body is known: nearly all such answers are complete at once, and leave in one write instead of three. Events, and
// whatever else has no length, do not wait.
const flushDelay = 5 * time.Millisecond

// buffers is the memory that bodies are copied through.
var buffers bufferPool

type bufferPool struct{ pool sync.Pool }

const bufferSize = 32 << 10

func (b *bufferPool) Get() []byte {
	if p, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return p[:]
	}
	return make([]byte, bufferSize)
}

func (b *bufferPool) Put(buf []byte) {
	if len(buf) == bufferSize {
		b.pool.Put((*[bufferSize]byte)(buf))
	}
}

// quietWriter takes what net/http logs by itself. It may hold bytes that a peer chose, so it goes out as one quoted
// attribute, at debug level.
type quietWriter struct{ log *slog.Logger }

func (q quietWriter) Write(b []byte) (int, error) {
	q.log.Debug("transport", "said", strings.TrimSpace(string(b)))
	return len(b), nil
}

package proxy

import (
	"crypto/tls"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/dpopgate/dpopgate/config"
)

// upstream is a server behind the gateway, with connections and limits of its own: one that hangs cannot take another
// one's.
type upstream struct {
	name    string // as routes name it
	scheme  string
	host    string
	base    string // path prefix, without a trailing slash
	headers map[string]string
	proxy   *httputil.ReverseProxy
}

// Bounds of the connections to one upstream.
const (
	maxIdlePerHost = 1024             // as many as run at a time stay open
	idleTimeout    = 30 * time.Second // below what servers use, so that we are the one to close
	maxAnswerBytes = 256 << 10        // of a response header
)

// compileUpstreams makes the pools: those with a name, and one for each URL that a route gives outright.
func (t *table) compileUpstreams(c *config.Config, o Options) error {
	t.pools = map[string]*upstream{}
	for name, cu := range c.Upstreams {
		if len(cu.Targets) != 1 {
			return fmt.Errorf("upstreams.%s: exactly one target is supported", name)
		}
		u, err := newUpstream(name, cu.Targets[0], cu, t.identity, o)
		if err != nil {
			return fmt.Errorf("upstreams.%s: %w", name, err)
		}
		t.pools[name] = u
	}
	for _, cr := range c.Routes {
		if t.pools[cr.Upstream] != nil || !strings.Contains(cr.Upstream, "://") {
			continue
		}
		u, err := newUpstream(cr.Upstream, cr.Upstream, config.DefaultUpstream(), t.identity, o)
		if err != nil {
			return fmt.Errorf("route %q: upstream: %w", cr.Match, err)
		}
		t.pools[cr.Upstream] = u
	}
	return nil
}

func newUpstream(name, target string, c config.Upstream, id *identity, o Options) (*upstream, error) {
	at, err := url.Parse(target)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return nil, fmt.Errorf("%q is not an http or https URL", target)
	}
	u := &upstream{
		name:    name,
		scheme:  at.Scheme,
		host:    at.Host,
		base:    strings.TrimSuffix(at.EscapedPath(), "/"),
		headers: map[string]string{},
	}
	for header, value := range c.Headers {
		u.headers[header] = string(value)
	}
	u.proxy = &httputil.ReverseProxy{
		Rewrite:        rewrite,
		ModifyResponse: modifyResponse,
		ErrorHandler:   upstreamFailed,
		Transport:      newTransport(c),
		BufferPool:     &buffers,
		FlushInterval:  -1, // what the upstream has written, the client gets
		ErrorLog:       log.New(quietWriter{o.Log}, "", 0),
	}
	return u, nil
}

// newTransport is a Transport for a proxy: no proxy of its own from the environment, no compression of its own, no
// wait without an end.
func newTransport(c config.Upstream) *http.Transport {
	dialer := &net.Dialer{Timeout: c.ConnectTimeout.Std(), KeepAlive: 15 * time.Second}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    c.ConnectTimeout.Std(),
		ResponseHeaderTimeout:  c.ResponseTimeout.Std(),
		ExpectContinueTimeout:  time.Second,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxAnswerBytes,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
}

// close lets go of the idle connections.
func (u *upstream) close() { u.proxy.Transport.(*http.Transport).CloseIdleConnections() }

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

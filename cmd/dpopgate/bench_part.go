package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/config"
)

// benchPart is what a process of a bench is told: the first line on its stdin. Each line after that asks for its usage,
// and the end of its stdin ends it, so that no part outlives its bench, however that ends.
type benchPart struct {
	Role      string            // gateway, plain or upstream
	Config    string            // of a gateway, which listens on ${BENCH_PORT}
	Variables map[string]string // of that config
	Upstream  string            // of a plain proxy: its URL
	CA        string            // of a plain proxy that serves TLS: the folder of a local CA
}

// started is the first answer of a part.
type startedPart struct {
	Address string
	Error   string
}

// usage is what a process has used since its start.
type usage struct {
	CPU       time.Duration
	Allocs    uint64        // objects allocated; 0: unknown, as are the three below
	Allocated uint64        // bytes allocated
	GCs       uint32        // collections
	Pause     time.Duration // in which collections stopped everything
	Memory    int64         // bytes that are resident; 0: unknown
	Seen      uint64        // requests that an upstream has answered
}

func newBenchPartCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "part",
		Short:   "Play one part of a bench, which tells it on stdin which one",
		Example: `  echo '{"Role":"upstream"}' | dpopgate bench part`,
		Hidden:  true,
		Args:    exactly(0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runPart(cmd.Context(), e) },
	}
}

func runPart(ctx context.Context, e *env) error {
	return playPart(e, func(p *benchPart, l net.Listener) (seen func() uint64, err error) {
		switch p.Role {
		case "gateway":
			return nil, p.serveGateway(ctx, e, l)
		case "plain":
			return nil, p.servePlain(l)
		case "upstream":
			up := &benchUpstream{}
			go up.serve(l)
			return up.seen.Load, nil
		default:
			return nil, fmt.Errorf("no part is called %q", p.Role)
		}
	})
}

// playPart has serve serve on a listener, and then says what this process has used whenever it is asked. An upstream
// also says how many requests it has seen.
func playPart(e *env, serve func(*benchPart, net.Listener) (seen func() uint64, err error)) error {
	orders, answers := json.NewDecoder(e.stdin), json.NewEncoder(e.stdout)
	var p benchPart
	if err := orders.Decode(&p); err != nil {
		return fmt.Errorf("reading which part to play: %w", err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	seen, err := serve(&p, l)
	if err != nil {
		return answers.Encode(startedPart{Error: oneLine(err)})
	}
	if err := answers.Encode(startedPart{Address: l.Addr().String()}); err != nil {
		return err
	}
	var question struct{}
	for orders.Decode(&question) == nil {
		used, err := ownUsage()
		if err != nil {
			return err
		}
		if seen != nil {
			used.Seen = seen()
		}
		if err := answers.Encode(used); err != nil {
			return err
		}
	}
	return nil
}

func ownUsage() (used usage, err error) {
	if used.CPU, err = ownCPU(); err != nil {
		return used, err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	used.Allocs, used.Allocated = m.Mallocs, m.TotalAlloc
	used.GCs, used.Pause = m.NumGC, time.Duration(m.PauseTotalNs)
	used.Memory = residentMemory(os.Getpid())
	return used, nil
}

// serveGateway serves a gateway as serve does.
func (p *benchPart) serveGateway(ctx context.Context, e *env, l net.Listener) error {
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return err
	}
	c, err := config.Parse("bench.yaml", []byte(p.Config), func(name string) (string, bool) {
		if name == "BENCH_PORT" {
			return port, true
		}
		if value, ok := p.Variables[name]; ok {
			return value, true
		}
		return e.lookup(name)
	})
	if err != nil {
		return err
	}
	s, err := newServer(ctx, "bench.yaml", c, nil, e)
	if err != nil {
		return err
	}
	s.await(ctx, nil)
	for _, served := range s.servers() {
		if served.address == l.Addr().String() {
			go (&listener{Listener: l, key: served.key, server: served.server}).serve()
			return nil
		}
	}
	return fmt.Errorf("the config does not listen on 127.0.0.1:${BENCH_PORT}")
}

// newPlainProxy is a ReverseProxy that checks nothing, tuned as the gateway's own is.
func newPlainProxy(up *url.URL) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(up) },
		Transport:  &http.Transport{MaxIdleConnsPerHost: 1024, IdleConnTimeout: 30 * time.Second, DisableCompression: true},
		BufferPool: &copyBuffers{sync.Pool{New: func() any { return new([32 << 10]byte) }}},
		ErrorLog:   log.New(io.Discard, "", 0),
	}
}

// servePlain serves a plain proxy.
func (p *benchPart) servePlain(l net.Listener) error {
	up, err := url.Parse(p.Upstream)
	if err != nil {
		return err
	}
	proxy := newPlainProxy(up)
	limits, quiet := config.Limits{HeaderBytes: 32 << 10}, slog.New(slog.DiscardHandler)
	server := newHTTPServer(proxy, limits, quiet, "bench")
	if p.CA != "" {
		ca, err := openLocalCA(p.CA, time.Now)
		if err != nil {
			return err
		}
		server = newHTTPSServer(proxy, &tls.Config{
			GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.certificate(hello, "localhost") },
		}, limits, quiet)
	}
	go (&listener{Listener: l, key: "bench", server: server}).serve()
	return nil
}

// copyBuffers is a pool of the buffers that bodies are copied with.
type copyBuffers struct{ pool sync.Pool }

func (b *copyBuffers) Get() []byte  { return b.pool.Get().(*[32 << 10]byte)[:] }
func (b *copyBuffers) Put(p []byte) { b.pool.Put((*[32 << 10]byte)(p)) }

// Package proxy is the gateway: who may pass, and what the upstream is told.
package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// Lookuper finds the record behind a token: a tokenstore.Store, or a cache in front of one. Records that have
// expired may be returned. It says tokenstore.ErrNotFound when there is none; any other error means that it could not
// tell, and the request is answered with 503. It bounds its own time, and may be called concurrently.
type Lookuper interface {
	Lookup(ctx context.Context, d tokenstore.Digest) (*tokenstore.Record, error)
}

// Options are what a gateway needs beside its configuration.
type Options struct {
	Tokens   Lookuper
	Digester tokenstore.Digester
	Replay   dpop.Replay
	Headers  dpop.Headers   // remembers what headers of proofs say, for all configurations; nil: nothing does
	Fallback *dpop.Fallback // for when Replay cannot answer; nil: then nothing is let through
	// Started is set while Replay is this process's own memory: a proof with an older iat may have been used before a
	// restart, and is not trusted.
	Started time.Time
	// NonceKey makes the nonces where the config has no dpop.nonce_key. Empty: a random one.
	NonceKey []byte
	Tracing  Tracing          // follows requests; nil: nobody does
	Now      func() time.Time // nil: time.Now
	Events   func(*Event)     // called once for each request, when its response is complete; nil: none
	Log      *slog.Logger     // for what is no request's; nil: discarded
	Offline  bool             // no upstream is asked for its health: for who only wants to know what is enforced
	// Leaving says whether clients are to go elsewhere with their next request: while it does, each answer says
	// Connection: close, which over HTTP/2 is a GOAWAY. nil: never.
	Leaving func() bool
	// Misuse hears of live bound tokens in the wrong hands, after the request that showed one has been answered. It may be
	// called concurrently, and ends with its context. nil: nobody looks for that.
	Misuse func(context.Context, *Misuse)
	Fresh  Lookuper // the token store without a cache, for Misuse; nil: Tokens
}

// Gateway is an http.Handler that lets a request through to its upstream when the route table, the token and the proof
// allow it. It may be used concurrently, Reload included.
type Gateway struct {
	o      Options
	mu     sync.Mutex // serialises Reload and Close
	table  atomic.Pointer[table]
	closed bool

	streams  *streams
	tunnels  tunnels
	tripwire *tripwire
}

// New compiles a configuration. Its errors name the key that is wrong.
func New(c *config.Config, o Options) (*Gateway, error) {
	if o.Tokens == nil || o.Replay == nil {
		return nil, errors.New("a gateway needs Tokens and Replay")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{o: o}
	g.streams = newStreams(&g.o)
	g.tripwire = newTripwire(&g.o)
	return g, g.Reload(c)
}

// Reload puts another configuration in force, or changes nothing and says why. Requests under way finish with the one
// that they began with.
func (g *Gateway) Reload(c *config.Config) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errors.New("the gateway is closed")
	}
	before := g.table.Load()
	t, err := compile(c, g.o, before)
	if err != nil {
		return err
	}
	g.table.Store(t)
	if !g.o.Offline {
		t.watch()
	}
	before.close(t)
	return nil
}

// Close ends the health checks and lets go of idle upstream connections. Requests under way finish.
func (g *Gateway) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.tripwire.close()
	g.table.Load().close(nil)
}

// ServeHTTP takes one request through the eight steps.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{table: g.table.Load(), o: &g.o, now: g.o.Now(), grpc: r.ProtoMajor == 2 && isGRPC(r.Header)}
	x.event = Event{
		Time:      x.now,
		RequestID: rand.Text(),
		Verdict:   Refused,
		Method:    r.Method,
		Protocol:  r.Proto,
	}
	if x.from = x.table.trusted.originOf(r); x.from.requestID != "" {
		x.event.RequestID = x.from.requestID
	}
	x.event.Host, x.event.Client = x.from.host, x.from.client
	if g.o.Tracing != nil {
		x.trace = g.o.Tracing.Begin(r, x.table.trusted.trusts(r.RemoteAddr))
		x.event.TraceID, x.event.SpanID = x.trace.IDs()
	}
	x.own.id[0] = x.event.RequestID
	x.own.out.ResponseWriter, x.own.out.leaving = w, g.o.Leaving
	out := &x.own.out
	x.out = out
	defer g.tripwire.after(x)
	defer x.tell(out)
	w.Header()["X-Request-Id"] = x.own.id[:]
	if r.TLS != nil && x.table.hsts != nil {
		w.Header()["Strict-Transport-Security"] = x.table.hsts
	}
	if framedInDoubt(r) {
		w.Header()["Connection"] = closeConnection
	}
	if a := x.table.askedBy(r); a != nil {
		x.verify(out, a, r)
		return
	}
	f := x.decide(r)
	if f == nil {
		f = x.refuseSize(r.ContentLength)
	}
	if f == nil {
		f = x.throttle(w.Header())
	}
	f = x.pardon(r.Context(), f)
	x.event.Path = x.path
	x.event.Auth = since(g.o.Now(), x.now)
	x.allowOrigin(w.Header(), r.Header.Get("Origin"))
	if f != nil {
		x.event.Reason, x.event.Err = f.reason, f.err
		boundBody(out, r)
		x.answer(out, f)
		return
	}
	x.event.Verdict = Passed
	switch {
	case x.asked != "":
		x.answerPreflight(out, r)
	case x.route == nil && x.path == jwksPath:
		x.serveKeys(out)
	case x.route == nil:
		x.serveMetadata(out)
	default:
		x.tunnels = &g.tunnels
		x.forward(out, r, g.streams)
	}
}

var closeConnection = []string{"close"}

// framedInDoubt says whether a request may have had two lengths, of which net/http has taken one out of sight: a
// Content-Length beside chunks, or chunks in HTTP/1.0. Who counts by the other one takes the rest of what was sent for
// something else, so nothing more is read from its connection (RFC 9112 §6.1).
func framedInDoubt(r *http.Request) bool {
	return r.ProtoMajor == 1 && (r.ProtoMinor == 0 || len(r.TransferEncoding) > 0)
}

// tell hands the event out, also when the handler ends in a panic: ReverseProxy ends a response that broke off so.
func (x *exchange) tell(out *counter) {
	p := recover()
	switch {
	case x.stream.reason != "": // the gateway ended it
		x.event.Verdict, x.event.Reason, x.event.Err = Passed, x.stream.reason, x.stream.err
	case p != nil && x.event.Verdict == Passed:
		x.event.Verdict, x.event.Reason = Failed, ResponseCut
	}
	x.event.Status, x.event.Written = out.status, out.written
	x.event.Duration = since(x.o.Now(), x.now)
	if x.trace != nil {
		x.trace.End(&x.event)
	}
	if x.o.Events != nil {
		x.o.Events(&x.event)
	}
	if p != nil {
		panic(p)
	}
}

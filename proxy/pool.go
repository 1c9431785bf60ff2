package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// How long a target that failed is left alone: at first, and at the most. It doubles with each failure.
const (
	firstBench = time.Second
	lastBench  = 30 * time.Second
)

// maxRepeats is how often a GET or HEAD is sent again after a connection broke: a request that crashes its server
// should not do so to a whole pool.
const maxRepeats = 1

// errNoTarget is the answer of a pool whose health checks have found all targets down.
var errNoTarget = errors.New("no target is healthy")

// target is one server of an upstream. Its upstream's mu guards the fields below the line.
type target struct {
	url    string // as the config has it
	scheme string
	host   string
	base   string // path prefix, without a trailing slash

	// ----
	running  int       // requests under way
	down     bool      // by the health checks: gets nothing
	failures int       // in a row, of requests
	failing  bool      // the last request failed, and no check has passed since bench
	bench    time.Time // while failing: until then other targets are preferred
	trial    bool      // one request is finding out whether it works again
}

// newTarget reads a target's URL.
func newTarget(text string) (*target, error) {
	at, err := url.Parse(text)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return nil, errors.New("want http or https URLs as targets")
	}
	return &target{url: text, scheme: at.Scheme, host: at.Host, base: strings.TrimSuffix(at.EscapedPath(), "/")}, nil
}

// benched says whether a target has failed and its time has not come again.
func (t *target) benched(now time.Time) bool { return t.failing && now.Before(t.bench) }

// choose takes the target that should get a request and counts the request on it; nil when there is none. Targets that
// health checks found down are none; those that failed requests are chosen when no other is left, since what breaks
// connections may be the requests.
func (u *upstream) choose(now time.Time, tried []*target) *target {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.turn++
	var best *target
	for i := range u.targets {
		t := u.targets[(u.turn+i)%len(u.targets)]
		if t.down || slices.Contains(tried, t) {
			continue
		}
		switch {
		case best == nil, best.benched(now) && !t.benched(now):
			best = t
		case u.leastConn && best.benched(now) == t.benched(now) && t.running < best.running:
			best = t
		}
	}
	if best == nil {
		return nil
	}
	if best.failing && !best.benched(now) { // the others wait for what becomes of this one
		best.trial, best.bench = true, now.Add(u.patience)
	}
	best.running++
	return best
}

// leave ends a request on a target.
func (u *upstream) leave(t *target) {
	u.mu.Lock()
	defer u.mu.Unlock()
	t.running--
}

// answered notes that a target has answered a request, whatever it said.
func (u *upstream) answered(t *target) {
	u.mu.Lock()
	back := t.failing
	t.failures, t.failing, t.trial = 0, false, false
	u.mu.Unlock()
	if back {
		u.log.Info("upstream target answers again", "upstream", u.name, "target", t.url)
	}
}

// failed notes that a target could not be reached, or broke a connection. Requests that were under way when it failed
// count as one failure.
func (u *upstream) failed(t *target, now time.Time) {
	u.mu.Lock()
	first := !t.failing
	if !t.benched(now) || t.trial {
		t.failing, t.trial = true, false
		t.bench = now.Add(min(firstBench<<min(t.failures, 10), lastBench))
		t.failures++
	}
	u.mu.Unlock()
	if first {
		u.log.Warn("upstream target failed", "upstream", u.name, "target", t.url)
	}
}

// RoundTrip sends a request to one target, and to another one when it could not be connected to. A GET or HEAD without
// a body is also sent again when the connection broke before the answer; nothing else is, and nothing that is late.
func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	x := exchangeOf(r)
	path, now := r.URL.Opaque, x.sent
	var tried []*target
	var failure error
	for repeats := 0; ; {
		t := u.choose(now, tried)
		if t == nil {
			if failure == nil {
				failure = errNoTarget
			}
			return nil, failure
		}
		x.target, x.event.Target = t, t.url
		r.URL.Scheme, r.URL.Host, r.URL.Opaque = t.scheme, t.host, t.base+path
		ended := x.try(r)
		res, err := u.transport.RoundTrip(r)
		ended(res, err)
		if err == nil {
			u.answered(t) // forward leaves it, when the answer is through
			return res, nil
		}
		x.target = nil
		u.leave(t)
		now = x.o.Now()
		blameless := r.Context().Err() != nil || x.body.failed.Load()
		var unsent *unreachable
		switch {
		case blameless:
			return nil, err
		case errors.As(err, &unsent) && !x.body.begun.Load():
		case isLate(err):
			return nil, err
		case r.Body == nil && mayRepeat(r.Method) && repeats < maxRepeats:
			repeats++
		default:
			u.failed(t, now)
			return nil, err
		}
		u.failed(t, now)
		failure = err
		tried = append(tried, t)
		r = x.afresh(r)
	}
}

// afresh is a request to be sent once more: what sent it before may still hold its URL, and has closed its body.
func (x *exchange) afresh(r *http.Request) *http.Request {
	again := r.WithContext(r.Context())
	at := *r.URL
	again.URL = &at
	again.Header = r.Header.Clone() // a trace writes into it
	if x.body.ReadCloser != nil {
		again.Body = io.NopCloser(&x.body)
	}
	return again
}

// isLate says whether an error is a time that ran out.
func isLate(err error) bool {
	var late interface{ Timeout() bool }
	return errors.As(err, &late) && late.Timeout()
}

// release lets go of what forwarding held: the target, and the client's body, which the transport may still want to
// read.
func (x *exchange) release() {
	x.body.over.Store(true)
	if x.target != nil {
		x.route.upstream.leave(x.target)
	}
}

// TargetState is how one target of an upstream is doing.
type TargetState struct {
	Upstream string // its name, or the URL that a route gives outright
	Target   string // URL
	Up       bool   // its health checks pass, and so did the last request to it, or a check after that
	Running  int    // requests under way
}

// Upstreams is the state of all targets, by the name of their upstream and in the order of the file.
func (g *Gateway) Upstreams() []TargetState {
	var all []TargetState
	for _, u := range g.table.Load().pools {
		u.mu.Lock()
		for _, t := range u.targets {
			all = append(all, TargetState{u.name, t.url, !t.down && !t.failing, t.running})
		}
		u.mu.Unlock()
	}
	slices.SortStableFunc(all, func(a, b TargetState) int { return strings.Compare(a.Upstream, b.Upstream) })
	return all
}

// watch starts the health checks, if there are any and they are not running.
func (u *upstream) watch() {
	if u.health == nil || u.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	u.stop = stop
	for _, t := range u.targets {
		u.checks.Go(func() { u.attend(ctx, t) })
	}
}

// close ends the health checks and lets go of the idle connections.
func (u *upstream) close() {
	if u.stop != nil {
		u.stop()
		u.checks.Wait()
	}
	u.transport.CloseIdleConnections()
}

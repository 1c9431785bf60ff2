package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// readyFor is how long the answer of a check is used again, so that probes put no load on the store.
const readyFor = time.Second

// readiness says whether requests should be sent to this process. It may be used concurrently.
type readiness struct {
	draining  atomic.Bool
	timeout   time.Duration // of one ask
	checks    []*check
	certs     *certificates // nil: none are needed
	mentions  []mention
	upstreams upstreamStates // nil: none to show
}

// mention is what a report says besides, however ready that makes the process.
type mention struct {
	name  string
	state func() string
}

// check is one thing that has to work, asked at most once in readyFor and by one caller at a time.
type check struct {
	name    string
	ask     func(context.Context) error
	timeout time.Duration

	mu   sync.Mutex
	when time.Time
	err  error
}

// newReadiness is ready when all that it is told to watch answers within timeout.
func newReadiness(timeout time.Duration) *readiness { return &readiness{timeout: timeout} }

// watch adds a check. All are added before the first report.
func (r *readiness) watch(name string, ask func(context.Context) error) {
	r.checks = append(r.checks, &check{name: name, ask: ask, timeout: r.timeout})
}

// watchCertificates wants a certificate for each host, before the first report.
func (r *readiness) watchCertificates(certs *certificates) { r.certs = certs }

// mention adds a line that says no more than a word. All are added before the first report.
func (r *readiness) mention(name string, state func() string) {
	r.mentions = append(r.mentions, mention{name, state})
}

// report writes one line for each check, and says whether all is well. What exactly is wrong with a check is in the
// log: a probe's answer is read by more people than that.
func (r *readiness) report(w io.Writer) (ready bool) {
	ready = true
	line := func(name string, ok bool) {
		ready = ready && ok
		word := "ok"
		if !ok {
			word = "failed"
		}
		fmt.Fprintf(w, "%s %s\n", name, word)
	}
	line("serving", !r.draining.Load())
	for _, c := range r.checks {
		line(c.name, c.now() == nil)
	}
	for _, m := range r.mentions {
		fmt.Fprintf(w, "%s %s\n", m.name, m.state())
	}
	r.reportUpstreams(w)
	return r.reportCertificates(w, time.Now()) && ready
}

// lacking is what a report says failed, on one line; empty when all is well.
func (r *readiness) lacking() string {
	var report bytes.Buffer
	if r.report(&report) {
		return ""
	}
	var failed []string
	for line := range strings.Lines(report.String()) {
		if strings.Contains(line, " failed") {
			failed = append(failed, strings.TrimSpace(line))
		}
	}
	return strings.Join(failed, ", ")
}

// reportCertificates writes a line for each host, and says whether all have a certificate that is good now. One that
// should have been renewed by now is a warning.
func (r *readiness) reportCertificates(w io.Writer, now time.Time) (ready bool) {
	ready = true
	if r.certs == nil {
		return ready
	}
	for _, host := range r.certs.hosts {
		word := "ok"
		switch leaf := r.certs.source.leaf(host); {
		case leaf == nil:
			word, ready = "failed: there is none yet", false
		case now.After(leaf.NotAfter):
			word, ready = "failed: it has expired", false
		case inLastThird(leaf, now):
			word = fmt.Sprintf("warning: not renewed yet, it expires in %s", leaf.NotAfter.Sub(now).Round(time.Second))
		}
		fmt.Fprintf(w, "certificate %s %s\n", host, word)
	}
	return ready
}

// now is the check's answer, not older than readyFor. It does not end with the probe that asks: the next one wants to
// know as well.
func (c *check) now() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.when.IsZero() && time.Since(c.when) < readyFor {
		return c.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	c.err = c.ask(ctx)
	c.when = time.Now()
	return c.err
}

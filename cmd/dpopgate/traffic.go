package main

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
)

// outcome is what became of a request, in words of closed sets: those of the config and of the gateway.
type outcome struct {
	route   string // the pattern; empty for none
	verdict proxy.Verdict
	reason  dpop.Reason
	class   int // of the status: 1 to 5, or 0 where nothing was answered
}

// traffic counts requests by their outcome, since the start, for /metrics. The status page and the report want the last
// hours by client, which the tally has. It may be used concurrently.
type traffic struct {
	total  family
	counts *growing[outcome, *atomic.Uint64]
}

func newTraffic() *traffic {
	return &traffic{
		total:  newFamily("dpopgate_requests_total", aCounter),
		counts: newGrowing(func(outcome) *atomic.Uint64 { return new(atomic.Uint64) }),
	}
}

// count adds one request.
func (t *traffic) count(e *proxy.Event) {
	t.counts.of(outcome{e.Route, e.Verdict, e.Reason, e.Status / 100}).Add(1)
}

// expect has a route counted from zero on: an increase is only seen of what was there before.
func (t *traffic) expect(route string) { t.counts.of(outcome{route, proxy.Passed, "", 2}) }

// sums is how many requests there have been, by outcome.
func (t *traffic) sums() map[outcome]uint64 {
	sums := map[outcome]uint64{}
	for o, n := range t.counts.entries() {
		sums[o] = n.Load()
	}
	return sums
}

// classes of statuses, as labels.
var classes = [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}

func (o outcome) status() string {
	if o.class < len(classes) {
		return classes[o.class]
	}
	return classes[0]
}

// Describe implements prometheus.Collector.
func (t *traffic) Describe(to chan<- *prometheus.Desc) { to <- t.total.desc }

// Collect implements prometheus.Collector.
func (t *traffic) Collect(to chan<- prometheus.Metric) {
	for o, n := range t.sums() {
		t.total.is(to, float64(n), o.route, string(o.verdict), string(o.reason), o.status())
	}
}

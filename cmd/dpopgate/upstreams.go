package main

import (
	"fmt"
	"io"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dpopgate/dpopgate/proxy"
)

// upstreamStates is how each target of each upstream is doing, at the moment it is called.
type upstreamStates func() []proxy.TargetState

var (
	targetUp       = newFamily("dpopgate_upstream_target_up", aGauge)
	targetRequests = newFamily("dpopgate_upstream_target_requests", aGauge)
)

// Describe is for Prometheus.
func (upstreamStates) Describe(ch chan<- *prometheus.Desc) {
	ch <- targetUp.desc
	ch <- targetRequests.desc
}

// Collect gives the targets that there are now: a reload may have changed them.
func (states upstreamStates) Collect(ch chan<- prometheus.Metric) {
	for _, s := range states() {
		targetUp.is(ch, oneIf(s.Up), s.Upstream, s.Target)
		targetRequests.is(ch, float64(s.Running), s.Upstream, s.Target)
	}
}

// watchUpstreams shows how the targets are doing.
func (m *metrics) watchUpstreams(states upstreamStates) { m.registry.MustRegister(states) }

// watchUpstreams adds a line for each target, before the first report. One that is down makes the process no less
// ready: what other targets and routes serve still comes through here, and the others of a fleet see it down as well.
func (r *readiness) watchUpstreams(states upstreamStates) { r.upstreams = states }

func (r *readiness) reportUpstreams(w io.Writer) {
	if r.upstreams == nil {
		return
	}
	for _, s := range r.upstreams() {
		word := "ok"
		if !s.Up {
			word = "down"
		}
		fmt.Fprintf(w, "upstream %s %s %s\n", s.Upstream, s.Target, word)
	}
}

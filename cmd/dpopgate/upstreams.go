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
	targetUp = prometheus.NewDesc("dpopgate_upstream_target_up",
		"1 while a target's health checks pass and it answers requests, 0 otherwise.", []string{"upstream", "target"}, nil)
	targetRequests = prometheus.NewDesc("dpopgate_upstream_target_requests",
		"Requests and streams under way at a target.", []string{"upstream", "target"}, nil)
)

// Describe is for Prometheus.
func (upstreamStates) Describe(ch chan<- *prometheus.Desc) { ch <- targetUp; ch <- targetRequests }

// Collect gives the targets that there are now: a reload may have changed them.
func (states upstreamStates) Collect(ch chan<- prometheus.Metric) {
	for _, s := range states() {
		up := 0.0
		if s.Up {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(targetUp, prometheus.GaugeValue, up, s.Upstream, s.Target)
		ch <- prometheus.MustNewConstMetric(targetRequests, prometheus.GaugeValue, float64(s.Running), s.Upstream, s.Target)
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

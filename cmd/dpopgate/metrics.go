package main

import (
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/proxy"
)

// metrics are what /metrics shows: the instruments, and where their values come from.
type metrics struct {
	registry *prometheus.Registry
	traffic  *traffic
	inFlight atomic.Int64
	auth     prometheus.Observer
	upstream *prometheus.HistogramVec
	nonces   *prometheus.CounterVec
	accepted prometheus.Observer // of clock offsets
	refused  prometheus.Observer
	would    *wouldRefuse
	routes   *growing[string, routeMetrics] // by pattern
}

// routeMetrics are those of one route, looked up once.
type routeMetrics struct {
	upstream prometheus.Observer
	nonces   prometheus.Counter
}

// The buckets of times, in seconds, and of clock offsets.
var (
	fastBuckets   = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}
	slowBuckets   = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	offsetBuckets = []float64{-3600, -600, -60, -30, -10, -5, -2, -1, 0, 1, 2, 5, 10, 30, 60, 600, 3600}
)

func newMetrics() *metrics {
	decision := newHistogram("dpopgate_decision_seconds", fastBuckets)
	offset := newHistogram("dpopgate_proof_clock_offset_seconds", offsetBuckets)
	m := &metrics{
		registry: prometheus.NewRegistry(),
		traffic:  newTraffic(),
		auth:     decision.WithLabelValues(),
		upstream: newHistogram("dpopgate_upstream_seconds", slowBuckets),
		nonces:   newCounter("dpopgate_nonce_challenges_total"),
		accepted: offset.WithLabelValues("accepted"),
		refused:  offset.WithLabelValues("refused"),
		would:    newWouldRefuse(),
	}
	m.routes = newGrowing(func(route string) routeMetrics {
		return routeMetrics{m.upstream.WithLabelValues(route), m.nonces.WithLabelValues(route)}
	})
	build := newGauge("dpopgate_build_info")
	build.WithLabelValues(thisBuild().Version, thisBuild().Commit, thisBuild().Go).Set(1)
	m.registry.MustRegister(m.traffic, decision, offset, m.upstream, m.nonces, m.would.total, build,
		gaugeOf("dpopgate_requests_in_flight", func() float64 { return float64(m.inFlight.Load()) }),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// observe counts one request.
func (m *metrics) observe(e *proxy.Event) {
	m.traffic.count(e)
	m.auth.Observe(e.Auth.Seconds())
	if e.Upstream > 0 {
		m.routes.of(e.Route).upstream.Observe(e.Upstream.Seconds())
	}
	if e.Challenged {
		m.routes.of(e.Route).nonces.Inc()
	}
	if e.Thumbprint != "" {
		offset := m.accepted
		if e.Verdict == proxy.Refused || e.Would != "" {
			offset = m.refused
		}
		offset.Observe(e.Offset.Seconds())
	}
	m.would.observe(e)
}

// expect shows these routes from zero on.
func (m *metrics) expect(routes []proxy.RouteInfo) {
	for _, r := range routes {
		m.traffic.expect(r.Match)
		m.routes.of(r.Match)
	}
}

// counting counts the requests under way.
func (m *metrics) counting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.inFlight.Add(1)
		defer m.inFlight.Add(-1)
		next.ServeHTTP(w, r)
	})
}

// watchTokens shows the state of the token cache.
func (m *metrics) watchTokens(tokens *cache.Tokens) {
	stat := func(f func(cache.TokensStats) float64) func() float64 {
		return func() float64 { return f(tokens.Stats()) }
	}
	m.registry.MustRegister(
		counterOf("dpopgate_token_cache_hits_total", stat(func(s cache.TokensStats) float64 { return float64(s.Hits) })),
		counterOf("dpopgate_token_cache_negative_hits_total", stat(func(s cache.TokensStats) float64 { return float64(s.NegativeHits) })),
		counterOf("dpopgate_token_cache_stale_hits_total", stat(func(s cache.TokensStats) float64 { return float64(s.StaleHits) })),
		counterOf("dpopgate_token_cache_misses_total", stat(func(s cache.TokensStats) float64 { return float64(s.Misses) })),
		counterOf("dpopgate_token_cache_evictions_total", stat(func(s cache.TokensStats) float64 { return float64(s.Evictions) })),
		counterOf("dpopgate_token_cache_drops_total", stat(func(s cache.TokensStats) float64 { return float64(s.Drops) })),
		counterOf("dpopgate_token_store_queries_total", stat(func(s cache.TokensStats) float64 { return float64(s.Queries) })),
		counterOf("dpopgate_token_store_refused_total", stat(func(s cache.TokensStats) float64 { return float64(s.Refused) })),
		gaugeOf("dpopgate_token_cache_bytes", stat(func(s cache.TokensStats) float64 { return float64(s.Size) })),
		gaugeOf("dpopgate_token_cache_max_bytes", stat(func(s cache.TokensStats) float64 { return float64(s.MaxSize) })),
	)
}

// watchProofs shows how full the memory of used proofs is.
func (m *metrics) watchProofs(proofs *cache.Proofs) {
	m.registry.MustRegister(
		gaugeOf("dpopgate_replay_entries", func() float64 { return float64(proofs.Stats().Entries) }),
		gaugeOf("dpopgate_replay_capacity", func() float64 { return float64(proofs.Stats().Capacity) }),
		gaugeOf("dpopgate_replay_bytes", func() float64 { return float64(proofs.Stats().Bytes) }),
	)
}

// watchReloads shows whether the config file is in force.
func (m *metrics) watchReloads(r *reloads) {
	m.registry.MustRegister(
		gaugeOf("dpopgate_config_last_reload_successful", func() float64 { return oneIf(!r.refused.Load()) }),
		gaugeOf("dpopgate_config_last_reload_success_timestamp_seconds", func() float64 { return float64(r.taken.Load()) }),
	)
}

// watchFallback shows whether proofs are taken without the shared replay store.
func (m *metrics) watchFallback(w *cache.WatchedProofs) {
	m.registry.MustRegister(gaugeOf("dpopgate_replay_fallback", func() float64 { return oneIf(w.Away()) }))
}

// watchNotices shows whether revocations are heard of at once.
func (m *metrics) watchNotices(w *watch) {
	m.registry.MustRegister(
		counterOf("dpopgate_revocation_notices_total", func() float64 { return float64(w.notices.Load()) }),
		gaugeOf("dpopgate_revocation_listening", func() float64 { return oneIf(w.listening.Load()) }),
	)
}

// oneIf is a condition as a gauge has it.
func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// handler serves the Prometheus text format, and the protobuf one to who asks for native histograms.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

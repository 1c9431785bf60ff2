package main

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/proxy"
)

// metrics are what /metrics shows. Every label comes from a closed set or from the config, none from a request.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	auth     prometheus.Histogram
	would    *wouldRefuse
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dpopgate_requests_total",
			Help: "Requests, by the route's pattern, the verdict, and the reason of a refusal or failure.",
		}, []string{"route", "verdict", "reason"}),
		auth: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:                           "dpopgate_decision_seconds",
			Help:                           "Time from the first look at a request to the decision about it, lookups included.",
			Buckets:                        []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
			NativeHistogramBucketFactor:    1.1,
			NativeHistogramMaxBucketNumber: 100,
		}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "dpopgate_build_info",
		Help:        "1, with the version, the commit and the Go version as labels.",
		ConstLabels: prometheus.Labels{"version": thisBuild().Version, "commit": thisBuild().Commit, "goversion": thisBuild().Go},
	})
	build.Set(1)
	m.would = newWouldRefuse()
	m.registry.MustRegister(m.requests, m.auth, m.would.total, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// observe counts one request.
func (m *metrics) observe(e *proxy.Event) {
	m.requests.WithLabelValues(e.Route, string(e.Verdict), string(e.Reason)).Inc()
	m.auth.Observe(e.Auth.Seconds())
	m.would.observe(e)
}

// watchTokens shows the state of the token cache.
func (m *metrics) watchTokens(tokens *cache.Tokens) {
	stat := func(f func(cache.TokensStats) float64) func() float64 {
		return func() float64 { return f(tokens.Stats()) }
	}
	for _, c := range []struct {
		name, help string
		value      func(cache.TokensStats) float64
	}{
		{"dpopgate_token_cache_hits_total", "Lookups answered from the cache with a record.", func(s cache.TokensStats) float64 { return float64(s.Hits) }},
		{"dpopgate_token_cache_negative_hits_total", "Lookups answered from the cache with unknown.", func(s cache.TokensStats) float64 { return float64(s.NegativeHits) }},
		{"dpopgate_token_cache_misses_total", "Lookups that the cache could not answer.", func(s cache.TokensStats) float64 { return float64(s.Misses) }},
		{"dpopgate_token_store_queries_total", "Queries that the misses came to.", func(s cache.TokensStats) float64 { return float64(s.Queries) }},
		{"dpopgate_token_cache_evictions_total", "Records that made room for others.", func(s cache.TokensStats) float64 { return float64(s.Evictions) }},
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: c.name, Help: c.help}, stat(c.value)))
	}
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dpopgate_token_cache_bytes", Help: "Memory that cached records are counted with."},
			stat(func(s cache.TokensStats) float64 { return float64(s.Size) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dpopgate_token_cache_max_bytes", Help: "The bound of dpopgate_token_cache_bytes."},
			stat(func(s cache.TokensStats) float64 { return float64(s.MaxSize) })),
	)
}

// watchProofs shows how full the memory of used proofs is. Full, it refuses: the reason replay_store_full.
func (m *metrics) watchProofs(proofs *cache.Proofs) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dpopgate_replay_entries", Help: "Used proofs remembered."},
			func() float64 { return float64(proofs.Stats().Entries) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dpopgate_replay_capacity", Help: "Used proofs that dpop.replay_memory has room for."},
			func() float64 { return float64(proofs.Stats().Capacity) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dpopgate_replay_bytes", Help: "Memory that they take now."},
			func() float64 { return float64(proofs.Stats().Bytes) }),
	)
}

// watchNotices shows whether revocations are heard of at once.
func (m *metrics) watchNotices(w *watch) {
	m.registry.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "dpopgate_revocation_notices_total", Help: "Notices of changed or deleted tokens. One may be about many."},
			func() float64 { return float64(w.notices.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dpopgate_revocation_listening", Help: "1 while such notices are listened for; else cache.ttl bounds how long a revocation goes unseen."},
			func() float64 {
				if w.listening.Load() {
					return 1
				}
				return 0
			}),
	)
}

// handler serves the Prometheus text format.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

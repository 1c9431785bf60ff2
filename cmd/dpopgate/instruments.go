package main

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// kind is a type of metric, as Prometheus calls it.
type kind string

const (
	aCounter   kind = "counter"
	aGauge     kind = "gauge"
	aHistogram kind = "histogram"
)

// instrument is one metric of /metrics.
type instrument struct {
	name   string
	kind   kind
	labels []string
	help   string
}

// instruments is every metric that there is, beside those of the Go runtime (go_) and the process (process_). Metrics
// are made from it alone, and so are the page metrics, the dashboard and the check of the alerts. A label's values come
// from a closed set, the config, or (client_id alone) the token table, and none from a request.
var instruments = []instrument{
	{"dpopgate_build_info", aGauge, []string{"version", "commit", "goversion"}, "1, with the version, the commit and the Go version as labels."},

	{"dpopgate_requests_total", aCounter, []string{"route", "verdict", "reason", "status"}, "Requests that are answered, by the route's pattern (empty: none matched), the verdict (passed, refused, failed), the reason if there is one, and the class of the status (2xx; none where the client left before)."},
	{"dpopgate_requests_in_flight", aGauge, nil, "Requests and streams under way."},
	{"dpopgate_decision_seconds", aHistogram, nil, "Time from the first look at a request to the decision about it, lookups included."},
	{"dpopgate_upstream_seconds", aHistogram, []string{"route"}, "Time from forwarding a request to the header of the upstream's answer."},
	{"dpopgate_nonce_challenges_total", aCounter, []string{"route"}, "Answers that asked for a proof with a nonce (use_dpop_nonce)."},
	{"dpopgate_proof_clock_offset_seconds", aHistogram, []string{"proof"}, "iat of the proof minus our clock, negative for clients whose clock is slow. Of accepted proofs, whose signature is verified, and of refused ones, which anybody can send."},
	{"dpopgate_would_refuse_total", aCounter, []string{"route", "reason", "client_id"}, "Requests that mode report let through and enforce would refuse, by route, reason, and the token's client: empty where no token was found, other from the thousandth on."},

	{"dpopgate_misuse_total", aCounter, []string{"kind", "result"}, "Live bound tokens shown without a proof (bearer), with a valid one by another key (other_key), or with one that had been used before (replay), by what became of it: logged, revoked, gone (before it could be revoked), failed (to be revoked), or unconfirmed, where there was no time or no way to find out and which may be noise."},
	{"dpopgate_trace_spans_lost_total", aCounter, nil, "Spans that the collector of traces did not take."},
	{"dpopgate_audit_failures_total", aCounter, nil, "Security events that log.audit has no line of, since it could not be written."},

	{"dpopgate_token_cache_hits_total", aCounter, nil, "Lookups answered from the cache with a record."},
	{"dpopgate_token_cache_negative_hits_total", aCounter, nil, "Lookups answered from the cache with unknown."},
	{"dpopgate_token_cache_stale_hits_total", aCounter, nil, "Lookups that the store did not answer, answered with a record past its cache.ttl as cache.stale_on_error allows; misses as well."},
	{"dpopgate_token_cache_misses_total", aCounter, nil, "Lookups that the cache could not answer."},
	{"dpopgate_token_cache_evictions_total", aCounter, nil, "Records that made room for others."},
	{"dpopgate_token_cache_drops_total", aCounter, nil, "Records that the cache did not take in, being full of others that are asked for more often."},
	{"dpopgate_token_cache_bytes", aGauge, nil, "Memory that cached records are counted with."},
	{"dpopgate_token_cache_max_bytes", aGauge, nil, "The bound of dpopgate_token_cache_bytes."},
	{"dpopgate_token_store_queries_total", aCounter, nil, "Queries that the misses came to: fewer, as those who want the same token share one, and so do those who come while the store is busy."},
	{"dpopgate_token_store_refused_total", aCounter, nil, "Lookups given up, with 503, because the store was too slow for all of them."},
	{"dpopgate_token_store_lookup_seconds", aHistogram, []string{"result"}, "Time of one lookup in the token store, by its result: found, unknown, or failed."},
	{"dpopgate_database_connections", aGauge, []string{"pool", "state"}, "Connections to Postgres, by pool (tokens, primary, replay) and state: in_use, idle, or opening."},
	{"dpopgate_database_max_connections", aGauge, []string{"pool"}, "The bound of dpopgate_database_connections in all states."},
	{"dpopgate_database_waits_total", aCounter, []string{"pool"}, "Uses of a connection that had to wait for one."},
	{"dpopgate_database_wait_seconds_total", aCounter, []string{"pool"}, "Time that they waited."},

	{"dpopgate_config_last_reload_successful", aGauge, nil, "1 while the config file is in force as it was when last looked at, 0 after one that was refused: the one before is in force then."},
	{"dpopgate_config_last_reload_success_timestamp_seconds", aGauge, nil, "When a config file was last put in force, in Unix seconds."},

	{"dpopgate_replay_entries", aGauge, nil, "Used proofs remembered, with dpop.replay: memory."},
	{"dpopgate_replay_capacity", aGauge, nil, "Used proofs that dpop.replay_memory has room for. Full, it refuses: the reason replay_store_full."},
	{"dpopgate_replay_fallback", aGauge, nil, "1 while the shared replay store does not answer and proofs are taken with nonces of this instance alone: dpop.replay_on_error."},
	{"dpopgate_replay_bytes", aGauge, nil, "Memory that they take now."},
	{"dpopgate_replay_claim_seconds", aHistogram, []string{"result"}, "Time of one claim in the shared replay store, by its result: fresh, used, or failed."},

	{"dpopgate_revocation_notices_total", aCounter, nil, "Notices of changed or deleted tokens. One may be about many."},
	{"dpopgate_revocation_listening", aGauge, nil, "1 while such notices are listened for; else cache.ttl bounds how long a revocation goes unseen."},

	{"dpopgate_upstream_target_up", aGauge, []string{"upstream", "target"}, "1 while a target's health checks pass and it answers requests, 0 otherwise."},
	{"dpopgate_upstream_target_requests", aGauge, []string{"upstream", "target"}, "Requests and streams under way at a target."},

	{"dpopgate_certificate_expiry_seconds", aGauge, []string{"host"}, "Time until the certificate of a host expires, negative once it has; no value while there is none."},
	{"dpopgate_certificate_lifetime_seconds", aGauge, []string{"host"}, "How long the certificate of a host is good in all. With a third of it left it should have been renewed."},
	{"dpopgate_certificate_failures_total", aCounter, []string{"host"}, "Certificates that could not be ordered or renewed, by host. Each is tried again."},
}

// instrumentNamed is the one of that name and kind. What is not in the list cannot be measured.
func instrumentNamed(name string, k kind) instrument {
	for _, i := range instruments {
		if i.name == name && i.kind == k {
			return i
		}
	}
	panic(fmt.Sprintf("no %s %s among the instruments", k, name))
}

func newCounter(name string) *prometheus.CounterVec {
	i := instrumentNamed(name, aCounter)
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: i.name, Help: i.help}, i.labels)
}

func newGauge(name string) *prometheus.GaugeVec {
	i := instrumentNamed(name, aGauge)
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: i.name, Help: i.help}, i.labels)
}

// newHistogram has classic buckets, and native ones for a Prometheus that asks for those.
func newHistogram(name string, buckets []float64) *prometheus.HistogramVec {
	i := instrumentNamed(name, aHistogram)
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: i.name, Help: i.help,
		Buckets:                        buckets,
		NativeHistogramBucketFactor:    1.1,
		NativeHistogramMaxBucketNumber: 100,
	}, i.labels)
}

// counterOf and gaugeOf ask for their value when they are shown.
func counterOf(name string, value func() float64) prometheus.Collector {
	i := instrumentNamed(name, aCounter)
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: i.name, Help: i.help}, value)
}

func gaugeOf(name string, value func() float64) prometheus.Collector {
	i := instrumentNamed(name, aGauge)
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: i.name, Help: i.help}, value)
}

// family is an instrument whose values, by their labels, are only known when it is shown.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func newFamily(name string, k kind) family {
	i := instrumentNamed(name, k)
	value := prometheus.GaugeValue
	if k == aCounter {
		value = prometheus.CounterValue
	}
	return family{prometheus.NewDesc(i.name, i.help, i.labels, nil), value}
}

// is gives one value.
func (f family) is(to chan<- prometheus.Metric, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
}

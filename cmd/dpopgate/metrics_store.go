package main

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// timedStore is a store whose lookups are timed.
type timedStore struct {
	store                  cache.Lookuper
	found, unknown, failed prometheus.Observer
}

// timeStore times the lookups of the token store. Those of one query took all the same time.
func (m *metrics) timeStore(store cache.Lookuper) cache.Lookuper {
	h := newHistogram("dpopgate_token_store_lookup_seconds", fastBuckets)
	m.registry.MustRegister(h)
	timed := &timedStore{store, h.WithLabelValues("found"), h.WithLabelValues("unknown"), h.WithLabelValues("failed")}
	if batcher, ok := store.(cache.Batcher); ok {
		return &timedBatcher{timed, batcher}
	}
	return timed
}

// Lookup implements cache.Lookuper.
func (t *timedStore) Lookup(ctx context.Context, d tokenstore.Digest) (*tokenstore.Record, error) {
	began := time.Now()
	rec, err := t.store.Lookup(ctx, d)
	t.observe(began, err)
	return rec, err
}

func (t *timedStore) observe(began time.Time, err error) {
	result := t.failed
	switch {
	case err == nil:
		result = t.found
	case errors.Is(err, tokenstore.ErrNotFound):
		result = t.unknown
	}
	result.Observe(time.Since(began).Seconds())
}

// timedBatcher is a timedStore that can be asked for several records at once.
type timedBatcher struct {
	*timedStore
	batcher cache.Batcher
}

// LookupAll implements cache.Batcher.
func (t *timedBatcher) LookupAll(ctx context.Context, ds []tokenstore.Digest) []tokenstore.Answer {
	began := time.Now()
	answers := t.batcher.LookupAll(ctx, ds)
	for _, a := range answers {
		t.observe(began, a.Err)
	}
	return answers
}

// timedReplay is a replay store whose claims are timed.
type timedReplay struct {
	replay              dpop.Replay
	fresh, used, failed prometheus.Observer
}

// timeReplay times the claims of a shared replay store.
func (m *metrics) timeReplay(replay dpop.Replay) *timedReplay {
	h := newHistogram("dpopgate_replay_claim_seconds", fastBuckets)
	m.registry.MustRegister(h)
	return &timedReplay{replay, h.WithLabelValues("fresh"), h.WithLabelValues("used"), h.WithLabelValues("failed")}
}

// Claim implements dpop.Replay.
func (t *timedReplay) Claim(ctx context.Context, k dpop.ReplayKey, until time.Time) (bool, error) {
	began := time.Now()
	fresh, err := t.replay.Claim(ctx, k, until)
	result := t.used
	switch {
	case err != nil:
		result = t.failed
	case fresh:
		result = t.fresh
	}
	result.Observe(time.Since(began).Seconds())
	return fresh, err
}

// databasePools are the pools of connections to Postgres, by name.
type databasePools map[string]func() tokenstore.PoolStats

var (
	poolConnections = newFamily("dpopgate_database_connections", aGauge)
	poolMax         = newFamily("dpopgate_database_max_connections", aGauge)
	poolWaits       = newFamily("dpopgate_database_waits_total", aCounter)
	poolWaited      = newFamily("dpopgate_database_wait_seconds_total", aCounter)
)

// watchPools shows the pools of what is on a Postgres.
func (m *metrics) watchPools(store tokenstore.Store, replay sharedReplay) {
	pools := databasePools{}
	if p, ok := store.(*tokenstore.Postgres); ok {
		for name, pool := range p.Pools() {
			pools[name] = pool.Stats
		}
	}
	if p, ok := replay.(*cache.PostgresProofs); ok {
		pools["replay"] = p.PoolStats
	}
	m.registry.MustRegister(pools)
}

// Describe implements prometheus.Collector.
func (databasePools) Describe(to chan<- *prometheus.Desc) {
	for _, f := range []family{poolConnections, poolMax, poolWaits, poolWaited} {
		to <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (pools databasePools) Collect(to chan<- prometheus.Metric) {
	for name, stats := range pools {
		s := stats()
		poolConnections.is(to, float64(s.InUse), name, "in_use")
		poolConnections.is(to, float64(s.Idle), name, "idle")
		poolConnections.is(to, float64(s.Opening), name, "opening")
		poolMax.is(to, float64(s.Max), name)
		poolWaits.is(to, float64(s.Waits), name)
		poolWaited.is(to, s.Waited.Seconds(), name)
	}
}

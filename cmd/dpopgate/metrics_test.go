package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
)

// metricsPage is help/metrics.md, whose table is made from the instruments.
func metricsPage(before string) string {
	var b strings.Builder
	head, _, _ := strings.Cut(before, "| metric |")
	b.WriteString(head + "| metric | type | labels | |\n| --- | --- | --- | --- |\n")
	for _, i := range instruments {
		var labels []string
		for _, l := range i.labels {
			labels = append(labels, "`"+l+"`")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", i.name, i.kind, strings.Join(labels, ", "), i.help)
	}
	return b.String()
}

func TestMetricsPageListsEachInstrument(t *testing.T) {
	const path = "help/metrics.md"
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(metricsPage(string(text))), 0o600))
		return
	}
	assert.Equal(t, metricsPage(string(text)), string(text), "go test ./cmd/dpopgate -run MetricsPage -update writes it")
}

// The names are those of https://prometheus.io/docs/practices/naming.
func TestInstrumentsAreNamedAsPrometheusHasIt(t *testing.T) {
	closed := []string{"kind", "route", "verdict", "reason", "status", "proof", "result", "pool", "state", "upstream", "target", "host", "client_id", "version", "commit", "goversion"}
	seen := map[string]bool{}
	for _, i := range instruments {
		assert.False(t, seen[i.name], i.name)
		seen[i.name] = true
		assert.Regexp(t, `^dpopgate_[a-z_]+$`, i.name)
		assert.Equal(t, i.kind == aCounter, strings.HasSuffix(i.name, "_total"), i.name)
		assert.Equal(t, i.kind == aHistogram, strings.HasSuffix(i.name, "_seconds") && i.kind != aGauge, "%s: all histograms are of times", i.name)
		assert.NotRegexp(t, `_(ms|milliseconds|minutes|kib|mb)(_|$)`, i.name)
		assert.Regexp(t, `\.$`, i.help, i.name)
		assert.NotContains(t, i.help, "|", "it is a cell of a table")
		for _, l := range i.labels {
			assert.Contains(t, closed, l, "%s: a label whose values are a closed set is to be added here", i.name)
		}
	}
}

// wired is a server as serve makes it that does not serve.
func wired(t *testing.T, more string) *server {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dpopgate.yaml")
	text := "public_urls: [https://api.example.test]\nroutes: [{match: /, upstream: http://127.0.0.1:1}]\n" + strings.ReplaceAll(more, "FOLDER", t.TempDir())
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	c, err := config.Load(path)
	require.NoError(t, err)
	s, err := newServer(t.Context(), path, c, nil, shell{}.env(&output{}, &output{changed: make(chan struct{}, 1)}, nil))
	require.NoError(t, err)
	t.Cleanup(s.close)
	return s
}

func TestEachInstrumentIsRegistered(t *testing.T) {
	servers := []*server{
		wired(t, "store: {sqlite: FOLDER/tokens.db}\ntls: {internal: true, internal_storage: FOLDER/internal}"),
		wired(t, "store: {postgres: 'host=127.0.0.1 port=1'}\ndpop: {replay: postgres, replay_on_error: nonce}"),
	}
	for _, i := range instruments {
		registered := slices.ContainsFunc(servers, func(s *server) bool {
			return s.metrics.registry.Register(prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: i.name, Help: i.help}, i.labels)) != nil
		})
		assert.True(t, registered, "%s is nowhere registered", i.name)
	}
}

// shown are the families of a server's /metrics, by name.
func shown(t *testing.T, s *server) map[string]*dto.MetricFamily {
	t.Helper()
	all, err := s.metrics.registry.Gather()
	require.NoError(t, err)
	families := map[string]*dto.MetricFamily{}
	for _, f := range all {
		families[f.GetName()] = f
	}
	return families
}

func TestEachMetricShownIsAnInstrument(t *testing.T) {
	s := wired(t, "store: {sqlite: FOLDER/tokens.db}\ntls: {internal: true, internal_storage: FOLDER/internal}")
	s.metrics.observe(&proxy.Event{Route: "/", Verdict: proxy.Refused, Reason: dpop.NonceMissing, Status: 401, Challenged: true, Thumbprint: "jkt", Upstream: time.Second, Would: dpop.ProofReplayed})
	found := 0
	for name, f := range shown(t, s) {
		if regexp.MustCompile(`^(go|process)_`).MatchString(name) {
			continue
		}
		i := instrumentNamed(name, kind(strings.ToLower(f.GetType().String())))
		assert.Equal(t, i.help, f.GetHelp(), name)
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		assert.ElementsMatch(t, i.labels, labels, name)
		found++
	}
	assert.Greater(t, found, 20)
}

// value is that of the counter or gauge with these labels, or how often a histogram has observed something; -1 for none.
func value(t *testing.T, s *server, name string, labels ...string) float64 {
	t.Helper()
	for _, m := range shown(t, s)[name].GetMetric() {
		var got []string
		for _, l := range m.GetLabel() {
			got = append(got, l.GetName()+"="+l.GetValue())
		}
		if !slices.Equal(slices.Sorted(slices.Values(labels)), slices.Sorted(slices.Values(got))) {
			continue
		}
		switch {
		case m.GetCounter() != nil:
			return m.GetCounter().GetValue()
		case m.GetHistogram() != nil:
			return float64(m.GetHistogram().GetSampleCount())
		}
		return m.GetGauge().GetValue()
	}
	return -1
}

func TestMetricsCountWhatEventsSay(t *testing.T) {
	s := wired(t, "store: {sqlite: FOLDER/tokens.db}")
	zero := []string{"route=/", "verdict=passed", "reason=", "status=2xx"}
	assert.Zero(t, value(t, s, "dpopgate_requests_total", zero...), "a route is there before its first request")
	assert.Zero(t, value(t, s, "dpopgate_nonce_challenges_total", "route=/"))
	for _, e := range []proxy.Event{
		{Route: "/", Verdict: proxy.Passed, Status: 204, Thumbprint: "jkt", Offset: -2 * time.Second, Upstream: time.Millisecond},
		{Route: "/", Verdict: proxy.Passed, Status: 200},
		{Route: "/", Verdict: proxy.Refused, Reason: dpop.IATPast, Status: 401, Challenged: true, Thumbprint: "jkt", Offset: -time.Hour},
		{Route: "/", Verdict: proxy.Failed, Reason: proxy.ClientGone},
		{Verdict: proxy.Refused, Reason: proxy.HostUnknown, Status: 421},
	} {
		s.metrics.observe(&e)
	}
	assert.EqualValues(t, 2, value(t, s, "dpopgate_requests_total", zero...))
	assert.EqualValues(t, 1, value(t, s, "dpopgate_requests_total", "route=/", "verdict=refused", "reason=iat_past", "status=4xx"))
	assert.EqualValues(t, 1, value(t, s, "dpopgate_requests_total", "route=/", "verdict=failed", "reason=client_gone", "status=none"))
	assert.EqualValues(t, 1, value(t, s, "dpopgate_requests_total", "route=", "verdict=refused", "reason=host_unknown", "status=4xx"))
	assert.EqualValues(t, 1, value(t, s, "dpopgate_nonce_challenges_total", "route=/"))
	assert.EqualValues(t, 1, value(t, s, "dpopgate_upstream_seconds", "route=/"))
	assert.EqualValues(t, 5, value(t, s, "dpopgate_decision_seconds"))
	assert.EqualValues(t, 1, value(t, s, "dpopgate_proof_clock_offset_seconds", "proof=accepted"))
	assert.EqualValues(t, 1, value(t, s, "dpopgate_proof_clock_offset_seconds", "proof=refused"))
	var sum uint64
	for _, n := range s.metrics.traffic.sums() {
		sum += n
	}
	assert.EqualValues(t, 5, sum)
}

func TestCountingARequestAllocatesNothing(t *testing.T) {
	m := newMetrics()
	e := &proxy.Event{Route: "GET /orders/", Verdict: proxy.Passed, Status: 200, Thumbprint: "jkt", Upstream: time.Millisecond, Auth: time.Microsecond}
	m.observe(e)
	assert.Zero(t, testing.AllocsPerRun(100, func() { m.observe(e) }))
}

func TestRequestsUnderWayAreShown(t *testing.T) {
	s := wired(t, "store: {sqlite: FOLDER/tokens.db}")
	h := s.metrics.counting(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		assert.EqualValues(t, 1, value(t, s, "dpopgate_requests_in_flight"))
	}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	assert.Zero(t, value(t, s, "dpopgate_requests_in_flight"))
}

func BenchmarkObserve(b *testing.B) {
	m := newMetrics()
	e := &proxy.Event{Route: "GET /orders/", Verdict: proxy.Passed, Status: 200, Thumbprint: "jkt", Upstream: time.Millisecond, Auth: time.Microsecond}
	b.ReportAllocs()
	for b.Loop() {
		m.observe(e)
	}
}

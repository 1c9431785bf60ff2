package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// queriesOf are all queries of the dashboard as it is written, with Grafana's variables filled in.
func queriesOf(t *testing.T) (queries []string) {
	t.Helper()
	data, err := grafanaDashboard()
	require.NoError(t, err)
	var d struct {
		Panels []struct {
			ID      int    `json:"id"`
			Type    string `json:"type"`
			Title   string `json:"title"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	require.NoError(t, json.Unmarshal(data, &d))
	ids := map[int]bool{}
	for _, p := range d.Panels {
		assert.False(t, ids[p.ID], "an id of its own: %s", p.Title)
		ids[p.ID] = true
		assert.Equal(t, p.Type == "row", len(p.Targets) == 0, p.Title)
		for _, q := range p.Targets {
			queries = append(queries, strings.NewReplacer("$instance", ".*", "$__rate_interval", "1m").Replace(q.Expr))
		}
	}
	require.NotEmpty(t, queries)
	return queries
}

func TestEachInstrumentIsOnTheDashboard(t *testing.T) {
	shown := map[string]bool{}
	for _, q := range queriesOf(t) {
		assert.NotContains(t, q, "$")
		for _, name := range knownMetrics(t, q) {
			shown[name] = true
		}
	}
	for _, i := range instruments {
		assert.True(t, shown[i.name], i.name)
	}
}

// startPrometheus is a real one that scrapes a gateway, with the alerts that are shipped. It is its URL.
func startPrometheus(t *testing.T, g *gateway) string {
	t.Helper()
	program := fromPrometheus(t, "prometheus")
	folder, address := t.TempDir(), freeAddresses(t, 1)[0]
	said := shell{}.run(t, "init", "--for", "prometheus", filepath.Join(folder, "alerts.yaml"))
	require.Equal(t, exitOK, said.code, said.stderr)
	config := filepath.Join(folder, "prometheus.yml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil,
		"global: {scrape_interval: 200ms, evaluation_interval: 200ms}\nrule_files: [alerts.yaml]\nscrape_configs: [{job_name: dpopgate, scrape_timeout: 200ms, static_configs: [{targets: [%q]}]}]\n",
		strings.TrimPrefix(g.admin, "http://")), 0o600))
	var log bytes.Buffer
	cmd := exec.Command(program, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(folder, "data"), "--web.listen-address="+address)
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return "http://" + address
}

// queried is what a Prometheus answers to a query.
func queried(t *testing.T, prometheus, query string) (results []json.RawMessage) {
	t.Helper()
	res, err := http.Get(prometheus + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return nil // it is starting
	}
	defer res.Body.Close()
	var answer struct {
		Status, Error string
		Warnings      []string
		Data          struct{ Result []json.RawMessage }
	}
	if json.NewDecoder(res.Body).Decode(&answer) != nil {
		return nil // likewise
	}
	assert.Equal(t, "success", answer.Status, "%s: %s", query, answer.Error)
	assert.Empty(t, answer.Warnings, query)
	return answer.Data.Result
}

func TestPrometheusTakesMetricsAlertsAndDashboard(t *testing.T) {
	t.Parallel()
	promtool := fromPrometheus(t, "promtool")
	upstream, _ := answering(t, func(http.ResponseWriter, *http.Request) {})
	g := startGateway(t, "  - {match: /, upstream: "+upstream+", scopes: [a]}", "")
	owner := newHolder(t, g)
	require.Equal(t, http.StatusOK, answerTo(t, owner.request(t, g, "/")))
	require.Equal(t, http.StatusUnauthorized, answerTo(t, owner.bearer(t, g, "/")))

	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = strings.NewReader(textOfPage(t, g.admin+"/metrics"))
	out, err := check.CombinedOutput()
	assert.NoError(t, err, "%s", out)
	assert.Empty(t, string(out))

	prometheus := startPrometheus(t, g)
	require.Eventually(t, func() bool {
		return len(queried(t, prometheus, "count_over_time(dpopgate_build_info[1m]) > 3")) > 0
	}, time.Minute, 100*time.Millisecond, "a few scrapes")
	empty := 0
	for _, q := range queriesOf(t) {
		if len(queried(t, prometheus, q)) == 0 {
			empty++
		}
	}
	assert.Less(t, empty, len(queriesOf(t))/2, "queries without a result: this gateway has neither TLS, Postgres nor upstreams that fail")
	assert.Len(t, queried(t, prometheus, `dpopgate_requests_total{verdict="refused",reason="scheme_unsupported",status="4xx",route="/"}`), 1)
	_, rules := shippedAlerts(t)
	loaded := textOfPage(t, prometheus+"/api/v1/rules")
	for _, r := range rules.Groups[0].Rules {
		queried(t, prometheus, r.Expr)
		assert.Contains(t, loaded, `"name":"`+r.Alert+`"`)
	}
	require.Eventually(t, func() bool { return !strings.Contains(textOfPage(t, prometheus+"/api/v1/rules"), `"health":"unknown"`) }, time.Minute, 100*time.Millisecond)
	assert.NotContains(t, textOfPage(t, prometheus+"/api/v1/rules"), `"health":"err"`)
}

func TestHistogramsHaveNativeBucketsToo(t *testing.T) {
	s := wired(t, "store: {sqlite: FOLDER/tokens.db}")
	s.metrics.auth.Observe(.001)
	h := shown(t, s)["dpopgate_decision_seconds"].GetMetric()[0].GetHistogram()
	assert.NotNil(t, h.Schema)
	assert.NotEmpty(t, h.GetPositiveSpan())
	assert.Len(t, h.GetBucket(), len(fastBuckets))
}

func TestInitWritesWhatPrometheusAndGrafanaRead(t *testing.T) {
	folder := t.TempDir()
	for name, want := range map[string]string{"prometheus": `(?m)^groups:$`, "grafana": `"title": "dpopgate"`} {
		file := filepath.Join(folder, name)
		said := shell{}.run(t, "init", "--for", name, file)
		require.Equal(t, exitOK, said.code, said.stderr)
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Regexp(t, regexp.MustCompile(want), string(text))
		assert.Equal(t, exitFailure, shell{}.run(t, "init", "--for", name, file).code, "nothing is overwritten")
	}
}

package main

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// panel is one picture of the dashboard. What it means is the help of the instruments in its queries.
type panel struct {
	title   string
	unit    string // as Grafana calls it
	kind    string // of the panel; empty: timeseries
	queries []query
}

// query is a PromQL expression, and what the legend says of each of its results. $i is the choice of instances.
type query struct{ expr, legend string }

// dashboardRow is the panels about one thing.
type dashboardRow struct {
	title  string
	panels []panel
}

// quantiles are three lines of a histogram. by names the labels that are kept, each with a comma in front.
func quantiles(histogram, by, legend string) (queries []query) {
	for _, q := range []struct{ q, name string }{{"0.5", "median"}, {"0.95", "95 %"}, {"0.99", "99 %"}} {
		queries = append(queries, query{"histogram_quantile(" + q.q + ", sum by (le" + by + ") (rate(" + histogram + "_bucket{$i}[$__rate_interval])))", strings.TrimSpace(q.name + " " + legend)})
	}
	return queries
}

// dashboard has every instrument in at least one of its panels.
var dashboard = []dashboardRow{
	{"Requests", []panel{
		{"Requests by verdict", "reqps", "", []query{{"sum by (verdict) (rate(dpopgate_requests_total{$i}[$__rate_interval]))", "{{verdict}}"}}},
		{"Requests by route", "reqps", "", []query{{"sum by (route) (rate(dpopgate_requests_total{$i}[$__rate_interval]))", "{{route}}"}}},
		{"Answers by status", "reqps", "", []query{{"sum by (status) (rate(dpopgate_requests_total{$i}[$__rate_interval]))", "{{status}}"}}},
		{"Requests under way", "short", "", []query{{"sum(dpopgate_requests_in_flight{$i})", "requests and streams"}}},
	}},
	{"Why requests are refused or fail", []panel{
		{"By reason", "reqps", "", []query{{`sum by (reason) (rate(dpopgate_requests_total{$i,reason!=""}[$__rate_interval]))`, "{{reason}}"}}},
		{"The most frequent of the last hour", "short", "table", []query{{`topk(20, sum by (route, reason) (increase(dpopgate_requests_total{$i,reason!=""}[1h])))`, "{{route}} {{reason}}"}}},
		{"What enforcing would refuse", "short", "table", []query{{"topk(20, sum by (route, reason, client_id) (increase(dpopgate_would_refuse_total{$i}[1h])))", "{{route}} {{reason}} {{client_id}}"}}},
		{"Nonces asked for", "reqps", "", []query{{"sum by (route) (rate(dpopgate_nonce_challenges_total{$i}[$__rate_interval]))", "{{route}}"}}},
		{"Clocks of clients", "s", "", quantiles("dpopgate_proof_clock_offset_seconds", ", proof", "{{proof}}")},
		{"Misuse", "short", "", []query{{`sum by (kind, result) (increase(dpopgate_misuse_total{$i}[$__rate_interval]))`, "{{kind}} {{result}}"}}},
	}},
	{"Time", []panel{
		{"Time to decide", "s", "", quantiles("dpopgate_decision_seconds", "", "")},
		{"Time of the upstreams", "s", "", quantiles("dpopgate_upstream_seconds", ", route", "{{route}}")},
		{"Targets that are down", "short", "", []query{{"sum by (upstream) (1 - dpopgate_upstream_target_up{$i})", "{{upstream}}"}}},
		{"Requests at each target", "short", "", []query{{"sum by (upstream, target) (dpopgate_upstream_target_requests{$i})", "{{target}}"}}},
	}},
	{"Tokens", []panel{
		{"Lookups", "reqps", "", []query{
			{"sum(rate(dpopgate_token_cache_hits_total{$i}[$__rate_interval]))", "known"},
			{"sum(rate(dpopgate_token_cache_negative_hits_total{$i}[$__rate_interval]))", "known to be unknown"},
			{"sum(rate(dpopgate_token_cache_misses_total{$i}[$__rate_interval]))", "missed"},
			{"sum(rate(dpopgate_token_store_queries_total{$i}[$__rate_interval]))", "queries"},
			{"sum(rate(dpopgate_token_cache_stale_hits_total{$i}[$__rate_interval]))", "past their time"},
			{"sum(rate(dpopgate_token_store_refused_total{$i}[$__rate_interval]))", "given up"},
		}},
		{"Time of a lookup in the store", "s", "", quantiles("dpopgate_token_store_lookup_seconds", ", result", "{{result}}")},
		{"The cache", "bytes", "", []query{{"sum(dpopgate_token_cache_bytes{$i})", "used"}, {"sum(dpopgate_token_cache_max_bytes{$i})", "bound"}}},
		{"Records that made room", "reqps", "", []query{
			{"sum(rate(dpopgate_token_cache_evictions_total{$i}[$__rate_interval]))", "pushed out"},
			{"sum(rate(dpopgate_token_cache_drops_total{$i}[$__rate_interval]))", "not taken in"},
		}},
		{"Connections to Postgres", "short", "", []query{
			{"sum by (pool, state) (dpopgate_database_connections{$i})", "{{pool}} {{state}}"},
			{"sum by (pool) (dpopgate_database_max_connections{$i})", "{{pool}} bound"},
		}},
		{"Waits for a connection", "s", "", []query{{"sum by (pool) (rate(dpopgate_database_wait_seconds_total{$i}[$__rate_interval])) / sum by (pool) (rate(dpopgate_database_waits_total{$i}[$__rate_interval]))", "{{pool}}"}}},
	}},
	{"Used proofs and revocations", []panel{
		{"Memory of used proofs", "percentunit", "", []query{{"dpopgate_replay_entries{$i} / dpopgate_replay_capacity{$i}", "{{instance}}"}}},
		{"Its size", "bytes", "", []query{{"dpopgate_replay_bytes{$i}", "{{instance}}"}}},
		{"Time of a claim in the shared store", "s", "", quantiles("dpopgate_replay_claim_seconds", ", result", "{{result}}")},
		{"Shared replay store away", "short", "", []query{{"dpopgate_replay_fallback{$i}", "{{instance}}"}}},
		{"Revocations heard of", "short", "", []query{
			{"sum(increase(dpopgate_revocation_notices_total{$i}[$__rate_interval]))", "notices"},
			{"min(dpopgate_revocation_listening{$i})", "all listen"},
		}},
	}},
	{"The gateway", []panel{
		{"Certificates end in", "s", "", []query{{"min by (host) (dpopgate_certificate_expiry_seconds{$i})", "{{host}}"}, {"max by (host) (dpopgate_certificate_lifetime_seconds{$i})", "{{host}} lifetime"}}},
		{"Certificates that could not be had", "short", "", []query{{"sum by (host) (increase(dpopgate_certificate_failures_total{$i}[1h]))", "{{host}}"}}},
		{"What could not be told", "short", "", []query{
			{"sum(increase(dpopgate_audit_failures_total{$i}[1h]))", "security events"},
			{"sum(increase(dpopgate_trace_spans_lost_total{$i}[1h]))", "spans"},
		}},
		{"Config as it is in the file", "short", "", []query{{"dpopgate_config_last_reload_successful{$i}", "{{instance}}"}}},
		{"Age of the config in force", "s", "", []query{{"time() - dpopgate_config_last_reload_success_timestamp_seconds{$i}", "{{instance}}"}}},
		{"Memory", "bytes", "", []query{{"process_resident_memory_bytes{$i}", "{{instance}}"}}},
		{"CPU", "percentunit", "", []query{{"rate(process_cpu_seconds_total{$i}[$__rate_interval])", "{{instance}}"}}},
		{"Versions", "short", "table", []query{{"count by (version, commit, goversion) (dpopgate_build_info{$i})", "{{version}} {{commit}}"}}},
	}},
}

var metricName = regexp.MustCompile(`\bdpopgate_[a-z_]+`)

// meaning is the help of the instruments in its queries.
func (p panel) meaning() string {
	var lines []string
	for _, q := range p.queries {
		for _, name := range metricName.FindAllString(q.expr, -1) {
			for _, i := range instruments {
				if i.name == strings.TrimSuffix(name, "_bucket") && !slices.Contains(lines, i.help) {
					lines = append(lines, i.help)
				}
			}
		}
	}
	return strings.Join(lines, "\n\n")
}

// object is a JSON object.
type object = map[string]any

// grafanaDashboard is the dashboard as Grafana imports it.
func grafanaDashboard() ([]byte, error) {
	const width, height, perRow = 8, 8, 3
	source := object{"type": "prometheus", "uid": "${datasource}"}
	var panels []object
	y := 0
	for _, r := range dashboard {
		panels = append(panels, object{"type": "row", "title": r.title, "collapsed": false, "panels": []object{}, "gridPos": object{"x": 0, "y": y, "w": 24, "h": 1}})
		y++
		for i, p := range r.panels {
			panels = append(panels, p.object(source, object{"x": i % perRow * width, "y": y + i/perRow*height, "w": width, "h": height}))
		}
		y += (len(r.panels) + perRow - 1) / perRow * height
	}
	for i := range panels {
		panels[i]["id"] = i + 1
	}
	return json.MarshalIndent(object{
		"title": "dpopgate", "uid": "dpopgate", "tags": []string{"dpopgate"}, "schemaVersion": 39, "editable": true,
		"time": object{"from": "now-1h", "to": "now"}, "refresh": "30s",
		"templating": object{"list": []object{
			{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
			{
				"name": "instance", "label": "Instance", "type": "query", "datasource": source, "refresh": 2, "sort": 1,
				"query": object{"query": "label_values(dpopgate_build_info, instance)", "refId": "instances"},
				"multi": true, "includeAll": true, "allValue": ".*", "current": object{"text": "All", "value": "$__all"},
			},
		}},
		"panels": panels,
	}, "", "  ")
}

// object is the panel as Grafana has it.
func (p panel) object(source, at object) object {
	var targets []object
	for i, q := range p.queries {
		target := object{"refId": string(rune('A' + i)), "datasource": source, "expr": strings.ReplaceAll(q.expr, "$i", `instance=~"$instance"`), "legendFormat": q.legend}
		if p.kind == "table" {
			target["instant"], target["format"] = true, "table"
		}
		targets = append(targets, target)
	}
	kind := p.kind
	if kind == "" {
		kind = "timeseries"
	}
	return object{
		"type": kind, "title": p.title, "description": p.meaning(), "datasource": source, "gridPos": at, "targets": targets,
		"fieldConfig": object{"defaults": object{"unit": p.unit}, "overrides": []object{}}, "options": object{},
	}
}

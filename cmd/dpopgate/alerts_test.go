package main

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"
)

// rulesFile is the alerts as they are shipped.
type rulesFile struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []rule `yaml:"rules"`
	} `yaml:"groups"`
}

type rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for,omitempty"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

func shippedAlerts(t *testing.T) (text []byte, rules rulesFile) {
	t.Helper()
	text, err := fs.ReadFile(frontFiles, "fronts/dpopgate_alerts.yaml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &rules))
	require.NotEmpty(t, rules.Groups[0].Rules)
	return text, rules
}

// fromPrometheus is a program of Prometheus, beside that which the variable names.
func fromPrometheus(t *testing.T, name string) string {
	t.Helper()
	at := os.Getenv("DPOPGATE_TEST_PROMETHEUS")
	if at == "" {
		if os.Getenv("CI") != "" {
			require.FailNow(t, "DPOPGATE_TEST_PROMETHEUS is not set: ./test sets it")
		}
		t.Skip("no Prometheus: ./test starts one")
	}
	return filepath.Join(filepath.Dir(at), name)
}

// requests is a series of requests, so many more each minute.
func requests(labels string, perMinute int) string {
	return fmt.Sprintf(`dpopgate_requests_total{instance="a",%s} 0+%dx130`, labels, perMinute)
}

// alertCases have, for each alert, the series with which it fires after two hours, the labels that it has then, and
// series with which it does not.
var alertCases = map[string]struct {
	fires  []string
	labels map[string]string
	quiet  []string
}{
	"DpopgateDown": {[]string{`up{job="dpopgate",instance="a"} 0x130`}, map[string]string{"job": "dpopgate"}, []string{`up{job="dpopgate",instance="a"} 1x130`}},
	"DpopgateCannotCheck": {
		[]string{requests(`route="/",verdict="refused",reason="store_unavailable",status="5xx"`, 1)},
		map[string]string{"reason": "store_unavailable"},
		[]string{`dpopgate_requests_total{instance="a",route="/",verdict="refused",reason="store_unavailable",status="5xx"} 7x130`, requests(`route="/",verdict="refused",reason="token_expired",status="4xx"`, 9)},
	},
	"DpopgateUpstreamFails": {
		[]string{requests(`route="/",verdict="failed",reason="upstream_late",status="5xx"`, 6), requests(`route="/",verdict="passed",reason="",status="2xx"`, 94)},
		map[string]string{"route": "/"},
		[]string{requests(`route="/",verdict="failed",reason="upstream_late",status="5xx"`, 4), requests(`route="/",verdict="failed",reason="client_gone",status="5xx"`, 50), requests(`route="/",verdict="passed",reason="",status="2xx"`, 94)},
	},
	"DpopgateNoTargetLeft": {
		[]string{`dpopgate_upstream_target_up{instance="a",upstream="u",target="x"} 0x130`, `dpopgate_upstream_target_up{instance="a",upstream="u",target="y"} 0x130`},
		map[string]string{"upstream": "u"},
		[]string{`dpopgate_upstream_target_up{instance="a",upstream="u",target="x"} 0x130`, `dpopgate_upstream_target_up{instance="a",upstream="u",target="y"} 1x130`},
	},
	"DpopgateTargetDown": {
		[]string{`dpopgate_upstream_target_up{instance="a",upstream="u",target="x"} 0x130`},
		map[string]string{"upstream": "u", "target": "x"},
		[]string{`dpopgate_upstream_target_up{instance="a",upstream="u",target="x"} 1 0 1 0 1 0 1 1x123`},
	},
	"DpopgateManyRefused": {
		[]string{requests(`route="/",verdict="refused",reason="key_not_bound",status="4xx"`, 31), requests(`route="/",verdict="passed",reason="",status="2xx"`, 69)},
		map[string]string{"route": "/"},
		[]string{requests(`route="/",verdict="refused",reason="key_not_bound",status="4xx"`, 20), requests(`route="/",verdict="refused",reason="credentials_missing",status="4xx"`, 50), requests(`route="/",verdict="passed",reason="",status="2xx"`, 30)},
	},
	"DpopgateClocksApart": {
		[]string{requests(`route="/",verdict="refused",reason="iat_past",status="4xx"`, 6), requests(`route="/",verdict="passed",reason="",status="2xx"`, 94)},
		nil,
		[]string{requests(`route="/",verdict="refused",reason="iat_past",status="4xx"`, 4), requests(`route="/",verdict="passed",reason="",status="2xx"`, 96)},
	},
	"DpopgateTokenMisused": {
		[]string{`dpopgate_misuse_total{instance="a",kind="other_key",result="logged"} 0x115 1x15`},
		map[string]string{"kind": "other_key", "result": "logged"},
		[]string{`dpopgate_misuse_total{instance="a",kind="other_key",result="unconfirmed"} 0+9x130`, `dpopgate_misuse_total{instance="a",kind="replay",result="logged"} 0+9x130`},
	},
	"DpopgateProofsRepeated": {
		[]string{`dpopgate_misuse_total{instance="a",kind="replay",result="logged"} 0+2x130`},
		nil,
		[]string{`dpopgate_misuse_total{instance="a",kind="replay",result="logged"} 0x115 3x15`},
	},
	"DpopgateRevocationsUnheard": {
		[]string{`dpopgate_revocation_listening{instance="a"} 0x130`},
		nil,
		[]string{`dpopgate_revocation_listening{instance="a"} 1x130`},
	},
	"DpopgateReplayMemoryNearlyFull": {
		[]string{`dpopgate_replay_entries{instance="a"} 81x130`, `dpopgate_replay_capacity{instance="a"} 100x130`},
		nil,
		[]string{`dpopgate_replay_entries{instance="a"} 79x130`, `dpopgate_replay_capacity{instance="a"} 100x130`},
	},
	"DpopgateReplayStoreAway": {
		[]string{`dpopgate_replay_fallback{instance="a"} 1x130`},
		nil,
		[]string{`dpopgate_replay_fallback{instance="a"} 0x130`},
	},
	"DpopgateStaleTokens": {
		[]string{`dpopgate_token_cache_stale_hits_total{instance="a"} 0+1x130`},
		nil,
		[]string{`dpopgate_token_cache_stale_hits_total{instance="a"} 7x130`},
	},
	"DpopgateSlowDecisions": {
		[]string{`dpopgate_decision_seconds_bucket{instance="a",le="0.25"} 0+90x130`, `dpopgate_decision_seconds_bucket{instance="a",le="0.5"} 0+100x130`, `dpopgate_decision_seconds_bucket{instance="a",le="+Inf"} 0+100x130`},
		nil,
		[]string{`dpopgate_decision_seconds_bucket{instance="a",le="0.1"} 0+100x130`, `dpopgate_decision_seconds_bucket{instance="a",le="0.5"} 0+100x130`, `dpopgate_decision_seconds_bucket{instance="a",le="+Inf"} 0+100x130`},
	},
	"DpopgateConnectionsUsedUp": {
		[]string{`dpopgate_database_connections{instance="a",pool="tokens",state="in_use"} 10x130`, `dpopgate_database_max_connections{instance="a",pool="tokens"} 10x130`},
		map[string]string{"pool": "tokens"},
		[]string{`dpopgate_database_connections{instance="a",pool="tokens",state="in_use"} 5x130`, `dpopgate_database_connections{instance="a",pool="tokens",state="idle"} 5x130`, `dpopgate_database_max_connections{instance="a",pool="tokens"} 10x130`},
	},
	"DpopgateCertificateNotRenewed": {
		[]string{`dpopgate_certificate_expiry_seconds{instance="a",host="h"} 29x130`, `dpopgate_certificate_lifetime_seconds{instance="a",host="h"} 100x130`},
		map[string]string{"host": "h"},
		[]string{`dpopgate_certificate_expiry_seconds{instance="a",host="h"} 31x130`, `dpopgate_certificate_lifetime_seconds{instance="a",host="h"} 100x130`},
	},
	"DpopgateCertificateExpires": {
		[]string{`dpopgate_certificate_expiry_seconds{instance="a",host="h"} -5x130`, `dpopgate_certificate_lifetime_seconds{instance="a",host="h"} 100x130`},
		map[string]string{"host": "h"},
		[]string{`dpopgate_certificate_expiry_seconds{instance="a",host="h"} 11x130`, `dpopgate_certificate_lifetime_seconds{instance="a",host="h"} 100x130`},
	},
	"DpopgateAuditIncomplete": {
		[]string{`dpopgate_audit_failures_total{instance="a"} 0x115 1x15`},
		nil,
		[]string{`dpopgate_audit_failures_total{instance="a"} 3x130`},
	},
	"DpopgateConfigRefused": {
		[]string{`dpopgate_config_last_reload_successful{instance="a"} 0x130`},
		nil,
		[]string{`dpopgate_config_last_reload_successful{instance="a"} 1x130`},
	},
}

// alertTest is a file for promtool test rules.
func alertTest(rules rulesFile, file string) object {
	var tests []object
	try := func(alert, severity string, series []string, fires map[string]string) {
		var input []object
		for _, s := range series {
			at := strings.LastIndex(s, "} ") + 1
			input = append(input, object{"series": s[:at], "values": s[at+1:]})
		}
		want := []object{}
		if fires != nil {
			labels := map[string]string{"severity": severity, "instance": "a"}
			maps.Copy(labels, fires)
			want = append(want, object{"exp_labels": labels})
		}
		tests = append(tests, object{"interval": "1m", "name": alert, "input_series": input, "alert_rule_test": []object{{"eval_time": "2h", "alertname": alert, "exp_alerts": want}}})
	}
	for _, r := range rules.Groups[0].Rules {
		c := alertCases[r.Alert]
		labels := map[string]string{}
		maps.Copy(labels, c.labels)
		try(r.Alert, r.Labels["severity"], c.fires, labels)
		try(r.Alert, r.Labels["severity"], c.quiet, nil)
	}
	return object{"rule_files": []string{file}, "evaluation_interval": "1m", "tests": tests}
}

func TestEachAlertFiresWhenItShouldAndOnlyThen(t *testing.T) {
	promtool := fromPrometheus(t, "promtool")
	text, rules := shippedAlerts(t)
	folder := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	out, err := exec.Command(promtool, "check", "rules", "--lint=all", "--lint-fatal", write("shipped.yaml", text)).CombinedOutput()
	require.NoError(t, err, "%s", out)
	for i := range rules.Groups[0].Rules { // promtool would want their words again
		rules.Groups[0].Rules[i].Annotations = nil
	}
	bare, err := yaml.Marshal(rules)
	require.NoError(t, err)
	tests, err := yaml.Marshal(alertTest(rules, write("bare.yaml", bare)))
	require.NoError(t, err)
	out, err = exec.Command(promtool, "test", "rules", write("tests.yaml", tests)).CombinedOutput()
	assert.NoError(t, err, "%s", out)
}

func TestEachAlertIsTestedAndSaysWhatToDo(t *testing.T) {
	_, rules := shippedAlerts(t)
	names := map[string]bool{}
	for _, r := range rules.Groups[0].Rules {
		names[r.Alert] = true
		assert.Contains(t, alertCases, r.Alert)
		assert.Contains(t, []string{"critical", "warning"}, r.Labels["severity"])
		assert.NotEmpty(t, r.Annotations["summary"])
		knownMetrics(t, r.Expr)
		for _, text := range r.Annotations {
			knownMetrics(t, text)
		}
	}
	for name := range alertCases {
		assert.True(t, names[name], name)
	}
}

// knownMetrics requires that the metrics in a text are instruments, and names them.
func knownMetrics(t *testing.T, text string) (names []string) {
	t.Helper()
	for _, name := range metricName.FindAllString(text, -1) {
		name = strings.TrimSuffix(name, "_bucket")
		known := slices.ContainsFunc(instruments, func(i instrument) bool { return i.name == name })
		assert.True(t, known, "%s is no instrument: %s", name, text)
		names = append(names, name)
	}
	return names
}

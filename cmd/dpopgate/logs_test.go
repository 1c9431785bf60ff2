package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/proxy"
)

// logsPage are the rows of the tables of help/logs.md, each cell with the words in it that are code.
func logsPage(t *testing.T, chapter string) (rows [][][]string) {
	t.Helper()
	text, err := os.ReadFile("help/logs.md")
	require.NoError(t, err)
	_, text, found := bytes.Cut(text, []byte("\n## "+chapter+"\n"))
	require.True(t, found, chapter)
	text, _, _ = bytes.Cut(text, []byte("\n## "))
	code := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		var row [][]string
		for cell := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), " | ") {
			words := []string{}
			for _, m := range code.FindAllStringSubmatch(cell, -1) {
				words = append(words, m[1])
			}
			if len(words) == 0 {
				words = append(words, strings.TrimSpace(cell))
			}
			row = append(row, words)
		}
		rows = append(rows, row)
	}
	require.NotEmpty(t, rows)
	return rows
}

// requestFields are the documented fields of a request's line, and their types.
func requestFields(t *testing.T) map[string]string {
	t.Helper()
	fields := map[string]string{"time": "string", "level": "string", "msg": "string"}
	for _, row := range logsPage(t, "Requests") {
		for _, field := range row[0] {
			fields[field] = row[1][0]
		}
	}
	return fields
}

// auditFields are the documented fields of each security event.
func auditFields(t *testing.T) map[string][]string {
	t.Helper()
	token := []string{"token_id", "client_id", "user_id", "bound_jkt", "shown_jkt", "request_id", "route", "client_address"}
	fields := map[string][]string{}
	for _, row := range logsPage(t, "Security events") {
		for _, event := range row[0] {
			fields[event] = append([]string{"time", "event"}, row[1]...)
			if event == "misuse" || event == "replay" {
				fields[event] = append(fields[event], token...)
			}
		}
	}
	return fields
}

// documented requires of each line of a log that it is as the page logs has it, and gives those of requests.
func documented(t *testing.T, log string) (requests []map[string]any) {
	t.Helper()
	fields := requestFields(t)
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "{") {
			continue // what a test has written between
		}
		var got map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &got), line)
		_, err := time.Parse(time.RFC3339, got["time"].(string))
		assert.NoError(t, err)
		assert.Contains(t, []any{"DEBUG", "INFO", "WARN", "ERROR"}, got["level"])
		assert.NotEmpty(t, got["msg"])
		if got["msg"] != "request" {
			continue
		}
		requests = append(requests, got)
		for name, value := range got {
			kind, ok := fields[name]
			if !assert.True(t, ok, "%s is not documented", name) {
				continue
			}
			_, isNumber := value.(float64)
			_, isString := value.(string)
			assert.Equal(t, kind, map[bool]string{isNumber: "number", isString: "string"}[true], name)
		}
	}
	return requests
}

// audited requires the same of each line of the audit stream, and gives them.
func audited(t *testing.T, stream string) (events []map[string]any) {
	t.Helper()
	fields := auditFields(t)
	for line := range strings.Lines(stream) {
		var got map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &got), line)
		known, ok := fields[got["event"].(string)]
		require.True(t, ok, line)
		for name := range got {
			assert.Contains(t, known, name, line)
		}
		events = append(events, got)
	}
	return events
}

func TestEachFieldOfALineIsDocumentedAndWritten(t *testing.T) {
	all := logged(t, true, &proxy.Event{
		RequestID: "r", TraceID: "t", SpanID: "s", Route: "/", Verdict: proxy.Failed, Reason: proxy.UpstreamDown, Would: proxy.UpstreamDown, Asker: "nginx",
		Status: 502, Method: "GET", Host: "h", Path: "/", Protocol: "HTTP/1.1", Client: "c", Scheme: "DPoP", Thumbprint: "j", Algorithm: "ES256",
		TokenID: uuid.New(), ClientID: uuid.New(), UserID: uuid.NullUUID{UUID: uuid.New(), Valid: true},
		Upstream: time.Second, Target: "t", Err: errors.New("e"),
	})
	var written, known []string
	for name := range all {
		written = append(written, name)
	}
	for name := range requestFields(t) {
		if name != "time" {
			known = append(known, name)
		}
	}
	slices.Sort(written)
	slices.Sort(known)
	assert.Equal(t, known, written)
}

func TestSampleThinsOutWhatPassedAndNothingElse(t *testing.T) {
	var out bytes.Buffer
	log, _ := newLogger(&out, config.Log{Level: "info", Format: "json"})
	a := &accessLog{log: log}
	a.all.Store(true)
	lines := func(e proxy.Event) int {
		out.Reset()
		for range 1000 {
			a.Write(&e)
		}
		return bytes.Count(out.Bytes(), []byte("\n"))
	}
	passed := proxy.Event{Verdict: proxy.Passed, Status: 200}
	assert.Equal(t, 1000, lines(passed))
	a.sample.Store(1 << 40)
	assert.Less(t, lines(passed), 10)
	a.sample.Store(2)
	assert.InDelta(t, 500, lines(passed), 300)
	for _, e := range []proxy.Event{
		{Verdict: proxy.Refused, Status: 401},
		{Verdict: proxy.Failed, Status: 502},
		{Verdict: proxy.Passed, Would: proxy.TokenBound},
		{Verdict: proxy.Passed, Reason: proxy.TokenExpired},
	} {
		assert.Equal(t, 1000, lines(e), "%+v", e)
	}
}

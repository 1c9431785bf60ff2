package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
)

// logged is the access log's line for an event as a JSON object; nil for none.
func logged(t *testing.T, all bool, e *proxy.Event) map[string]any {
	t.Helper()
	var out bytes.Buffer
	log, _ := newLogger(&out, config.Log{Level: "info", Format: "json"})
	a := &accessLog{log: log}
	a.all.Store(all)
	a.Write(e)
	if out.Len() == 0 {
		return nil
	}
	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line), "one line of JSON: %s", out.String())
	delete(line, "time")
	return line
}

func TestAccessLineTellsWhoDidWhat(t *testing.T) {
	id := func(s string) uuid.UUID { return uuid.MustParse("00000000-0000-4000-8000-" + s) }
	line := logged(t, true, &proxy.Event{
		RequestID: "R1", Method: "GET", Host: "api.example.com", Path: "/orders/7", Route: "GET /orders/", Status: 200, Verdict: proxy.Passed,
		Duration: 2500 * time.Microsecond, Auth: 120 * time.Microsecond, Upstream: 2 * time.Millisecond,
		Client: "192.0.2.1:4711", Protocol: "HTTP/1.1", Scheme: "DPoP", Thumbprint: "jkt", Algorithm: dpop.ES256,
		TokenID: id("000000000001"), ClientID: id("000000000002"), UserID: uuid.NullUUID{UUID: id("000000000003"), Valid: true}, Written: 42,
	})
	assert.Equal(t, map[string]any{
		"level": "INFO", "msg": "request", "request_id": "R1", "method": "GET", "host": "api.example.com", "path": "/orders/7",
		"route": "GET /orders/", "status": 200.0, "verdict": "passed", "duration_ms": 2.5, "auth_ms": 0.12, "upstream_ms": 2.0,
		"client_address": "192.0.2.1:4711", "protocol": "HTTP/1.1", "scheme": "DPoP", "jkt": "jkt", "alg": "ES256",
		"token_id":  "00000000-0000-4000-8000-000000000001",
		"client_id": "00000000-0000-4000-8000-000000000002",
		"user_id":   "00000000-0000-4000-8000-000000000003", "bytes": 42.0,
	}, line)
}

func TestAccessLineIsAsSevereAsItsCause(t *testing.T) {
	for name, c := range map[string]struct {
		event proxy.Event
		level string
	}{
		"let through":          {proxy.Event{Verdict: proxy.Passed, Status: 500}, "INFO"},
		"the client's doing":   {proxy.Event{Verdict: proxy.Refused, Status: 401}, "INFO"},
		"the client left":      {proxy.Event{Verdict: proxy.Failed, Status: 502, Reason: proxy.ClientGone}, "INFO"},
		"the store is down":    {proxy.Event{Verdict: proxy.Refused, Status: 503, Reason: proxy.StoreUnavailable}, "WARN"},
		"the upstream is down": {proxy.Event{Verdict: proxy.Failed, Status: 502, Reason: proxy.UpstreamDown}, "ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			require.NotNil(t, logged(t, true, &c.event))
			assert.Equal(t, c.level, logged(t, true, &c.event)["level"])
			assert.Equal(t, c.level == "INFO", logged(t, false, &c.event) == nil, "without log.access only what is ours to mend")
		})
	}
}

func TestAccessLineIsBounded(t *testing.T) {
	line := logged(t, true, &proxy.Event{Verdict: proxy.Refused, Path: "/" + strings.Repeat("é", 1<<14), Host: strings.Repeat("h", 1<<14)})
	assert.Less(t, len(line["path"].(string)), 1100)
	assert.Less(t, len(line["host"].(string)), 1100)
}

func TestAccessLineQuotesNoUpstream(t *testing.T) {
	for err, want := range map[error]string{
		fmt.Errorf("reading: %w", textproto.ProtocolError("malformed MIME header line: secret")):      "malformed response header",
		errors.New(`net/http: malformed HTTP response "secret"`):                                      "net/http: malformed HTTP response",
		&net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}:                   "dial tcp: connection refused",
		errors.Join(errors.New("first"), errors.New("second")):                                        "first; second",
		&dpop.Error{Reason: dpop.HTMMismatch, Description: "words", Expected: "GET", Found: "secret"}: "words",
	} {
		assert.Equal(t, want, plainError(err))
	}
}

func TestServerNoiseIsQuietButForPanics(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))
	noiseLog(log, "listen.http").Print("http: TLS handshake error from 192.0.2.1:1: \x1b[31m\nlevel=ERROR")
	assert.Empty(t, out.String())
	noiseLog(log, "listen.http").Print("http: panic serving 192.0.2.1:1: boom\ngoroutine 1")
	assert.Contains(t, out.String(), "level=ERROR")
	assert.Equal(t, 1, strings.Count(out.String(), "\n"), "what is said stays inside its quotes")
}

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
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

// statusRig is a server with everything that it stands on, whose admin listener is served and whose clock stands still.
type statusRig struct {
	*server
	clock *handClock
	url   string
}

const statusRoutes = `
  - {match: GET /orders/, upstream: orders, scopes: [orders:read]}
  - {match: "POST /orders/{id}/refund", upstream: orders, scopes: [orders:write], require_user: true, nonce: required}
  - {match: /legacy/, upstream: "http://127.0.0.1:9", mode: report}
  - {match: GET /health, upstream: orders, public: true}
`

func newStatusRig(t *testing.T, more string) *statusRig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dpopgate.yaml")
	text := fmt.Sprintf("public_urls: [https://api.example.com]\nlisten: {admin: \"127.0.0.1:0\"}\nstore: {sqlite: %q}\n%s\n"+
		"upstreams: {orders: {targets: [\"http://127.0.0.1:9\", \"http://127.0.0.1:10\"], headers: {Authorization: canary-of-orders}}}\nroutes:%s",
		filepath.Join(t.TempDir(), "tokens.db"), more, statusRoutes)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	c, err := config.Load(path)
	require.NoError(t, err)
	s, err := newServer(t.Context(), path, c, nil, shell{}.env(io.Discard, io.Discard, nil))
	require.NoError(t, err)
	t.Cleanup(s.close)
	r := &statusRig{server: s, clock: newHandClock()}
	s.tally.now, s.tally.started = r.clock.now, r.clock.Time
	listener := httptest.NewServer(s.adminServer().Handler)
	t.Cleanup(listener.Close)
	r.url = listener.URL
	return r
}

// overview is what the page is told.
func (r *statusRig) overview(t *testing.T) *overview {
	t.Helper()
	var o overview
	require.NoError(t, json.Unmarshal(r.get(t, "/status"), &o))
	return &o
}

func (r *statusRig) get(t *testing.T, path string) []byte {
	t.Helper()
	res := fetch(t, r.url+path)
	require.Equal(t, http.StatusOK, res.StatusCode, path)
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return text
}

func TestStatusTellsTheLastHour(t *testing.T) {
	r := newStatusRig(t, "")
	good := proxy.Event{Route: "GET /orders/", Verdict: proxy.Passed, ClientID: tallied, Scheme: dpop.SchemeDPoP, Thumbprint: "x", Offset: -700 * time.Millisecond}
	observed(r.tally, 5, good)
	bad := good
	bad.Verdict, bad.Reason, bad.Offset, bad.ClientID = proxy.Refused, dpop.IATPast, -2*time.Minute, uuid.Nil
	observed(r.tally, 2, bad)
	observed(r.tally, 3, proxy.Event{Verdict: proxy.Refused, Reason: proxy.RouteMissing})
	observed(r.tally, 1, proxy.Event{Route: "/legacy/", Verdict: proxy.Passed, Would: dpop.ProofMissing, ClientID: tallied, Scheme: dpop.SchemeDPoP})
	observed(r.tally, 1, proxy.Event{Route: "/legacy/", Verdict: proxy.Failed, Reason: proxy.UpstreamDown})

	o := r.overview(t)
	last := minuteSlots - 1
	assert.Equal(t, []uint32{5, 1, 5, 1}, []uint32{o.Minutes.Passed[last], o.Minutes.Would[last], o.Minutes.Refused[last], o.Minutes.Failed[last]})
	var reasons []string
	for _, reason := range o.Reasons {
		reasons = append(reasons, fmt.Sprintf("%s %d", reason.Reason, reason.Count))
		l, _ := lessonOf(reason.Reason)
		assert.Equal(t, l, reason.lesson, "the cause and the fix are those of explain --reason")
	}
	assert.Equal(t, []string{"route_missing 3", "iat_past 2", "proof_missing 1", "upstream_down 1"}, reasons)
	assert.Equal(t, uint64(1), o.Reasons[2].Would)
	assert.Equal(t, 1, o.Reasons[2].Clients)
	assert.Equal(t, []uint64{2, 0, 0, 5, 0, 0, 0}, o.Offsets)
	assert.Equal(t, uint64(5), o.Routes[0].Passed)
	assert.Equal(t, uint64(2), o.Routes[0].Refused)
	assert.Equal(t, "report", o.Routes[2].Mode)
	assert.Equal(t, "public", o.Routes[3].Mode)
	assert.Contains(t, o.Report.Clients[0].Words, "not yet: 1 of 1 requests")
	assert.Equal(t, statusReplay{Kind: "memory", Capacity: o.Replay.Capacity}, o.Replay)
	assert.Positive(t, o.Replay.Capacity)
	assert.Len(t, o.Targets, 3)
	assert.Nil(t, o.Certs)
	assert.NotContains(t, string(r.get(t, "/status")), "canary")
}

func TestStatusTellsOfReloads(t *testing.T) {
	r := newStatusRig(t, "")
	assert.Nil(t, r.overview(t).Reloaded)
	text, err := os.ReadFile(r.path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(r.path, append(text, []byte("canary-of-a-typo: x\n")...), 0o600))
	r.reload("test")
	told := func() *reloadOutcome { // what is shown may be a second old
		var o overview
		text, err := json.Marshal(r.snapshot())
		require.NoError(t, err)
		assert.NotContains(t, string(text), "canary")
		require.NoError(t, json.Unmarshal(text, &o))
		return o.Reloaded
	}
	got := told()
	assert.False(t, got.OK)
	assert.Len(t, got.Mistakes, 1)
	assert.Regexp(t, `^line \d+, column 1$`, got.Mistakes[0])
	require.NoError(t, os.WriteFile(r.path, append(text, []byte("cache: {ttl: 1s}\n")...), 0o600))
	r.reload("test")
	got = told()
	assert.True(t, got.OK)
	assert.Equal(t, []string{"cache"}, got.Restart)
}

func TestStatusPageLoadsNothingFromElsewhereAndRunsNothingElse(t *testing.T) {
	r := newStatusRig(t, "")
	for _, path := range []string{"/", "/status.css", "/status.js", "/page.css", "/page.svg"} {
		res := fetch(t, r.url+path)
		require.Equal(t, http.StatusOK, res.StatusCode, path)
		assert.Equal(t, pagePolicy, res.Header.Get("Content-Security-Policy"), path)
		assert.Equal(t, "nosniff", res.Header.Get("X-Content-Type-Options"))
		text, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		assert.NotContains(t, strings.ReplaceAll(string(text), "http://www.w3.org/2000/svg", ""), "://", path+" names no other host")
	}
	for _, path := range []string{"/", "/status", "/events", "/report"} {
		res, err := http.Post(r.url+path, "text/plain", strings.NewReader("x"))
		require.NoError(t, err)
		res.Body.Close()
		assert.Equal(t, http.StatusMethodNotAllowed, res.StatusCode, path)
		q := asked(t, r.url+path)
		q.Header.Set("Origin", "http://evil.test")
		assert.Contains(t, spoken(t, q), "403 Forbidden", path)
	}
}

func TestStatusEventsAreBounded(t *testing.T) {
	r := newStatusRig(t, "")
	open := make([]*http.Response, maxSubscribers)
	for i := range open {
		open[i] = fetch(t, r.url+"/events")
		require.Equal(t, "text/event-stream", open[i].Header.Get("Content-Type"))
		line, err := bufio.NewReader(open[i].Body).ReadString('\n')
		require.NoError(t, err)
		var o overview
		require.NoError(t, json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &o))
	}
	res := fetch(t, r.url+"/events")
	assert.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	assert.Equal(t, "10", res.Header.Get("Retry-After"))
	open[0].Body.Close()
	assert.Eventually(t, func() bool { return fetch(t, r.url+"/events").StatusCode == http.StatusOK }, 10*time.Second, 20*time.Millisecond, "one that leaves makes room")
}

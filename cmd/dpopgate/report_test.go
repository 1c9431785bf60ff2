package main

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
)

var reportRoutes = []proxy.RouteInfo{{Match: "/old", Mode: "report"}, {Match: "/new", Mode: "enforce"}, {Match: "/open", Mode: "public"}}

// observed counts an event so many times.
func observed(t *tally, n int, e proxy.Event) {
	for range n {
		t.observe(&e)
	}
}

func TestReportSaysWhomEnforcingWouldBreak(t *testing.T) {
	clock := newHandClock()
	tally := newTally(clock.now)
	ready, slow, mute := tallied, uuid.New(), uuid.New()
	observed(tally, 90, proxy.Event{Route: "/old", Verdict: proxy.Passed, ClientID: ready, Scheme: dpop.SchemeDPoP})
	observed(tally, 10, proxy.Event{Route: "/old", Verdict: proxy.Passed, ClientID: ready, Scheme: dpop.SchemeDPoP, Would: dpop.NonceMissing})
	observed(tally, 5, proxy.Event{Route: "/new", Verdict: proxy.Refused, ClientID: ready, Scheme: dpop.SchemeDPoP, Reason: proxy.ScopeMissing})
	observed(tally, 1, proxy.Event{Route: "/old", Verdict: proxy.Passed, ClientID: slow, Scheme: dpop.SchemeDPoP})
	observed(tally, 3, proxy.Event{Route: "/old", Verdict: proxy.Passed, ClientID: slow, Scheme: dpop.SchemeBearer, Would: dpop.SchemeUnsupported})
	observed(tally, 2, proxy.Event{Route: "/new", Verdict: proxy.Passed, ClientID: slow, Scheme: dpop.SchemeBearer})
	observed(tally, 4, proxy.Event{Route: "/old", Verdict: proxy.Passed, ClientID: mute, Scheme: dpop.SchemeDPoP, Would: dpop.NonceMissing})
	observed(tally, 7, proxy.Event{Route: "/old", Verdict: proxy.Passed, Would: dpop.CredentialsMissing})
	observed(tally, 9, proxy.Event{Route: "/open", Verdict: proxy.Passed})
	observed(tally, 9, proxy.Event{Route: "/old", Verdict: proxy.Passed, Method: http.MethodOptions})

	r := newReport(tally, reportRoutes, true)
	words := map[string]string{}
	for _, j := range r.Clients {
		words[j.Client] = j.Words
		assert.Equal(t, j.Client == ready.String(), j.Ready, j.Words)
	}
	assert.Equal(t, map[string]string{
		ready.String(): "0 of 100 requests in the last 24h would be refused; 10 would be asked for a nonce first; where routes enforce, 5 of 5 were refused (scope_missing 5)",
		slow.String():  "not yet: 3 of 4 requests in the last 24h would be refused (scheme_unsupported 3); where routes enforce, 0 of 2 were refused; 2 came as Bearer: they need token_types: [DPoP, Bearer]",
		mute.String():  "not yet: 4 of 4 requests in the last 24h came without the nonce that this client had been given",
	}, words)
	assert.Equal(t, uint64(7), r.Strangers)
	assert.Equal(t, "Not yet: enforcing would refuse requests of 2 of 3 clients.", r.Verdict)
	assert.False(t, r.Ready)
	for _, row := range r.Rows {
		assert.Equal(t, row.Requests, row.Bound+row.Bearer+row.Refused, "%+v", row)
	}

	var text strings.Builder
	require.NoError(t, r.print(&text))
	assert.Regexp(t, `\n`+slow.String()+` +/old +report +4 +25\.0% +0% +75\.0% +scheme_unsupported 3\n`, text.String())
	assert.Contains(t, text.String(), "no known token: 7 requests in the last 24h would be refused")
}

func TestReportIsReadyOnlyWhenThereWasSomethingToSee(t *testing.T) {
	clock := newHandClock()
	tally := newTally(clock.now)
	r := newReport(tally, reportRoutes, true)
	assert.False(t, r.Ready)
	assert.Contains(t, r.Verdict, "no known client has called a route in mode report")

	observed(tally, 2, proxy.Event{Route: "/old", Verdict: proxy.Passed, ClientID: tallied, Scheme: dpop.SchemeDPoP})
	clock.Time = clock.Add(3*time.Hour + 20*time.Minute)
	r = newReport(tally, reportRoutes, true)
	assert.True(t, r.Ready)
	assert.Equal(t, "Ready: in the last 24h, enforcing would have refused no request of the 1 client that came. "+
		"But that is counted for 3 h 20 min only, since the start of the process.", r.Verdict)
	assert.Empty(t, newReport(tally, reportRoutes, false).Rows, "nothing in the last hour")
}

func TestReportsOfAFleetAreAddedUp(t *testing.T) {
	clock := newHandClock()
	one, other := newTally(clock.now), newTally(clock.now)
	clock.Time = clock.Add(time.Hour)
	late := newTally(clock.now)
	good := proxy.Event{Route: "/old", Verdict: proxy.Passed, ClientID: tallied, Scheme: dpop.SchemeDPoP}
	bad := good
	bad.Would = dpop.HTUMismatch
	observed(one, 5, good)
	observed(other, 1, bad)
	observed(late, 2, bad)
	total := newReport(one, reportRoutes, true)
	assert.True(t, total.Ready)
	total.merge(newReport(other, reportRoutes, true))
	total.merge(newReport(late, reportRoutes, true))
	require.Len(t, total.Rows, 1)
	assert.Equal(t, reportRow{
		Client: tallied.String(), Route: "/old", Mode: "report", Requests: 8, Bound: 5, Refused: 3,
		Reasons: map[dpop.Reason]uint64{dpop.HTUMismatch: 3},
	}, total.Rows[0])
	assert.Equal(t, late.started, total.Since, "the shortest of their memories")
	assert.False(t, total.Ready)
}

func TestSharesNeverHideAPart(t *testing.T) {
	for want, c := range map[string][2]uint64{
		"0%": {0, 7}, "<0.1%": {1, 100000}, "50.0%": {1, 2}, ">99.9%": {99999, 100000}, "100%": {7, 7},
	} {
		assert.Equal(t, want, share(c[0], c[1]))
	}
}

// issue makes a key and a token bound to it, in the store of the gateway.
func (g *gateway) issue(t *testing.T) (*dpop.Key, string) {
	t.Helper()
	file := newClientKey(t)
	issued := shell{}.run(t, "token", "issue", "-c", g.path, "--client", tallied.String(), "--scope", "orders:read", "--key", file)
	require.Equal(t, exitOK, issued.code, issued.stderr)
	private, err := os.ReadFile(file)
	require.NoError(t, err)
	key, err := dpop.ReadKey(private)
	require.NoError(t, err)
	return key, strings.TrimSpace(issued.stdout)
}

// The whole way: a gateway in mode report, a client that signs and one that does not yet, and the command.
func TestReportAsksTheRunningGateway(t *testing.T) {
	upstream, _ := answering(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	const secret = "an-admin-secret-of-this-test"
	g := startGateway(t, "  - {match: /, upstream: "+upstream+", mode: report}", "admin: {auth: {bearer: "+secret+"}}")
	key, token := g.issue(t)
	require.Equal(t, http.StatusNoContent, g.send(t, key, token))
	r := asked(t, g.url+"/orders/")
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	res.Body.Close()
	require.Equal(t, http.StatusNoContent, res.StatusCode)

	got := shell{terminal: true}.run(t, "report", "-c", g.path)
	require.Equal(t, exitOK, got.code, got.stderr)
	assert.Contains(t, got.stdout, "not yet: 1 of 2 requests in the last 24h would be refused (scheme_unsupported 1)")
	assert.NotContains(t, got.stdout+got.stderr, secret)
	var read report
	piped := shell{}.run(t, "report", "-c", g.path, "--last", "1h")
	require.NoError(t, json.Unmarshal([]byte(piped.stdout), &read), piped.stdout)
	assert.Equal(t, uint64(2), read.Rows[0].Requests)
	twice := shell{}.run(t, "report", "-c", g.path, "--url", g.admin, "--url", g.admin)
	require.NoError(t, json.Unmarshal([]byte(twice.stdout), &read), twice.stderr)
	assert.Equal(t, uint64(4), read.Rows[0].Requests)

	got = shell{}.run(t, "report", "--url", g.admin)
	assert.Equal(t, exitFailure, got.code)
	assert.Contains(t, got.stderr, "does not let us in (401 Unauthorized): -c names the config file")
	got = shell{}.run(t, "report", "--url", upstream)
	assert.Equal(t, exitFailure, got.code)
	assert.Contains(t, got.stderr, "is this the listen.admin of a gateway?")
	got = shell{}.run(t, "report", "--url", "http://"+freeAddress())
	assert.Contains(t, got.stderr, "does it run, and is this its listen.admin?")
	got = shell{}.run(t, "report", "--last", "2h")
	assert.Equal(t, exitUsage, got.code)
}

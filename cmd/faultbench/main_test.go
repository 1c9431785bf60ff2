package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The short form of ./test faults. The programs it needs are named in DPOPGATE_TEST_POSTGRES_PROGRAMS,
// DPOPGATE_TEST_VALKEY and DPOPGATE_TEST_HAPROXY.
func TestAFleetLosesNothingAndLetsNoOneIn(t *testing.T) {
	if _, err := servers(); err != nil {
		require.Empty(t, os.Getenv("CI"), err.Error())
		t.Skip(err)
	}
	var table, rest strings.Builder
	code := start(t.Context(), []string{"-short"}, &table, &rest)
	t.Log(rest.String() + table.String())
	assert.Zero(t, code)
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"faults"}, {"-fast"}, {"-soak", "long"}} {
		var said strings.Builder
		assert.Equal(t, 2, start(t.Context(), args, &said, &said), args)
		assert.NotEmpty(t, said.String())
	}
}

// courtroom is a judge with an upstream that has seen what the test says, in a rig where nothing runs.
type courtroom struct {
	*bench
	requests []*request
}

func newCourtroom() *courtroom {
	return &courtroom{bench: &bench{
		upstream: &upstream{seen: map[uint64]*sighting{}},
		bounds:   bounds{ttl: 4 * time.Second, stale: 15 * time.Second, notice: time.Second, recovery: 2 * time.Second},
	}}
}

// request adds one that was answered with a status, and that the upstream saw a number of times.
func (c *courtroom) request(kind intent, status, times int) *request {
	now := time.Now()
	id := uint64(len(c.requests) + 1)
	r := &request{id: id, proof: id, intent: kind, token: &token{id: uuid.New(), client: uuid.New()}, method: "POST", status: status, start: now, end: now}
	if times > 0 {
		c.upstream.seen[id] = &sighting{times: times, client: r.token.client.String(), token: r.token.id.String()}
	}
	c.requests = append(c.requests, r)
	return r
}

// verdict is the sum of all.
func (c *courtroom) verdict() (sum tally) {
	j := newJudge(c.bench, c.requests)
	for _, r := range c.requests {
		sum.add(j.verdict(r))
	}
	return sum
}

// A referee that finds nothing is worth as much as what it would find.
func TestTheJudgeFinds(t *testing.T) {
	for name, test := range map[string]struct {
		happens func(c *courtroom)
		want    tally
	}{
		"nothing wrong with an honest request": {func(c *courtroom) { c.request(honest, 200, 1) }, tally{passed: 1}},
		"nothing wrong with a refusal":         {func(c *courtroom) { c.request(illegal, 401, 0) }, tally{refused: 1}},
		"a crime that succeeds":                {func(c *courtroom) { c.request(illegal, 200, 1) }, tally{through: 1}},
		"a crime that is told it failed":       {func(c *courtroom) { c.request(illegal, 503, 1) }, tally{through: 1}},
		"a crime without a decision":           {func(c *courtroom) { c.request(illegal, 500, 0) }, tally{denied: 1}},
		"an honest request refused":            {func(c *courtroom) { c.request(honest, 401, 0) }, tally{denied: 1}},
		"an honest request sent away":          {func(c *courtroom) { c.request(honest, 503, 0) }, tally{denied: 1}},
		"an honest request sent away while it may be": {func(c *courtroom) {
			c.windows.open(unavailable)
			c.request(honest, 503, 0)
		}, tally{away: 1}},
		"an honest request refused while a store is away": {func(c *courtroom) {
			c.windows.open(unavailable)
			c.request(honest, 401, 0)
		}, tally{denied: 1}},
		"an honest request without an answer": {func(c *courtroom) {
			c.windows.open(unavailable)
			c.request(honest, 0, 1)
		}, tally{lost: 1}},
		"an honest request that nobody saw": {func(c *courtroom) { c.request(honest, 200, 0) }, tally{lost: 1}},
		"an answer to another request":      {func(c *courtroom) { c.request(honest, 200, 1).mixed = true }, tally{passed: 1, lost: 1}},
		"a request delivered twice":         {func(c *courtroom) { c.request(honest, 200, 2) }, tally{passed: 1, doubled: 1}},
		"a GET repeated when the upstream broke off": {func(c *courtroom) {
			c.windows.open(repeated)
			c.request(honest, 200, 2).method = "GET"
		}, tally{passed: 1}},
		"a POST repeated when the upstream broke off": {func(c *courtroom) {
			c.windows.open(repeated)
			c.request(honest, 200, 2)
		}, tally{passed: 1, doubled: 1}},
		"another caller's name": {func(c *courtroom) { c.request(honest, 200, 1).token.id = uuid.New() }, tally{passed: 1, imposter: 1}},
		"a header of the client's own": {func(c *courtroom) {
			c.upstream.seen[c.request(honest, 200, 1).id].forged = true
		}, tally{passed: 1, imposter: 1}},
		"a proof that passes once": {func(c *courtroom) {
			c.request(copied, 200, 1)
			c.request(copied, 401, 0).proof = 1
		}, tally{passed: 1, refused: 1}},
		"a proof that passes twice": {func(c *courtroom) {
			c.request(copied, 200, 1)
			c.request(copied, 200, 1).proof = 1
		}, tally{doubled: 2}},
		"a proof that does not pass at all": {func(c *courtroom) {
			c.request(copied, 401, 0)
			c.request(copied, 401, 0).proof = 1
		}, tally{denied: 2}},
		"a revoked token that passes": {func(c *courtroom) {
			revokeAt(c.request(honest, 200, 1), -2*time.Second)
		}, tally{through: 1}},
		"a revoked token that may still pass": {func(c *courtroom) {
			revokeAt(c.request(honest, 200, 1), -900*time.Millisecond)
		}, tally{unsure: 1}},
		"a revoked token that may pass while notices are missing": {func(c *courtroom) {
			c.windows.open(deaf).from = time.Time{}
			revokeAt(c.request(honest, 200, 1), -3*time.Second)
		}, tally{unsure: 1}},
		"a revoked token that passes for longer than cache.ttl": {func(c *courtroom) {
			c.windows.open(deaf).from = time.Time{}
			revokeAt(c.request(honest, 200, 1), -6*time.Second)
		}, tally{through: 1}},
		"a revoked token that may pass while the store is away": {func(c *courtroom) {
			c.windows.open(cutOff).from = time.Time{}
			revokeAt(c.request(honest, 200, 1), -19*time.Second)
		}, tally{unsure: 1}},
		"a revoked token that passes for longer than stale_on_error": {func(c *courtroom) {
			c.windows.open(cutOff).from = time.Time{}
			revokeAt(c.request(honest, 200, 1), -21*time.Second)
		}, tally{through: 1}},
		"an unknown token sent away while the store is away": {func(c *courtroom) {
			c.windows.open(unknowable)
			c.request(honest, 503, 0).what = "cold"
		}, tally{away: 1}},
		"a known token sent away while the store is away": {func(c *courtroom) {
			c.windows.open(unknowable)
			c.request(honest, 503, 0).what = hot
		}, tally{denied: 1}},
		"a known token sent away once stale_on_error is over": {func(c *courtroom) {
			c.windows.openFrom(time.Now().Add(-16*time.Second), unknowable)
			c.request(honest, 503, 0).what = hot
		}, tally{away: 1}},
		"a token refused before its revocation": {func(c *courtroom) {
			revokeAt(c.request(honest, 401, 0), time.Second)
		}, tally{denied: 1}},
		"an expired token that passes": {func(c *courtroom) {
			c.request(honest, 200, 1).token.expires = time.Now().Add(-2 * skews)
		}, tally{through: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCourtroom()
			test.happens(c)
			got := c.verdict()
			test.want.requests = len(c.requests)
			assert.Equal(t, test.want, got)
			assert.Equal(t, test.want.through+test.want.doubled+test.want.denied+test.want.lost+test.want.imposter == 0, got.faultless())
		})
	}
}

// revokeAt has the request's token revoked some time after the request.
func revokeAt(r *request, after time.Duration) {
	at := r.start.Add(after).UnixNano()
	r.token.ending.Store(at)
	r.token.ended.Store(at)
}

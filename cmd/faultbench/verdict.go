package main

import (
	"fmt"
	"net/http"
	"time"
)

// skews is how far clocks in the rig may be apart, or stop.
const skews = 10 * time.Second

// tally is what became of requests.
type tally struct {
	requests int
	passed   int // honest, let through
	refused  int // illegal, refused

	away       int // honest: told to come again, or a connection broke, as was declared
	challenged int // honest: asked to sign again with a nonce
	unsure     int // the token was about to be revoked or to expire: either is right

	// All of these are to be zero.
	through  int // illegal, let through
	doubled  int // a proof accepted more than once, or a request delivered twice
	denied   int // honest, refused outside what was declared, or for a wrong reason
	lost     int // honest, without an answer although none was to be lost; or answered although the upstream saw nothing
	imposter int // the upstream was told something else than who called
}

func (t *tally) faultless() bool {
	return t.through == 0 && t.doubled == 0 && t.denied == 0 && t.lost == 0 && t.imposter == 0
}

func (t *tally) add(o tally) {
	t.requests += o.requests
	t.passed += o.passed
	t.refused += o.refused
	t.away += o.away
	t.challenged += o.challenged
	t.unsure += o.unsure
	t.through += o.through
	t.doubled += o.doubled
	t.denied += o.denied
	t.lost += o.lost
	t.imposter += o.imposter
}

// judge reconciles what clients know of requests with what the upstream saw.
type judge struct {
	upstream *upstream
	windows  *windows
	bounds   bounds
	accepted map[uint64]int // by proof: how many requests with it the upstream saw
	findings []*finding
	kinds    map[string]*finding
}

func newJudge(b *bench, requests []*request) *judge {
	j := &judge{upstream: b.upstream, windows: &b.windows, bounds: b.bounds, accepted: map[uint64]int{}, kinds: map[string]*finding{}}
	for _, r := range requests {
		j.accepted[r.proof] += min(1, j.upstream.saw(r.id).times)
	}
	return j
}

// find keeps a finding in words, or counts it with the first of its kind.
func (j *judge) find(r *request, format string, args ...any) {
	where := "the load balancer"
	if r.instance != nil {
		where = r.instance.name
	}
	kind := fmt.Sprintf("%s, status %d %s: %s", r.what, r.status, r.reason, fmt.Sprintf(format, args...))
	if f := j.kinds[kind]; f != nil {
		f.more++
		return
	}
	f := &finding{words: fmt.Sprintf("%s request %d, %s to %s, after %s: %s", r.start.Format("15:04:05.000"), r.id, r.method, where, round(r.end.Sub(r.start)), kind)}
	j.kinds[kind] = f
	j.findings = append(j.findings, f)
}

// finding is something that is not as it should be.
type finding struct {
	words string // about the first request
	more  int    // of its kind
}

func (f *finding) String() string { return fmt.Sprintf("%s (and %d more)", f.words, f.more) }

// verdict is about one request.
func (j *judge) verdict(r *request) (t tally) {
	t.requests++
	saw := j.upstream.saw(r.id)
	if r.mixed {
		t.lost++
		j.find(r, "the answer belongs to another request")
	}
	if saw.times > 0 && !j.identified(r, saw) {
		t.imposter++
		j.find(r, "the upstream was told %q %q %q", saw.subject, saw.client, saw.token)
	}
	if saw.times > 2 || saw.times == 2 && !(r.method == http.MethodGet && j.windows.allow(repeated, r.start, r.end)) {
		t.doubled++
		j.find(r, "delivered %d times", saw.times)
	}
	life := j.life(r)
	switch {
	case r.intent == illegal || life == dead:
		j.illegal(r, saw, &t)
	case r.intent == copied && saw.times > 0 && j.accepted[r.proof] > 1:
		t.doubled++
		j.find(r, "its proof was accepted %d times", j.accepted[r.proof])
	case life == ending:
		t.unsure++
	case r.intent == copied && saw.times == 0:
		j.copied(r, &t)
	default:
		j.honest(r, saw, &t)
	}
	return t
}

// identified says whether the upstream was told who called.
func (j *judge) identified(r *request, saw sighting) bool {
	subject := ""
	if r.token.user.Valid {
		subject = r.token.user.UUID.String()
	}
	return !saw.forged && saw.subject == subject && saw.client == r.token.client.String() && saw.token == r.token.id.String()
}

// stages of a token's life.
type stage int

const (
	live stage = iota
	ending
	dead
)

// life is the stage of the token during the request.
func (j *judge) life(r *request) stage {
	begun, ended := r.token.ending.Load(), r.token.ended.Load()
	if begun != 0 && !r.end.Before(time.Unix(0, begun)) {
		if ended == 0 {
			return ending
		}
		committed := time.Unix(0, ended)
		if r.start.After(committed.Add(j.bounds.revocation(j.windows, committed, r.start))) {
			return dead
		}
		return ending
	}
	switch {
	case r.token.expires.IsZero() || r.end.Before(r.token.expires.Add(-skews)):
		return live
	case r.start.After(r.token.expires.Add(skews)):
		return dead
	default:
		return ending
	}
}

func (j *judge) illegal(r *request, saw sighting, t *tally) {
	switch {
	case saw.times > 0 || r.status == http.StatusOK:
		t.through++
		j.find(r, "was let through")
	case r.status >= 400 && r.status < 500:
		t.refused++
	case j.excused(r):
		t.away++
	default:
		t.denied++
		j.find(r, "is no refusal")
	}
}

// copied is about a request that did not pass and whose proof others carry.
func (j *judge) copied(r *request, t *tally) {
	switch {
	case j.accepted[r.proof] > 0 && r.status == http.StatusUnauthorized:
		t.refused++
	case j.excused(r):
		t.away++
	case r.status == http.StatusUnauthorized && j.near(r):
		t.away++ // the one that passed has been broken off before the upstream saw it
	default:
		t.denied++
		j.find(r, "its proof was accepted %d times", j.accepted[r.proof])
	}
}

func (j *judge) honest(r *request, saw sighting, t *tally) {
	switch {
	case r.status == http.StatusOK && saw.times > 0:
		t.passed++
	case r.status == http.StatusOK:
		t.lost++
		j.find(r, "the upstream never saw it")
	case r.nonce != "" && r.status == http.StatusUnauthorized && saw.times == 0 && (r.what == asked || j.windows.allow(renonced, r.start, r.end)):
		t.challenged++
	case j.excused(r):
		t.away++
	case r.status == 0:
		t.lost++
		j.find(r, "no answer; the upstream saw it %d times", saw.times)
	default:
		t.denied++
		j.find(r, "refused outside of what was declared; the upstream saw it %d times", saw.times)
	}
}

// excused says whether there was no decision about the request, and none had to be.
func (j *judge) excused(r *request) bool {
	away := func(what allowance) bool { return r.instance != nil && r.instance.away.allow(what, r.start, r.end) }
	switch {
	case r.unsent:
		return away(broken)
	case r.status == 0:
		return away(broken) || j.windows.allow(broken, r.start, r.end)
	case r.status >= 502 && r.status <= 504:
		return away(unavailable) || j.near(r)
	default:
		return false
	}
}

// near says whether a store that the request needs may have been away during it.
func (j *judge) near(r *request) bool {
	if j.windows.allow(unavailable|broken, r.start, r.end) {
		return true
	}
	served := time.Duration(0) // for how long what the instances know is enough
	if r.what == hot {
		served = j.bounds.stale
	}
	return j.windows.allowLate(unknowable, served, r.start, r.end)
}

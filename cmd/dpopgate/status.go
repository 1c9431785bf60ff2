package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
)

// overview is what the status page shows. Nothing in it is secret, and nothing in it is a client's own words.
type overview struct {
	At       time.Time      `json:"at"`
	Started  time.Time      `json:"started"`
	Build    build          `json:"build"`
	Public   []string       `json:"public_urls"`
	Checks   []statusCheck  `json:"checks"`
	Minutes  statusMinutes  `json:"minutes"`
	Reasons  []statusReason `json:"reasons"`
	Routes   []statusRoute  `json:"routes"`
	Targets  []statusTarget `json:"targets"`
	Offsets  []uint64       `json:"offsets"` // of the last hour, by the classes of offsetBounds
	Cache    statusCache    `json:"cache"`
	Replay   statusReplay   `json:"replay"`
	Store    string         `json:"store"`
	Listens  *statusNotices `json:"revocation"` // null: the store needs no notices
	Certs    []statusCert   `json:"certificates"`
	Reloaded *reloadOutcome `json:"reload"` // null: never
	Misuse   []statusMisuse `json:"misuse"` // of the last 24 hours
	Report   *report        `json:"report"`
}

// statusCheck is a line of /readyz?verbose. State is ok, warn or bad.
type statusCheck struct {
	Text  string `json:"text"`
	State string `json:"state"`
}

// statusMinutes are the requests of the last hour by minute, the oldest first.
type statusMinutes struct {
	Passed  []uint32 `json:"passed"`
	Would   []uint32 `json:"would"`
	Refused []uint32 `json:"refused"`
	Failed  []uint32 `json:"failed"`
}

// statusReason is a reason of the last hour.
type statusReason struct {
	lesson
	Count   uint64   `json:"count"`
	Would   uint64   `json:"would"` // of these, in mode report
	Routes  []string `json:"routes"`
	Clients int      `json:"clients"` // that are known
}

// statusRoute is a route as enforced, and its last hour.
type statusRoute struct {
	proxy.RouteInfo
	Passed  uint64 `json:"passed"`
	Would   uint64 `json:"would"`
	Refused uint64 `json:"refused"`
	Failed  uint64 `json:"failed"`
}

type statusTarget struct {
	Upstream string `json:"upstream"`
	Target   string `json:"target"`
	Up       bool   `json:"up"`
	Running  int    `json:"running"`
}

type statusCache struct {
	Hits     uint64 `json:"hits"`
	Misses   uint64 `json:"misses"`
	Negative uint64 `json:"negative_hits"`
	Bytes    int64  `json:"bytes"`
	MaxBytes int64  `json:"max_bytes"`
}

// statusReplay is where used proofs are remembered, and how full that is where this process knows it.
type statusReplay struct {
	Kind     string `json:"kind"`
	Entries  int    `json:"entries"`
	Capacity int    `json:"capacity"` // 0: not in this process
}

type statusNotices struct {
	Listening bool   `json:"listening"`
	Heard     uint64 `json:"heard"`
	TTL       string `json:"ttl"` // the bound while it does not listen
}

type statusCert struct {
	Host     string     `json:"host"`
	NotAfter *time.Time `json:"not_after"` // null: there is none
}

// statusMisuse is how often a live bound token was misused in one way.
type statusMisuse struct {
	Kind   proxy.MisuseKind `json:"kind"`
	Result string           `json:"result"`
	Count  uint64           `json:"count"`
}

// reloadOutcome is how the last reload ended. Mistakes are named by their place: what stands there may be secret.
type reloadOutcome struct {
	At       time.Time `json:"at"`
	OK       bool      `json:"ok"`
	Mistakes []string  `json:"mistakes,omitempty"`
	Restart  []string  `json:"need_restart,omitempty"` // keys that have changed, and that only a restart puts in force
}

// maxShown bounds the reasons and the clients on the page; the report command has them all.
const maxShown = 50

// snapshot is the status now.
func (s *server) snapshot() *overview {
	st := &overview{
		At: s.tally.now(), Started: s.tally.started, Build: thisBuild(), Public: s.config.PublicURLs,
		Checks: s.ready.lines(), Minutes: s.tally.byMinute(), Offsets: s.tally.byOffset(),
		Store: storeName(s.config.Store), Replay: statusReplay{Kind: replayName(s.config.DPoP.Replay)},
		Reloaded: s.reloaded.Load(),
		Misuse:   s.tally.misuse(),
		Report:   newReport(s.tally, s.gateway.Routes(), true),
	}
	st.count(s.tally.counts(false), s.gateway.Routes())
	for _, t := range s.gateway.Upstreams() {
		st.Targets = append(st.Targets, statusTarget(t))
	}
	tokens := s.tokens.Stats()
	st.Cache = statusCache{tokens.Hits, tokens.Misses, tokens.NegativeHits, tokens.Size, tokens.MaxSize}
	if s.proofs != nil {
		proofs := s.proofs.own.Stats()
		st.Replay.Entries, st.Replay.Capacity = proofs.Entries, proofs.Capacity
	}
	if s.watch != nil {
		st.Listens = &statusNotices{s.watch.listening.Load(), s.watch.notices.Load(), s.config.Cache.TTL.String()}
	}
	if s.certs != nil {
		for _, host := range s.certs.hosts {
			cert := statusCert{Host: host}
			if leaf := s.certs.source.leaf(host); leaf != nil {
				cert.NotAfter = &leaf.NotAfter
			}
			st.Certs = append(st.Certs, cert)
		}
	}
	// The clients to look at first: those that would break.
	slices.SortStableFunc(st.Report.Clients, func(a, b clientVerdict) int { return cmp.Compare(ready(a), ready(b)) })
	st.Report.Clients = st.Report.Clients[:min(len(st.Report.Clients), maxShown)]
	st.Report.Rows = nil
	return st
}

func ready(v clientVerdict) int {
	if v.Ready {
		return 1
	}
	return 0
}

// count tells the last hour by reason and by route.
func (st *overview) count(lines map[line]uint64, routes []proxy.RouteInfo) {
	byRoute := map[string]*statusRoute{}
	st.Routes = make([]statusRoute, len(routes))
	for i, info := range routes {
		st.Routes[i].RouteInfo = info
		byRoute[info.Match] = &st.Routes[i]
	}
	type group struct {
		statusReason
		routes, clients map[string]bool
	}
	groups := map[dpop.Reason]*group{}
	for l, n := range lines {
		if r := byRoute[l.route]; r != nil {
			*[...]*uint64{&r.Passed, &r.Would, &r.Refused, &r.Failed}[l.shade] += n
		}
		if l.reason == "" {
			continue
		}
		g := groups[l.reason]
		if g == nil {
			g = &group{routes: map[string]bool{}, clients: map[string]bool{}}
			g.lesson, _ = lessonOf(l.reason)
			groups[l.reason] = g
		}
		g.Count += n
		if l.shade == shadeWould {
			g.Would += n
		}
		if l.route != "" {
			g.routes[l.route] = true
		}
		if name := clientName(l.client); name != "" {
			g.clients[name] = true
		}
	}
	for _, g := range groups {
		for route := range g.routes {
			g.Routes = append(g.Routes, route)
		}
		slices.Sort(g.Routes)
		g.Clients = len(g.clients)
		st.Reasons = append(st.Reasons, g.statusReason)
	}
	slices.SortFunc(st.Reasons, func(a, b statusReason) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(string(a.Reason), string(b.Reason)))
	})
	st.Reasons = st.Reasons[:min(len(st.Reasons), maxShown)]
}

// byMinute is the last hour.
func (t *tally) byMinute() statusMinutes {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	return statusMinutes{
		t.minutes[shadePassed].inOrder(now), t.minutes[shadeWould].inOrder(now),
		t.minutes[shadeRefused].inOrder(now), t.minutes[shadeFailed].inOrder(now),
	}
}

// byOffset is the clock offsets of the last hour by class.
func (t *tally) byOffset() []uint64 {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := make([]uint64, len(t.offsets))
	for i := range t.offsets {
		counts[i] = t.offsets[i].sum(now)
	}
	return counts
}

// misuse is that of the last day, the most frequent first.
func (t *tally) misuse() []statusMisuse {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []statusMisuse
	for m, w := range t.misuses {
		if n := w.sum(now); n > 0 {
			all = append(all, statusMisuse{m.kind, m.result, n})
		}
	}
	slices.SortFunc(all, func(a, b statusMisuse) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(string(a.Kind)+a.Result, string(b.Kind)+b.Result))
	})
	return all
}

// lines are those of a report, each with how bad it is.
func (r *readiness) lines() []statusCheck {
	var text bytes.Buffer
	r.report(&text)
	var all []statusCheck
	for line := range strings.Lines(text.String()) {
		line = strings.TrimSpace(line)
		state := "warn"
		switch {
		case strings.HasSuffix(line, " ok"):
			state = "ok"
		case strings.Contains(line, " failed"):
			state = "bad"
		}
		all = append(all, statusCheck{line, state})
	}
	return all
}

// statusFor is how long a snapshot is shown again: readers cost one in this time, however many there are.
const statusFor = time.Second

// statusFeed makes the snapshots that all readers share, as JSON.
type statusFeed struct {
	make func() *overview
	mu   sync.Mutex
	at   time.Time
	text []byte
}

// now is the status, not older than statusFor.
func (f *statusFeed) now() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.text == nil || time.Since(f.at) >= statusFor {
		f.text, _ = json.Marshal(f.make()) // numbers, times and strings: cannot fail
		f.at = time.Now()
	}
	return f.text
}

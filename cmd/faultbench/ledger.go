package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
)

// intent is what a request is, whatever becomes of it.
type intent int

const (
	honest  intent = iota // to be let through while its token lives
	illegal               // never to be let through
	copied                // carries a proof that others carry as well: to be let through if none of those is
)

// request is one request as its client knows it.
type request struct {
	id       uint64
	intent   intent
	what     string // the kind of an honest client, or of a crime
	token    *token
	proof    uint64 // the same for all that carry the same proof
	method   string
	instance *instance // nil: through the load balancer

	start, end time.Time
	status     int    // 0: no answer
	unsent     bool   // there was no connection
	nonce      string // the server asked for
	mixed      bool   // the answer is not the one to this request
	reason     string // of a refusal
}

// ledger has every request that was sent. It may be used concurrently.
type ledger struct {
	ids atomic.Uint64
	url string // the public one, as proofs have it

	mu       sync.Mutex
	requests []*request
}

// sending is what of a request is its client's own choice. Empty fields are as an honest client has them.
type sending struct {
	path          string
	authorization string
	proof         string // "-": none
	headers       string // whole lines
}

const ordersPath, adminPath = "/orders/1", "/admin/1"

// claims are those of an honest proof.
func (l *ledger) claims(r *request, path string) dpop.Claims {
	return dpop.Claims{Method: r.method, URL: l.url + path, Token: r.token.text}
}

// newRequest gives a request its number, which its proof has as well.
func (l *ledger) newRequest(kind intent, what, method string, t *token, at *instance) *request {
	id := l.ids.Add(1)
	return &request{id: id, proof: id, intent: kind, what: what, method: method, token: t, instance: at}
}

// send sends a request over a wire, and writes down what became of it.
func (l *ledger) send(w *wire, r *request, s sending) answer {
	if s.path == "" {
		s.path = ordersPath
	}
	if s.authorization == "" {
		s.authorization = "DPoP " + r.token.text
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n%s: %d\r\nAuthorization: %s\r\n", r.method, s.path, strings.TrimPrefix(l.url, "http://"), idHeader, r.id, s.authorization)
	if s.proof != "-" {
		fmt.Fprintf(&b, "DPoP: %s\r\n", s.proof)
	}
	b.WriteString(s.headers)
	if body := fmt.Sprint(r.id); r.method == http.MethodPost {
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	} else {
		b.WriteString("\r\n")
	}
	r.start = time.Now()
	a, err := w.send(r.method, []byte(b.String()))
	r.end = time.Now()
	switch {
	case err == errUnreached:
		r.unsent = true
	case err == nil:
		r.status = a.status
		r.mixed = a.status == http.StatusOK && a.body != fmt.Sprint(r.id)
		r.nonce = a.header.Get("DPoP-Nonce")
		if a.status != http.StatusOK {
			r.reason = reasonOf(a)
		}
	}
	l.mu.Lock()
	l.requests = append(l.requests, r)
	l.mu.Unlock()
	return a
}

// before is the first number of a proof that may have been sent since a time, or may yet be.
func (l *ledger) before(since time.Time) uint64 {
	first := l.ids.Load() + 1
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.requests {
		if !r.start.Before(since) {
			first = min(first, r.proof)
		}
	}
	return first
}

// take takes out the requests whose proofs have a number below that: copies of a proof stay together.
func (l *ledger) take(below uint64) (taken []*request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var rest []*request
	for _, r := range l.requests {
		if r.proof < below {
			taken = append(taken, r)
		} else {
			rest = append(rest, r)
		}
	}
	l.requests = rest
	return taken
}

// reasonOf is what an answer says about a refusal.
func reasonOf(a answer) string {
	var said struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal([]byte(a.body), &said) != nil || said.Error == "" {
		return http.StatusText(a.status)
	}
	return said.Error + ": " + said.Description
}

// challenged says whether the gateway wants the same request again with a nonce.
func challenged(a answer) bool {
	return a.status == http.StatusUnauthorized && strings.Contains(a.header.Get("WWW-Authenticate"), `"use_dpop_nonce"`)
}

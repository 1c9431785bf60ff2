package main

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// thief has tokens of honest clients, overhears their requests, and has a key of its own.
type thief struct {
	bench *bench
	key   *dpop.Key
	loot  loot
	wires map[*instance]*wire // nil: the load balancer
}

func newThief(ctx context.Context, b *bench) (*thief, error) {
	t := &thief{bench: b, wires: map[*instance]*wire{nil: {address: b.turns}}}
	for _, i := range b.fleet {
		t.wires[i] = &wire{address: i.address}
	}
	var err error
	if t.key, err = dpop.NewKey(dpop.ES256); err != nil {
		return nil, err
	}
	for range 4 {
		t.loot.unknown = append(t.loot.unknown, &token{text: tokenMark + string(tokenstore.NewToken()), key: t.key})
	}
	if t.loot.expired, err = b.issuer.issue(ctx, 4, "orders", time.Now().Add(-time.Minute), true); err == nil {
		t.loot.scopeless, err = b.issuer.issue(ctx, 4, "invoices", time.Now().Add(time.Hour), true)
	}
	return t, err
}

// work is the life of a thief: of its crimes, every third is a replay, alone or to all instances at once.
func (t *thief) work(ctx context.Context) {
	for sleep(ctx, time.Duration(rand.ExpFloat64()*float64(t.bench.crowd.think.Load()))) {
		t.wires[nil].move(*t.bench.front.Load())
		switch rand.IntN(6) {
		case 0:
			t.replay()
		case 1:
			t.race()
		default:
			t.commit(crimes[rand.IntN(len(crimes))])
		}
	}
	for _, w := range t.wires {
		w.close()
	}
}

// victim is the token of some client.
func (t *thief) victim() *token {
	hot := t.bench.crowd.hot
	return hot[rand.IntN(len(hot))].Load()
}

// anywhere is an instance, or nil for the load balancer.
func (t *thief) anywhere() *instance {
	if n := rand.IntN(2 * len(t.bench.fleet)); n < len(t.bench.fleet) {
		return t.bench.fleet[n]
	}
	return nil
}

func (t *thief) commit(c crime) {
	l, at := t.bench.ledger, t.anywhere()
	r := l.newRequest(illegal, c.what, anyMethod(), t.victim(), at)
	l.send(t.wires[at], r, c.plan(t, r, l.claims(r, ordersPath)))
}

// replay makes an honest request and sends its proof again, to wherever.
func (t *thief) replay() {
	l, at := t.bench.ledger, t.anywhere()
	first := l.newRequest(copied, "overheard", anyMethod(), t.victim(), at)
	claims := l.claims(first, ordersPath)
	proof := signed(first.token.key, claims)
	if a := l.send(t.wires[at], first, sending{proof: proof}); challenged(a) {
		claims.Nonce = first.nonce
		first = l.newRequest(copied, "overheard", first.method, first.token, at)
		proof = signed(first.token.key, claims)
		l.send(t.wires[at], first, sending{proof: proof})
	}
	for range 2 {
		at := t.anywhere()
		again := l.newRequest(copied, "replay", first.method, first.token, at)
		again.proof = first.proof
		l.send(t.wires[at], again, sending{proof: proof})
	}
}

// race sends the same proof to all instances at once.
func (t *thief) race() {
	l, victim, method := t.bench.ledger, t.victim(), anyMethod()
	var proof string
	var group uint64
	var racers sync.WaitGroup
	for _, i := range t.bench.fleet {
		r := l.newRequest(copied, "race", method, victim, i)
		if proof == "" {
			proof, group = signed(victim.key, l.claims(r, ordersPath)), r.proof
		}
		r.proof = group
		racers.Go(func() { l.send(t.wires[i], r, sending{proof: proof}) })
	}
	racers.Wait()
}

func anyMethod() string { return []string{http.MethodGet, http.MethodPost}[rand.IntN(2)] }

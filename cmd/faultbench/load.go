package main

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// crowd is the honest clients: some have a token that they always use, which gateways therefore know, others each time a
// token that no gateway has seen yet.
type crowd struct {
	bench *bench
	think atomic.Int64  // nanoseconds, on average, between two requests of a client
	skew  time.Duration // clocks of clients are off by up to that

	mu    sync.Mutex
	fresh []*token                // not used yet
	hot   []atomic.Pointer[token] // one for each client
}

// newCrowd issues all tokens that the clients will need: while the database is away none can be.
func newCrowd(ctx context.Context, b *bench, clients, fresh int, think time.Duration) (*crowd, error) {
	c := &crowd{bench: b, skew: 4 * time.Second, hot: make([]atomic.Pointer[token], clients)}
	c.think.Store(int64(think))
	if err := c.renew(ctx); err != nil {
		return nil, err
	}
	var err error
	c.fresh, err = b.issuer.issue(ctx, fresh, "orders", time.Now().Add(time.Hour), false)
	return c, err
}

// hot is what is said of requests with a token that its client always uses.
const hot = "hot"

// asked is what is said of requests that were to be signed again, with a nonce, and were.
const asked = "asked for a nonce"

// acquaint has every instance see every such token.
func (c *crowd) acquaint() {
	for _, i := range c.bench.fleet {
		w := &wire{address: i.address}
		for n := range c.hot {
			c.request(w, i, hot, http.MethodGet, c.hot[n].Load(), 0, "")
		}
		w.close()
	}
}

// renew gives every client with a token of its own another one. Three of four have a user.
func (c *crowd) renew(ctx context.Context) error {
	for _, users := range []bool{true, false} {
		var mine []int
		for n := range c.hot {
			if (n%4 != 3) == users {
				mine = append(mine, n)
			}
		}
		tokens, err := c.bench.issuer.issue(ctx, len(mine), "orders", time.Now().Add(time.Hour), users)
		if err != nil {
			return err
		}
		for i, n := range mine {
			c.hot[n].Store(tokens[i])
		}
	}
	return nil
}

// users are the tokens in use that have a user.
func (c *crowd) users() (tokens []*token) {
	for n := range c.hot {
		if t := c.hot[n].Load(); t.user.Valid {
			tokens = append(tokens, t)
		}
	}
	return tokens
}

// unused is a token that no gateway has seen, or nil when there is none left.
func (c *crowd) unused() *token {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.fresh) == 0 {
		return nil
	}
	t := c.fresh[0]
	c.fresh = c.fresh[1:]
	return t
}

// refill keeps some tokens in stock, as long as the database takes them.
func (c *crowd) refill(ctx context.Context) {
	for sleep(ctx, time.Second) {
		c.mu.Lock()
		left := len(c.fresh)
		c.mu.Unlock()
		if left > 2000 {
			continue
		}
		more, err := c.bench.issuer.issue(ctx, 500, "orders", time.Now().Add(time.Hour), false)
		if err == nil {
			c.mu.Lock()
			c.fresh = append(c.fresh, more...)
			c.mu.Unlock()
		}
	}
}

// work is the life of one client. Every fourth talks to an instance itself, and to the next one when that is not there.
func (c *crowd) work(ctx context.Context, n int) {
	b := c.bench
	random := rand.New(rand.NewPCG(uint64(n), 1))
	skew := time.Duration(random.Int64N(int64(2*c.skew)+1)) - c.skew
	at, w := b.door(n)
	defer w.close()
	for sleep(ctx, time.Duration(random.ExpFloat64()*float64(c.think.Load()))) {
		if at == nil {
			w.move(*b.front.Load())
		}
		what, t := hot, c.hot[n].Load()
		if random.IntN(6) == 0 {
			if unused := c.unused(); unused != nil {
				what, t = "cold", unused
			}
		}
		method := []string{http.MethodGet, http.MethodPost}[random.IntN(2)]
		headers := ""
		if random.IntN(5) == 0 {
			headers = forgeries
		}
		if c.request(w, at, what, method, t, skew, headers).unsent && at != nil {
			at = b.fleet[(slices.Index(b.fleet, at)+1)%len(b.fleet)]
			w.move(at.address)
		}
	}
}

// forgeries are identity headers of the client's own, in spellings that some frameworks read as the real ones.
const forgeries = "X-Auth-Subject: " + forged + "\r\nx_auth_subject: " + forged + "\r\nX-Auth-Client: " + forged + "\r\nX.Auth.Scope: " + forged +
	"\r\nX-Auth-Token-Id: " + forged + "\r\nRemote-User: " + forged + "\r\n"

// request sends one honest request, and once more when the gateway asks for a nonce.
func (c *crowd) request(w *wire, at *instance, what, method string, t *token, skew time.Duration, headers string) *request {
	l := c.bench.ledger
	nonce := ""
	for range 2 {
		r := l.newRequest(honest, what, method, t, at)
		claims := l.claims(r, ordersPath)
		claims.IssuedAt, claims.Nonce = time.Now().Add(skew), nonce
		proof, err := t.key.Sign(claims)
		if err != nil {
			panic(err) // a key of our own
		}
		a := l.send(w, r, sending{proof: proof, headers: headers})
		if !challenged(a) || nonce != "" {
			return r
		}
		nonce = r.nonce
		r.what = asked
	}
	panic("unreachable")
}

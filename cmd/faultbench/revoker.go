package main

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// revoker takes tokens away from under clients that are using them on every instance, and measures how long each instance
// goes on accepting them.
type revoker struct {
	bench *bench
	pause time.Duration // between two revocations

	busy  sync.Mutex // held during a revocation
	stock []*token   // to be revoked

	mu    sync.Mutex
	rings []revocation
}

// stop has no further revocation begin until goOn, and gives up the tokens that were to be revoked.
func (v *revoker) stop() (stock []*token) {
	v.busy.Lock()
	stock, v.stock = v.stock, nil
	return stock
}

func (v *revoker) goOn() { v.busy.Unlock() }

// revocation is what became of one.
type revocation struct {
	committed time.Time
	delays    []time.Duration // by instance: from the commit to the start of the last request let through
}

// ways are the statements that end a token.
var ways = []string{
	"DELETE FROM oauth_access_tokens WHERE jti = $1",
	"UPDATE oauth_access_tokens SET expires_at = now() - interval '1 minute' WHERE jti = $1",
	"DELETE FROM users WHERE id = (SELECT user_id FROM oauth_access_tokens WHERE jti = $1)",
}

func (v *revoker) work(ctx context.Context) {
	var conn *pgx.Conn
	for n := 0; sleep(ctx, v.pause); n++ {
		var err error
		if conn == nil || conn.IsClosed() {
			if conn, err = v.bench.postgres.connect(ctx); err != nil {
				continue
			}
		}
		v.next(ctx, conn, ways[n%len(ways)])
	}
	if conn != nil {
		conn.Close(context.Background())
	}
}

// next revokes the next token of the stock.
func (v *revoker) next(ctx context.Context, conn *pgx.Conn, statement string) {
	v.busy.Lock()
	defer v.busy.Unlock()
	if len(v.stock) == 0 {
		stock, err := v.bench.issuer.issue(ctx, 64, "orders", time.Now().Add(time.Hour), true)
		if err != nil {
			return
		}
		v.stock = stock
	}
	t := v.stock[0]
	v.stock = v.stock[1:]
	v.revoke(ctx, conn, t, statement)
}

// revoke has a client on each instance use a token every few milliseconds, revokes it, and lets them go on until none is
// let through any more, or a moment longer than that could be right.
func (v *revoker) revoke(ctx context.Context, conn *pgx.Conn, t *token, statement string) {
	b := v.bench
	warm, done := make(chan struct{}, len(b.fleet)), make(chan struct{})
	last := make([]time.Time, len(b.fleet))
	var users sync.WaitGroup
	for n, i := range b.fleet {
		users.Go(func() {
			w := &wire{address: i.address}
			defer w.close()
			refusals := 0
			for first := true; refusals < 3; first = false {
				r := b.ledger.newRequest(honest, "being revoked", http.MethodGet, t, i)
				a := b.ledger.send(w, r, sending{proof: signed(t.key, b.ledger.claims(r, ordersPath))})
				switch {
				case a.status == http.StatusOK:
					last[n], refusals = r.start, 0
				case a.status == http.StatusUnauthorized:
					refusals++
				}
				if first {
					warm <- struct{}{}
				}
				select {
				case <-done:
					return
				case <-time.After(4 * time.Millisecond):
				}
			}
		})
	}
	for range b.fleet {
		<-warm
	}
	bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
	committed, err := revoke(bounded, conn, []*token{t}, statement, t.id)
	cancel()
	finished := make(chan struct{})
	go func() { users.Wait(); close(finished) }()
	select {
	case <-finished:
	case <-time.After(b.bounds.ttl + 2*time.Second):
	case <-ctx.Done():
	}
	close(done)
	<-finished
	if err != nil || ctx.Err() != nil {
		return
	}
	ring := revocation{committed: committed}
	for _, at := range last {
		ring.delays = append(ring.delays, max(0, at.Sub(committed)))
	}
	v.mu.Lock()
	v.rings = append(v.rings, ring)
	v.mu.Unlock()
}

// delays are those of revocations outside windows in which notices may be missing, each instance's and each slowest one,
// in order.
func (v *revoker) delays(w *windows) (each, slowest []time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, ring := range v.rings {
		if w.allow(deaf|cutOff, ring.committed, ring.committed.Add(time.Second)) {
			continue
		}
		each = append(each, ring.delays...)
		slowest = append(slowest, slices.Max(ring.delays))
	}
	slices.Sort(each)
	slices.Sort(slowest)
	return each, slowest
}

// quantile is that of sorted values.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

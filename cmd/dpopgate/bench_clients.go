package main

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// benchClient is a caller: its key, its token, and who the upstream is told that it is.
type benchClient struct {
	key     *dpop.Key
	token   string
	subject uuid.UUID
}

// newBenchClients makes count keys. It shows each that is there.
func newBenchClients(ctx context.Context, alg dpop.Algorithm, count int, show func(done int)) ([]*benchClient, error) {
	clients := make([]*benchClient, count)
	err := inParallel(ctx, count, show, func(i int) error {
		key, err := dpop.NewKey(alg)
		clients[i] = &benchClient{key: key, token: string(tokenstore.NewToken()), subject: uuid.New()}
		return err
	})
	return clients, err
}

// record is a row for a token of the client.
func (c *benchClient) record(token string, life time.Duration) *tokenstore.Record {
	return &tokenstore.Record{
		Digest:    tokenstore.Digester{}.Digest(tokenstore.Token(token)),
		ClientID:  demoClient,
		UserID:    uuid.NullUUID{UUID: c.subject, Valid: true},
		TokenType: tokenstore.DPoP,
		DPoPJKT:   string(c.key.Thumbprint()),
		Scopes:    []string{benchScope},
		ExpiresAt: time.Now().Add(life),
	}
}

const benchScope = "bench:read"

// shot is one request to send, and what it must be answered.
type shot struct {
	token, proof string // both empty: sent without credentials
	want         answered
}

// answered is what counts of an answer.
type answered struct {
	status int    // 0: any success
	body   string // of the upstream; empty: any, as the server's own are
}

// inParallel does work(0) to work(count-1) on as many goroutines as may run at once, until one fails.
func inParallel(ctx context.Context, count int, show func(done int), work func(i int) error) error {
	var next, done atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(count); i = next.Add(1) - 1 {
				err := ctx.Err()
				if err == nil {
					err = work(int(i))
				}
				mu.Lock()
				if err != nil && failed == nil {
					failed = err
					next.Store(int64(count))
				}
				show(int(done.Add(1)))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return failed
}

// holds says whether that is the answer.
func (a answered) holds(status int, body []byte) bool {
	if a.status == 0 {
		return status >= 200 && status < 300
	}
	return status == a.status && (a.body == "" || string(body) == a.body)
}

// String is what was wanted, for people.
func (a answered) String() string {
	if a.status == 0 {
		return "a success"
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", a.status, a.body))
}

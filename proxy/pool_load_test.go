package proxy_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// load is many clients at a time, and what they saw.
type load struct {
	g       *rig
	client  *http.Client
	sent    atomic.Int64
	mu      sync.Mutex
	results map[string]int // status by id
}

func newLoad(g *rig) *load {
	l := &load{g: g, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}, results: map[string]int{}}
	g.t.Cleanup(l.client.CloseIdleConnections)
	return l
}

// run sends requests until n have been sent, from some clients at a time, GET and others in turn. each is called after every one.
func (l *load) run(clients, n int, each func(sent int64)) {
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for {
				i := l.sent.Add(1)
				if i > int64(n) {
					return
				}
				method := []string{"GET", "POST", "GET", "PUT", "GET", "DELETE"}[i%6]
				body := ""
				if i%4 == 1 {
					body = strings.Repeat("x", 20_000)
				}
				id := fmt.Sprint(method, " ", i)
				r := l.g.request(method, "/x", id, body)
				r.GetBody = nil
				r.Header.Set("Idempotency-Key", id)
				res, err := l.client.Do(r)
				if !assert.NoError(l.g.t, err, "the gateway itself answers always") {
					return
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				l.mu.Lock()
				l.results[id] = res.StatusCode
				l.mu.Unlock()
				each(i)
			}
		})
	}
	all.Wait()
}

// verdict checks that nothing but a GET came to the servers twice, that everything with an answer came to them, and
// gives the number of answers of each status.
func (l *load) verdict(servers []*legacy) map[int]int {
	statuses := map[int]int{}
	for id, status := range l.results {
		statuses[status]++
		n := 0
		for _, s := range servers {
			s.mu.Lock()
			n += s.seen[id]
			s.mu.Unlock()
		}
		if !strings.HasPrefix(id, "GET") {
			assert.LessOrEqual(l.g.t, n, 1, "deliveries of %s", id)
		}
		if status == http.StatusOK {
			assert.Positive(l.g.t, n, id)
		}
	}
	return statuses
}

func TestServersAreKilledAndRestartedUnderLoad(t *testing.T) {
	for _, balance := range []string{"round_robin", "least_conn"} {
		t.Run(balance, func(t *testing.T) {
			work := func(http.ResponseWriter, *http.Request) { time.Sleep(rand.N(2 * time.Millisecond)) }
			servers := []*legacy{newLegacy(t, work), newLegacy(t, work), newLegacy(t, work)}
			g := newPool(t, "balance: "+balance, servers[0].url(), servers[1].url(), servers[2].url())
			g.live.Store(true)
			l := newLoad(g)
			const clients, total, pace = 16, 3000, 200
			var turns sync.Mutex
			kills := 0
			l.run(clients, total, func(sent int64) {
				if sent%pace != 0 {
					return
				}
				turns.Lock()
				defer turns.Unlock()
				if kills%2 == 0 {
					servers[kills/2%3].kill()
				} else {
					servers[kills/2%3].start()
				}
				kills++
			})
			statuses := l.verdict(servers)
			failed := 0
			for id, status := range l.results {
				if status == http.StatusOK {
					continue
				}
				failed++
				method, number, _ := strings.Cut(id, " ")
				var i int
				fmt.Sscan(number, &i)
				assert.False(t, method == "GET" && i%4 != 1, "%s can be sent again, and was answered with %d", id, status)
				assert.Equal(t, http.StatusBadGateway, status, id)
			}
			assert.LessOrEqual(t, failed, kills/2*clients, "only what was under way when a server died")
			t.Logf("%d kills, answers %v", kills/2, statuses)
		})
	}
}

func TestServerHangsUnderLoad(t *testing.T) {
	var hanging atomic.Bool
	release := make(chan struct{})
	hung := newLegacy(t, func(http.ResponseWriter, *http.Request) {
		if hanging.Load() {
			<-release
		}
	})
	defer close(release)
	quick := newLegacy(t, nil)
	g := newPool(t, "balance: least_conn, response_timeout: 500ms, health: {interval: 10ms, timeout: 2s, unhealthy_after: 1}", hung.url(), quick.url())
	g.live.Store(true)
	servers := []*legacy{hung, quick}
	l := newLoad(g)
	const clients = 16
	l.run(clients, 1000, func(sent int64) { hanging.CompareAndSwap(false, sent >= 200) })
	statuses := l.verdict(servers)
	assert.Equal(t, 1000, statuses[http.StatusOK]+statuses[http.StatusGatewayTimeout], "%v", statuses)
	assert.Greater(t, statuses[http.StatusOK], 800, "those that the other server got")
	require.Eventually(t, func() bool { return !g.up()[0] }, 10*time.Second, time.Millisecond)
	after := newLoad(g)
	after.sent.Store(1000)
	after.run(clients, 1500, func(int64) {})
	assert.Equal(t, map[int]int{http.StatusOK: 500}, after.verdict(servers))
	t.Logf("answers %v", statuses)
}

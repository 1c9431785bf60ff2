package proxy_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRoundRobinTakesTurns(t *testing.T) {
	a, b, c := newLegacy(t, nil), newLegacy(t, nil), newLegacy(t, nil)
	g := newPool(t, "balance: round_robin", a.url(), b.url(), c.url())
	for range 30 {
		require.Equal(t, 200, g.asks("GET", "/x", ""))
	}
	assert.Equal(t, []int{10, 10, 10}, []int{a.count(), b.count(), c.count()})
}

func TestLeastConnAvoidsTheBusy(t *testing.T) {
	release, held := make(chan struct{}), make(chan struct{}, 100)
	slow := newLegacy(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			held <- struct{}{}
			<-release
		}
	})
	quick := newLegacy(t, slow.handler)
	g := newPool(t, "balance: least_conn", slow.url(), quick.url())
	var all sync.WaitGroup
	for range 8 { // the held requests spread evenly
		all.Go(func() { g.asks("GET", "/hold", "") })
		<-held
	}
	assert.Equal(t, []int{4, 4}, []int{slow.count(), quick.count()})
	for _, s := range g.gateway.Upstreams() {
		assert.Equal(t, 4, s.Running)
	}
	close(release)
	all.Wait()
	for _, s := range g.gateway.Upstreams() {
		assert.Zero(t, s.Running, "nothing stays counted")
	}
}

func TestRequestGoesToAnotherTargetWhenOneCannotBeReached(t *testing.T) {
	dead, live := newLegacy(t, nil), newLegacy(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	dead.kill()
	for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
		g := newPool(t, "balance: round_robin", dead.url()+"/v2", live.url()+"/v2")
		for range 4 {
			res, err := http.DefaultTransport.RoundTrip(g.request(method, "/x?y=z", "", "a body"))
			require.NoError(t, err)
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			assert.Equal(t, 200, res.StatusCode, method)
			assert.Equal(t, "a body", string(body))
			assert.Equal(t, live.url()+"/v2", g.eventOf(res).Target)
		}
		assert.Equal(t, []bool{false, true}, g.up())
	}
	assert.Equal(t, 16, live.count())
}

func TestPathPrefixIsThatOfTheTarget(t *testing.T) {
	var paths sync.Map
	note := func(_ http.ResponseWriter, r *http.Request) { paths.Store(r.RequestURI, true) }
	a, b := newLegacy(t, note), newLegacy(t, note)
	g := newPool(t, "balance: round_robin", a.url()+"/one/", b.url()+"/two")
	for range 2 {
		g.asks("GET", "/x%20y?a;b=%zz", "")
	}
	for _, path := range []string{"/one/x%20y?a;b=%zz", "/two/x%20y?a;b=%zz"} {
		_, ok := paths.Load(path)
		assert.True(t, ok, path)
	}
}

func TestTargetThatBreaksConnectionsIsLeftAloneForGrowingTimes(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	bad := newLegacy(t, func(_ http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			drop(r, false)
		}
	})
	good := newLegacy(t, nil)
	g := newPool(t, "balance: round_robin", bad.url(), good.url())
	tries := func() int {
		before := bad.count()
		for range 6 {
			require.Equal(t, 200, g.asks("GET", "/x", ""), "the other target answers")
		}
		return bad.count() - before
	}
	wait := func(d time.Duration) { g.offset.Add(int64(d)) }
	assert.Equal(t, 1, tries())
	assert.Equal(t, 0, tries(), "it is left alone")
	for _, d := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
		wait(d*time.Second - 1)
		assert.Equal(t, 0, tries(), "before %d s", d)
		wait(1)
		assert.Equal(t, 1, tries(), "after %d s", d)
	}
	assert.Equal(t, []bool{false, true}, g.up())
	broken.Store(false)
	assert.Equal(t, 0, tries())
	wait(30 * time.Second)
	assert.Equal(t, 3, tries(), "back, at once")
	assert.Equal(t, []bool{true, true}, g.up())
}

func TestOneRequestTriesATargetThatFailed(t *testing.T) {
	var broken, hanging atomic.Bool
	broken.Store(true)
	held, release := make(chan struct{}, 10), make(chan struct{})
	bad := newLegacy(t, func(_ http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			drop(r, true)
		}
		if hanging.Load() {
			held <- struct{}{}
			<-release
		}
	})
	good := newLegacy(t, nil)
	g := newPool(t, "balance: round_robin", bad.url(), good.url())
	for range 2 {
		g.asks("GET", "/x", "")
	}
	require.Equal(t, 1, bad.count())
	broken.Store(false)
	hanging.Store(true)
	g.offset.Add(int64(time.Second))
	var all sync.WaitGroup
	for range 2 { // one of them
		all.Go(func() { g.asks("GET", "/x", "") })
	}
	<-held
	for range 10 {
		assert.Equal(t, 200, g.asks("GET", "/x", ""))
	}
	assert.Equal(t, 2, bad.count(), "nobody else waits for it")
	close(release)
	all.Wait()
}

func TestTargetsThatAllFailAreStillTried(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	handler := func(_ http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			drop(r, true)
		}
	}
	a, b := newLegacy(t, handler), newLegacy(t, handler)
	g := newPool(t, "balance: least_conn", a.url(), b.url())
	for i := range 6 {
		assert.Equal(t, 502, g.asks("POST", "/x", "body"))
		assert.Equal(t, i+1, a.count()+b.count(), "and once each")
	}
	assert.Equal(t, []bool{false, false}, g.up())
	before := a.count() + b.count()
	assert.Equal(t, 502, g.asks("GET", "/x", ""))
	assert.Equal(t, 2, a.count()+b.count()-before, "a GET that breaks connections does so twice and no more")
	assert.Equal(t, proxy.UpstreamBroke, g.event().Reason)
	broken.Store(false)
	assert.Equal(t, 200, g.asks("POST", "/x", "body"), "with the clock standing still")
}

func TestUnhealthyTargetsGetNothing(t *testing.T) {
	var sick [2]atomic.Bool
	handler := func(i int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" {
				assert.Equal(t, "dpopgate", r.Header.Get("User-Agent"))
				assert.Equal(t, "k", r.Header.Get("X-Key"))
				if sick[i].Load() {
					w.WriteHeader(500)
				}
				return
			}
			if sick[i].Load() {
				t.Error("a request came to a sick target")
			}
		}
	}
	a, b := newLegacy(t, handler(0)), newLegacy(t, handler(1))
	g := newPool(t, "health: {interval: 5ms}, headers: {X-Key: k}", a.url(), b.url()+"/base")
	turns := func(want ...bool) {
		t.Helper()
		require.Eventually(t, func() bool { return assert.ObjectsAreEqual(want, g.up()) }, 10*time.Second, time.Millisecond)
	}
	turns(true, true)
	// The handler must not see a request between getting sick and being found so.
	sick[0].Store(true)
	turns(false, true)
	for range 10 {
		assert.Equal(t, 200, g.asks("POST", "/x", ""))
	}
	sick[1].Store(true)
	turns(false, false)
	assert.Equal(t, 502, g.asks("GET", "/x", ""))
	assert.Equal(t, proxy.UpstreamDown, g.event().Reason)
	assert.Empty(t, g.event().Target, "nothing was tried")
	sick[0].Store(false)
	turns(true, false)
	assert.Equal(t, 200, g.asks("GET", "/x", ""))
	a.kill()
	turns(false, false)
	assert.Equal(t, 502, g.asks("GET", "/x", ""))
	a.start()
	turns(true, false)
	assert.Equal(t, 200, g.asks("GET", "/x", ""))
}

func TestTargetIsOutAfterAsManyFailuresAsTheConfigSays(t *testing.T) {
	answers := make(chan int)
	a := newLegacy(t, func(w http.ResponseWriter, _ *http.Request) {
		if status, ok := <-answers; ok {
			w.WriteHeader(status)
		}
	})
	g := newPool(t, "health: {interval: 1ms, timeout: 1m, unhealthy_after: 3, healthy_after: 2}", a.url())
	defer close(answers)
	last := true
	for i, step := range []struct {
		status int
		up     bool
	}{
		{500, true}, {404, true}, {200, true}, {500, true}, {500, true}, {500, false}, // three in a row
		{302, false}, {503, false}, {204, false}, {200, true}, {500, true}, {200, true},
	} {
		assert.Equal(t, []bool{last}, g.up(), "before step %d", i)
		answers <- step.status
		if step.up != last {
			require.Eventually(t, func() bool { return g.up()[0] == step.up }, 10*time.Second, time.Millisecond, "step %d", i)
		}
		last = step.up
	}
}

func TestHealthChecksEndWithTheirUpstream(t *testing.T) {
	var asked atomic.Int64
	a := newLegacy(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	hung, err := net.Listen("tcp", "127.0.0.1:0") // checks that are under way end, too
	require.NoError(t, err)
	t.Cleanup(func() { hung.Close() })
	yaml := func(settings string) *config.Config {
		c, err := config.Parse("pool.yaml", poolYAML(settings, a.url(), "http://"+hung.Addr().String()), nil)
		require.NoError(t, err)
		return c
	}
	g := newPool(t, "health: {interval: 1ms, timeout: 1m}", a.url(), "http://"+hung.Addr().String())
	require.Eventually(t, func() bool { return asked.Load() > 3 }, 10*time.Second, time.Millisecond)
	require.NoError(t, g.gateway.Reload(yaml("balance: round_robin")))
	stopped := asked.Load()
	require.NoError(t, g.gateway.Reload(yaml("health: {interval: 1ms, timeout: 1m, path: /again}")))
	require.Eventually(t, func() bool { return asked.Load() > stopped+3 }, 10*time.Second, time.Millisecond)
	assert.Contains(t, goroutines(), "(*upstream).attend")
	g.gateway.Close()
	assert.NotContains(t, goroutines(), "(*upstream).attend")
}

func TestOfflineGatewayAsksNobody(t *testing.T) {
	var asked atomic.Int64
	a := newLegacy(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	c, err := config.Parse("pool.yaml", poolYAML("health: {interval: 1ms}", a.url()), nil)
	require.NoError(t, err)
	g := newPool(t, "", a.url())
	o := g.options()
	o.Offline = true
	offline, err := proxy.New(c, o)
	require.NoError(t, err)
	defer offline.Close()
	assert.NotContains(t, goroutines(), "(*upstream).attend")
	assert.Zero(t, asked.Load())
}

func TestReloadKeepsWhatIsKnownAboutAnUnchangedUpstream(t *testing.T) {
	dead, live := newLegacy(t, nil), newLegacy(t, nil)
	dead.kill()
	g := newPool(t, "balance: round_robin", dead.url(), live.url())
	for range 2 {
		g.asks("GET", "/x", "")
	}
	require.Equal(t, []bool{false, true}, g.up())
	same := poolYAML("balance: round_robin", dead.url(), live.url())
	c, err := config.Parse("pool.yaml", append(same, "  - {match: /more, upstream: p, public: true}\n"...), nil)
	require.NoError(t, err)
	require.NoError(t, g.gateway.Reload(c))
	assert.Equal(t, []bool{false, true}, g.up())
	c, err = config.Parse("pool.yaml", poolYAML("balance: least_conn", dead.url(), live.url()), nil)
	require.NoError(t, err)
	require.NoError(t, g.gateway.Reload(c))
	assert.Equal(t, []bool{true, true}, g.up(), "another one")
}

func TestRouteTableSaysHowAPoolIsSetUp(t *testing.T) {
	a, b := newLegacy(t, nil), newLegacy(t, nil)
	g := newPool(t, "", a.url())
	assert.Equal(t, "p", g.gateway.Routes()[0].Upstream)
	g = newPool(t, "balance: round_robin, health: {}, h2c: true", a.url(), b.url())
	assert.Equal(t, "p (2 targets by round_robin, checked at /healthz, h2c)", g.gateway.Routes()[0].Upstream)
}

func TestTargetSeesTheHostThatItsRouteSays(t *testing.T) {
	var host, key atomic.Value
	a := newLegacy(t, func(_ http.ResponseWriter, r *http.Request) {
		host.Store(r.Host)
		key.Store(r.Header.Get("Authorization"))
	})
	yaml := poolYAML(`headers: {Authorization: "Basic abc"}`, a.url())
	g := newRigFrom(t, "pool", append(yaml, "  - {match: /kept/, upstream: p, public: true, preserve_host: true}\n"...))
	require.Equal(t, 200, g.asks("GET", "/x", ""))
	assert.Equal(t, a.address, host.Load())
	require.Equal(t, 200, g.asks("GET", "/kept/x", ""))
	assert.Equal(t, strings.TrimPrefix(apiURL, "https://"), host.Load())
	r := g.request("GET", "/x", "", "")
	r.Header.Set("Authorization", "Basic another")
	g.passes(r)
	assert.Equal(t, "Basic abc", key.Load())
}

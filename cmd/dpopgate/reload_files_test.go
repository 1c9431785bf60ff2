package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// metric is the value of a metric without labels.
func (p *process) metric(t *testing.T, name string) float64 {
	t.Helper()
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(p.admin + "/metrics")
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	res.Body.Close()
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(body)
	require.NotNil(t, m, "%s is not shown", name)
	value, err := strconv.ParseFloat(string(m[1]), 64)
	require.NoError(t, err)
	return value
}

// times is how often the log has a message.
func (p *process) times(message string) int {
	return strings.Count(p.log.String(), `"msg":"`+message)
}

// reloads has the process read its file, and waits for what it says of that.
func (p *process) reloads(t *testing.T) {
	t.Helper()
	before := p.times("config reloaded") + p.times("config not reloaded")
	p.signal(t, syscall.SIGHUP)
	p.await(t, fmt.Sprintf(`(?s)(?:"msg":"config (?:not )?reloaded.*?){%d}`, before+1))
}

// A file that is no good, in whatever way, changes nothing, and says so; nor is a file needed again once it is read.
//
// attack: 181
func TestABadFileChangesNothing(t *testing.T) {
	t.Parallel()
	upstream, _ := answering(t, func(http.ResponseWriter, *http.Request) {})
	route := "  - {match: /, upstream: " + upstream + ", public: true}\n"
	p := newProcess(t, "http", "limits: {drain_delay: 0s}\nroutes:\n"+route)
	p.start(t)
	was, err := os.ReadFile(p.path)
	require.NoError(t, err)
	good := string(was)
	for name, spoil := range map[string]func(){
		"syntax error":     func() { p.write(t, good+"]") },
		"unknown key":      func() { p.write(t, good+"rotues: []\n") },
		"duplicate route":  func() { p.write(t, good+route) },
		"empty file":       func() { p.write(t, "") },
		"half-written":     func() { p.write(t, good[:len(good)-20]) },
		"no route":         func() { p.write(t, strings.Replace(good, route, "", 1)) },
		"unreadable":       func() { require.NoError(t, os.Remove(p.path)); require.NoError(t, os.Mkdir(p.path, 0o700)) },
		"gone":             func() { require.NoError(t, os.Remove(p.path)) },
		"missing upstream": func() { p.write(t, strings.Replace(good, upstream, "orders", 1)) },
		"unset variable":   func() { p.write(t, strings.Replace(good, upstream, "${DPOPGATE_NOT_SET}", 1)) },
		"link to nowhere": func() {
			require.NoError(t, os.Remove(p.path))
			require.NoError(t, os.Symlink("nowhere", p.path))
		},
	} {
		spoil()
		p.reloads(t)
		assert.Zero(t, p.metric(t, "dpopgate_config_last_reload_successful"), name)
		assert.Equal(t, http.StatusOK, fetch(t, p.url).StatusCode, name)
		assert.Equal(t, http.StatusOK, fetch(t, p.admin+"/readyz").StatusCode, name)
		require.NoError(t, os.RemoveAll(p.path))
		p.write(t, good)
		p.reloads(t)
		assert.EqualValues(t, 1, p.metric(t, "dpopgate_config_last_reload_successful"), name)
	}
	for range 100 {
		p.signal(t, syscall.SIGHUP)
	}
	assert.Equal(t, http.StatusOK, fetch(t, p.url).StatusCode)
}

// A file that changes is read without a signal: one that is replaced, the folder of a ConfigMap whose link is changed, a
// secret beside it. Each is read once, and a bad one is refused once.
//
// attack: 181
func TestAFileThatChangesIsRead(t *testing.T) {
	t.Parallel()
	upstream, _ := answering(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("X-Key")) })
	p := newProcess(t, "http", "limits: {drain_delay: 0s}\nupstreams: {api: {targets: ["+upstream+"], headers: {X-Key: '${file:key}'}}}\nroutes:\n  - {match: /, upstream: api, public: true}\n")
	text, err := os.ReadFile(p.path)
	require.NoError(t, err)
	folder := filepath.Dir(p.path)
	version := func(name, config, key string) {
		require.NoError(t, os.Mkdir(filepath.Join(folder, name), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(folder, name, "dpopgate.yaml"), []byte(config), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(folder, name, "key"), []byte(key), 0o600))
		link := filepath.Join(folder, "..new")
		require.NoError(t, os.Symlink(name, link))
		require.NoError(t, os.Rename(link, filepath.Join(folder, "..data")))
	}
	key := func(want string) {
		t.Helper()
		assert.Equal(t, want, bodyOf(t, fetch(t, p.url)))
	}
	version("..1", string(text), "one")
	require.NoError(t, os.Remove(p.path))
	for _, name := range []string{"dpopgate.yaml", "key"} {
		require.NoError(t, os.Symlink(filepath.Join("..data", name), filepath.Join(folder, name)))
	}
	p.start(t)
	key("one")
	version("..2", string(text), "two")
	p.await(t, `"msg":"config reloaded","cause":"the file changed"`)
	key("two")
	version("..3", string(text)+"nonsense: 1\n", "three")
	p.await(t, `"msg":"config not reloaded`)
	key("two")
	version("..4", string(text), "four")
	p.await(t, `(?s)(?:"msg":"config reloaded".*?){2}`)
	key("four")
	require.NoError(t, os.WriteFile(filepath.Join(folder, "key"), []byte("five"), 0o600)) // through the link
	p.await(t, `(?s)(?:"msg":"config reloaded".*?){3}`)
	key("five")
	assert.Equal(t, 1, p.times("config not reloaded"))
}

// Reload after reload, every second one of a file that is no good, under load: no request fails, and what earlier configs
// needed is let go.
//
// attack: 182
func TestReloadsUnderLoadFailNothing(t *testing.T) {
	t.Parallel()
	upstream, _ := newLedger(t)
	p := newProcess(t, "http", "limits: {drain_delay: 0s}\nroutes:\n  - {match: /, upstream: "+upstream+", public: true}\n")
	p.start(t)
	text, err := os.ReadFile(p.path)
	require.NoError(t, err)
	var sent atomic.Int64
	var workers sync.WaitGroup
	over := make(chan struct{})
	load := func() {
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		for {
			select {
			case <-over:
				return
			default:
			}
			n := sent.Add(1)
			res, err := (&http.Client{Transport: transport}).Post(p.url+"/", "text/plain", io.MultiReader(strings.NewReader(strconv.FormatInt(n, 10))))
			if !assert.NoError(t, err) {
				return
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if !assert.Equal(t, http.StatusOK, res.StatusCode) {
				return
			}
		}
	}
	for range 4 {
		workers.Go(load)
	}
	end := sync.OnceFunc(func() { close(over); workers.Wait() })
	defer end()
	p.reloads(t)
	goroutines, descriptors := p.metric(t, "go_goroutines"), p.metric(t, "process_open_fds")
	for i := range fromEnvironment(t, "DPOPGATE_TEST_RELOADS", 60) {
		// Another timeout makes another upstream of it, with connections of its own.
		next := strings.Replace(string(text), "upstream: "+upstream, "upstream: api", 1) +
			fmt.Sprintf("upstreams: {api: {targets: [%s], connect_timeout: %dms}}\n", upstream, 1000+i)
		if i%2 == 1 {
			next += "nonsense: 1\n"
		}
		p.write(t, next)
		p.reloads(t)
	}
	assert.EqualValues(t, 0, p.metric(t, "dpopgate_config_last_reload_successful"))
	end()
	assert.Positive(t, sent.Load())
	assert.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.LessOrEqual(c, p.metric(t, "go_goroutines"), goroutines+5)
		assert.LessOrEqual(c, p.metric(t, "process_open_fds"), descriptors+5)
	}, time.Minute, 100*time.Millisecond, "what earlier configs needed is let go")
	t.Logf("%d requests", sent.Load())
}

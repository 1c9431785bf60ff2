package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// shell runs command lines in this process, each with streams of its own.
type shell struct {
	stdin    string
	vars     map[string]string
	terminal bool
}

// result is how a command line ended.
type result struct {
	code           int
	stdout, stderr string
}

func (s shell) run(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, s.env(&stdout, &stderr, nil))
	return result{code, stdout.String(), stderr.String()}
}

func (s shell) env(stdout, stderr io.Writer, signals <-chan os.Signal) *env {
	return &env{
		stdin:  strings.NewReader(s.stdin),
		stdout: stdout,
		stderr: stderr,
		lookup: func(name string) (string, bool) {
			value, ok := s.vars[name]
			return value, ok
		},
		terminal: s.terminal,
		started:  time.Now(),
		signals:  func(...os.Signal) (<-chan os.Signal, func()) { return signals, func() {} },
		inherit:  func() (inheritance, error) { return inheritance{}, nil },
		init:     initSystem{notify: func(string) {}},
	}
}

// privateFolders gives this process temporary and cache folders of its own, and returns them.
func privateFolders(t *testing.T) []string {
	t.Helper()
	temp, home := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
	return []string{temp, filepath.Join(home, "cache")}
}

// assertNoFiles asserts that nothing is left in the folders.
func assertNoFiles(t *testing.T, folders []string) {
	t.Helper()
	for _, folder := range folders {
		entries, err := os.ReadDir(folder)
		if !os.IsNotExist(err) {
			require.NoError(t, err)
		}
		assert.Empty(t, entries, "left in %s", folder)
	}
}

// runningDemo is a demo that serves.
type runningDemo struct {
	url, port string
	output    *output
	signals   chan os.Signal
	exit      chan int
}

// output is a stdout that can be waited on.
type output struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// clear forgets what was written so far.
func (o *output) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Reset()
}

// await waits until the output matches, and returns the submatches.
func (o *output) await(t *testing.T, re *regexp.Regexp) []string {
	t.Helper()
	for {
		if m := re.FindStringSubmatch(o.String()); m != nil {
			return m
		}
		select {
		case <-o.changed:
		case <-t.Context().Done():
			require.FailNow(t, "the test ended before the output matched", "%s\n%s", re, o)
		}
	}
}

// start starts a demo on a free port and waits until it serves.
func (s shell) startDemo(t *testing.T) *runningDemo {
	t.Helper()
	d := &runningDemo{output: &output{changed: make(chan struct{}, 1)}, signals: make(chan os.Signal, 1), exit: make(chan int, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	e := s.env(d.output, io.Discard, d.signals)
	go func() {
		d.exit <- run(ctx, []string{"demo", "--listen", "127.0.0.1:0"}, e)
		d.output.Write([]byte("\nended\n"))
	}()
	found := d.output.await(t, regexp.MustCompile(`The demo goes on.* at (http://\S+) with(?s:.*)decides:|\nended\n`))
	require.NotEmpty(t, found[1], "the demo ended: %s", d.output)
	d.url = found[1]
	_, port, err := net.SplitHostPort(strings.TrimPrefix(d.url, "http://"))
	require.NoError(t, err)
	d.port = port
	return d
}

// stop ends the demo as Ctrl-C does and returns its exit code.
func (d *runningDemo) stop() int {
	d.signals <- os.Interrupt
	return <-d.exit
}

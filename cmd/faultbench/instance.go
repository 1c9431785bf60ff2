package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// instance is one gateway of the fleet: the program as it is shipped, with a config file, and a relay to Postgres.
type instance struct {
	name           string
	binary, folder string
	config         string   // file
	environment    []string // nil: the bench's own
	address, admin string
	relay          *relay
	process        *process
	away           windows   // when only those call it who do not ask whether it is ready
	idle           footprint // of the first run, before anybody called
	highest        int64     // bytes of memory that any run of it has taken at the most
}

// start returns once the instance says that it is ready, and how long that took.
func (i *instance) start(ctx context.Context) (took time.Duration, err error) {
	began := time.Now()
	serve := exec.Command(i.binary, "serve", "-c", i.config)
	serve.Env = i.environment
	if i.process, err = launch(i.folder, i.name, serve); err != nil {
		return 0, err
	}
	err = i.process.await(ctx, "the instance is ready", i.ready)
	i.away.close()
	return time.Since(began), err
}

// configure writes the config file at once, as whoever deploys it should.
func (i *instance) configure(text string) error {
	next := i.config + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(next, i.config)
}

// drainDelay is for how long an instance that was told to end says that it is not ready, and serves all the same.
const drainDelay = time.Second

// roll stops the instance as an init system would, and starts it anew.
func (i *instance) roll(ctx context.Context) error {
	i.note()
	told := time.Now()
	i.process.signal(syscall.SIGTERM, false)
	i.away.openFrom(told.Add(drainDelay-drainDelay/10), unavailable|broken)
	select {
	case <-i.process.ended:
	case <-time.After(patience):
		return fmt.Errorf("%s does not end after SIGTERM", i.name)
	}
	_, err := i.start(ctx)
	return err
}

// handOver has the instance start its program anew and leave its sockets to it.
func (i *instance) handOver(ctx context.Context) error {
	const words = `"msg":"handed over","pid":`
	i.note()
	before := i.logged(words)
	i.process.signal(syscall.SIGUSR2, false)
	if err := i.process.await(ctx, "the instance has handed over", func() bool { return i.logged(words) > before }); err != nil {
		return err
	}
	log, err := os.ReadFile(i.process.log)
	if err != nil {
		return err
	}
	var pid int
	if _, err := fmt.Sscan(string(log[bytes.LastIndex(log, []byte(words))+len(words):]), &pid); err != nil {
		return fmt.Errorf("%s: the log names no process: %w", i.name, err)
	}
	old := i.process
	i.process = old.successor(pid)
	select {
	case <-old.ended:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s: the process that has handed over does not end", i.name)
	}
}

// crash kills the instance and starts it anew.
func (i *instance) crash(ctx context.Context, away time.Duration) (took time.Duration, err error) {
	i.note()
	i.away.open(unavailable | broken)
	i.process.kill()
	sleep(ctx, away)
	return i.start(ctx)
}

var probes = &http.Client{Timeout: 5 * time.Second}

// says is what an instance answers to a probe; empty when it answers none, or not well.
func (i *instance) says(path string) string {
	res, err := probes.Get("http://" + i.admin + path)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		return ""
	}
	return string(text)
}

// ready is what a load balancer asks.
func (i *instance) ready() bool { return i.says("/readyz") != "" }

// well is ready, and that the instance hears of revocations.
func (i *instance) well() bool {
	return strings.Contains(i.says("/readyz?verbose"), "\nrevocation notices ok\n")
}

// metric is the sum of a metric's values.
func (i *instance) metric(name string) (sum float64, err error) {
	found := false
	for line := range strings.Lines(i.says("/metrics")) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", line, err)
		}
		sum, found = sum+value, true
	}
	if !found {
		return 0, fmt.Errorf("%s: there is no metric %s", i.name, name)
	}
	return sum, nil
}

// footprint is what an instance holds when nobody asks it anything.
type footprint struct{ goroutines, files float64 }

func (i *instance) footprint() (f footprint, err error) {
	if f.goroutines, err = i.metric("go_goroutines"); err == nil {
		f.files, err = i.metric("process_open_fds")
	}
	return f, err
}

// note takes down the memory that this run has taken at the most.
func (i *instance) note() {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.process.pid))
	if err != nil {
		return
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kib int64
	fmt.Sscan(rest, &kib)
	i.highest = max(i.highest, kib<<10)
}

// logged counts the lines of the instance's log that have a text.
func (i *instance) logged(text string) int {
	log, _ := os.ReadFile(filepath.Join(i.folder, i.name+".log"))
	return strings.Count(string(log), text)
}

package main

import (
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
	starts         windows   // from a start until it said that it was ready: only those who do not ask call it then
	idle           footprint // of the first run, before anybody called
	highest        int64     // bytes of memory that any run of it has taken at the most
}

// start returns once the instance says that it is ready, and how long that took.
func (i *instance) start(ctx context.Context) (took time.Duration, err error) {
	began := time.Now()
	i.starts.open(unavailable)
	serve := exec.Command(i.binary, "serve", "-c", i.config)
	serve.Env = i.environment
	if i.process, err = launch(i.folder, i.name, serve); err != nil {
		return 0, err
	}
	err = i.process.await(ctx, "the instance is ready", i.ready)
	i.starts.close()
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

// roll stops the instance as an init system would, and starts it anew.
func (i *instance) roll(ctx context.Context) error {
	i.note()
	i.process.stop(syscall.SIGTERM)
	_, err := i.start(ctx)
	return err
}

// crash kills the instance and starts it anew.
func (i *instance) crash(ctx context.Context, away time.Duration) (took time.Duration, err error) {
	i.note()
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
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.process.pid()))
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

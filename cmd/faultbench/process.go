package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience bounds every wait for something that is to happen by itself.
const patience = 30 * time.Second

// process is a program that runs, with its log in a file. It is of the bench's own process group, so that it does not
// outlive a bench that is stopped from outside.
type process struct {
	name  string
	log   string // file
	pid   int
	ended chan struct{}
}

// launch starts a command. Its log is appended to NAME.log in folder, which is its working directory as well.
func launch(folder, name string, cmd *exec.Cmd) (*process, error) {
	p := &process{name: name, log: filepath.Join(folder, name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr = folder, log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p.pid = cmd.Process.Pid
	go func() {
		cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// successor is a process that this one has started to take its place, with the same log.
func (p *process) successor(pid int) *process {
	next := &process{name: p.name, log: p.log, pid: pid, ended: make(chan struct{})}
	go func() {
		defer close(next.ended)
		for lives(pid) {
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return next
}

// lives says whether a process, which need not be a child of ours, has not ended.
func lives(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(text), ") ")
	return err == nil && !strings.HasPrefix(state, "Z")
}

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// signal sends sig to the process, and with family to its children as well, which may have left its process group.
func (p *process) signal(sig syscall.Signal, family bool) {
	if !p.running() {
		return
	}
	pids := []int{p.pid}
	if family {
		pids = append(pids, children(p.pid)...)
	}
	for _, pid := range pids {
		syscall.Kill(pid, sig)
	}
}

// children are the processes that a process has started and that still are.
func children(pid int) (pids []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for _, word := range strings.Fields(string(text)) {
			var child int
			if _, err := fmt.Sscan(word, &child); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// kill ends the process and its children without a warning.
func (p *process) kill() {
	p.signal(syscall.SIGKILL, true)
	<-p.ended
}

// stop asks the process to end, and kills it when it does not.
func (p *process) stop(sig syscall.Signal) {
	p.signal(sig, false)
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.kill()
	}
}

// await asks until the answer is yes; it fails when the process ends.
func (p *process) await(ctx context.Context, what string, ready func() bool) error {
	err := await(ctx, what, func() bool { return !p.running() || ready() })
	if err == nil && !p.running() {
		err = errors.New("it has ended")
	}
	if err != nil {
		return fmt.Errorf("%s: %s: %w\n%s", p.name, what, err, p.tail())
	}
	return nil
}

// tail is the end of the log.
func (p *process) tail() string {
	text, _ := os.ReadFile(p.log)
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-15):], []byte("\n")))
}

// await asks until the answer is yes.
func await(ctx context.Context, what string, ready func() bool) error {
	deadline := time.Now().Add(patience)
	for !ready() {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %s: %s", patience, what)
		}
		if !sleep(ctx, 5*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}

// sleep says whether it was not interrupted.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

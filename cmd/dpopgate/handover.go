package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"time"
)

const (
	// prepareTimeout bounds the wait for a new process to be ready.
	prepareTimeout = 30 * time.Second
	// bequeathTimeout bounds what comes then, until it serves; and the wait for one that failed to end.
	bequeathTimeout = 10 * time.Second
)

// starter starts the program once more with copies of sockets, and gives the way to it.
type starter func(sockets []*os.File) (*exec.Cmd, net.Conn, error)

// errLost is about a new process that was lost at the moment when it was told to serve. What it has accepted until then
// is not known here, so the old one must not go on.
var errLost = errors.New("the new process was lost as it began to serve")

// succession is what became of a handOver.
type succession struct {
	pid int // of the new process
	err error
}

// handOver starts the program once more and has it serve in place of this process, on the same sockets. An error says
// why this process goes on instead, unless it is errLost. While the process before this one still finishes its requests, it
// waits for that: a proof is asked about at one other process at most.
func (s *server) handOver(ctx context.Context, listeners []*listener, start starter) (pid int, err error) {
	if s.heir != nil {
		select {
		case <-s.heir.gone:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	files, err := copySockets(listeners)
	if err != nil {
		return 0, err
	}
	cmd, way, err := start(files)
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		return 0, fmt.Errorf("starting the new process: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	to := &successor{client: rpc.NewClient(way)}
	err = s.bequeath(ctx, to)
	if err == nil {
		return cmd.Process.Pid, nil
	}
	to.client.Close() // which ends it
	kill := time.AfterFunc(bequeathTimeout, func() { cmd.Process.Kill() })
	defer kill.Stop()
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		cmd.Process.Kill()
	}
	if status := <-ended; isGone(err) {
		err = fmt.Errorf("the new process ended before it was ready: %v", status)
	}
	if to.serving.Load() {
		err = errors.Join(errLost, err)
	}
	return 0, err
}

// copySockets are the sockets of listeners, for another process.
func copySockets(listeners []*listener) (files []*os.File, err error) {
	for _, l := range listeners {
		f, err := l.socket.file()
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, fmt.Errorf("%s: %w", l.key, err)
		}
		files = append(files, f)
	}
	return files, nil
}

// bequeath waits until the other process is ready, has it learn all that it needs, and then serve. When it returns an
// error and to.serving is not set, nothing has happened.
func (s *server) bequeath(ctx context.Context, to *successor) error {
	var none bool
	preparing, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	b := Bequest{Replay: replayKind(s.config), Started: s.started, NonceKey: s.nonceKey}
	if err := to.call(preparing, "Prepare", b, &none); err != nil {
		return fmt.Errorf("waiting for the new process to be ready: %w", err)
	}
	ctx, cancel = context.WithTimeout(ctx, bequeathTimeout)
	defer cancel()
	if s.proofs != nil {
		if err := s.proofs.relayTo(ctx, to); err != nil {
			return fmt.Errorf("telling the new process of used proofs: %w", err)
		}
	}
	to.serving.Store(true)
	return to.call(ctx, "Serve", true, &none)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// drain ends the service without losing a request: it says no to /readyz and serves on for drain_delay, until load
// balancers have noticed, telling each client with its answer to go elsewhere; then it lets what runs finish within
// drain_timeout, and cuts off the rest. Plain Shutdown would close idle connections under the hands of clients that are
// about to use them. Another signal cuts at once.
func (s *server) drain(listeners []*listener, reason string, signals <-chan os.Signal, failed <-chan error) {
	limits := s.config.Limits
	s.ready.draining.Store(true)
	s.log.Info("draining", "reason", reason, "delay", limits.DrainDelay.String(), "timeout", limits.DrainTimeout.String())
	alive, cut := context.WithCancel(context.Background())
	defer cut()
	go func() {
		defer cut()
		s.awaitReason(alive, signals, failed)
	}()
	select {
	case <-time.After(limits.DrainDelay.Std()):
	case <-alive.Done():
	}
	ctx, cancel := context.WithTimeout(alive, limits.DrainTimeout.Std())
	defer cancel()
	s.shutdown(ctx, listeners)
	s.log.Info("stopped")
}

// leave ends the service of a process that has handed over. Who comes from now on is the new process's; what is connected
// stays until it has had an answer, and so learned to go there.
func (s *server) leave(listeners []*listener, to succession, signals <-chan os.Signal, failed <-chan error) {
	if to.err == nil {
		s.init.notify(fmt.Sprintf("MAINPID=%d", to.pid))
		s.log.Info("handed over", "pid", to.pid)
	}
	for _, l := range listeners {
		l.Close()
	}
	s.drain(listeners, "handed over", signals, failed)
}

// awaitReason waits for a reason to stop a drain at once: another signal, or a listener that is gone.
func (s *server) awaitReason(ctx context.Context, signals <-chan os.Signal, failed <-chan error) {
	alive, rest := s.init.alive()
	defer rest()
	for {
		select {
		case <-alive:
			s.init.notify(daemon.SdNotifyWatchdog)
		case sig := <-signals:
			if sig != syscall.SIGHUP && sig != syscall.SIGUSR2 {
				return
			}
		case <-failed:
			return
		case <-ctx.Done():
			return
		}
	}
}

// shutdown waits for the requests that run, and cuts them off when ctx ends. The admin listener comes last: what
// watches the drain asks there.
func (s *server) shutdown(ctx context.Context, listeners []*listener) {
	var running sync.WaitGroup
	for _, l := range listeners {
		if l.key == adminKey {
			continue
		}
		running.Go(func() {
			if err := l.server.Shutdown(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
				s.log.Warn("requests were cut off", "listener", l.key)
			}
		})
	}
	running.Go(func() { s.gateway.Drain(ctx) })
	running.Wait()
	closeAll(listeners)
}

// closeAll ends the servers at once, and listeners that are not served yet as well.
func closeAll(listeners []*listener) {
	for _, l := range listeners {
		l.server.Close()
		l.Close()
	}
}

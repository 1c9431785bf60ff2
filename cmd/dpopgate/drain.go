package main

import (
	"context"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

// closing tells the clients of a gateway that drains not to use their connection again, so that those with a next
// request ask the load balancer for another instance while this one still serves.
func (r *readiness) closing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if r.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, req)
	})
}

// drain ends the service without losing a request: it says no to /readyz and serves on for drain_delay, until load
// balancers have noticed; then it lets what runs finish within drain_timeout, and cuts off the rest. Plain Shutdown
// would close idle connections under the hands of clients that are about to use them. Another signal cuts at once.
func (s *server) drain(listeners []*listener, sig os.Signal, signals <-chan os.Signal, failed <-chan error) {
	limits := s.config.Limits
	s.ready.draining.Store(true)
	s.log.Info("draining", "signal", sig.String(), "delay", limits.DrainDelay.String(), "timeout", limits.DrainTimeout.String())
	alive, cut := context.WithCancel(context.Background())
	defer cut()
	go func() {
		defer cut()
		awaitReason(alive, signals, failed)
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

// awaitReason waits for a reason to stop a drain at once: another signal, or a listener that is gone.
func awaitReason(ctx context.Context, signals <-chan os.Signal, failed <-chan error) {
	for {
		select {
		case sig := <-signals:
			if sig != syscall.SIGHUP {
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
			if err := l.server.Shutdown(ctx); err != nil {
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

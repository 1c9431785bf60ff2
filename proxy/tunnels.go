package proxy

import (
	"context"
	"sync"
)

// tunnels are the WebSockets that are open. The zero value has none.
type tunnels struct {
	mu   sync.Mutex
	open map[*tunnel]struct{}
}

// add takes one in; call what it returns when that one is closed.
func (s *tunnels) add(t *tunnel) (remove func()) {
	t.done = make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*tunnel]struct{}{}
	}
	s.open[t] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, t)
		close(t.done)
	}
}

// all are those that are open now.
func (s *tunnels) all() []*tunnel {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*tunnel, 0, len(s.open))
	for t := range s.open {
		list = append(list, t)
	}
	return list
}

// Drain waits until no WebSocket is open. When ctx ends, it closes those that are left as going away (RFC 6455 §7.4.1),
// and is done soon after. An http.Server's Shutdown knows nothing of them; call both once no new request comes.
func (g *Gateway) Drain(ctx context.Context) {
	for _, t := range g.tunnels.all() {
		select {
		case <-t.done:
			continue
		case <-ctx.Done():
		}
		break
	}
	for all := g.tunnels.all(); len(all) > 0; all = g.tunnels.all() {
		for _, t := range all {
			go t.stop(goingAway, "the gateway is shutting down")
		}
		for _, t := range all {
			<-t.done
		}
	}
}

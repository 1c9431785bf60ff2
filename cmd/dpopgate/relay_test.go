package main

import (
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// relay stands between the program and a server, and can do to connections what networks and servers do.
type relay struct {
	listener net.Listener
	server   string // host:port

	mu       sync.Mutex
	flowing  chan struct{} // closed while bytes flow
	refusing bool          // new connections are closed at once
	conns    []net.Conn
}

// newRelay starts a relay to a server, on an address of its own that it keeps until the test ends.
func newRelay(t *testing.T, server string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{listener: l, server: server, flowing: make(chan struct{})}
	close(r.flowing)
	go r.accept()
	t.Cleanup(func() { l.Close(); r.thaw(); r.refuse() })
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.server)
		if err != nil {
			in.Close()
			continue
		}
		r.mu.Lock()
		if r.refusing {
			in.Close()
			out.Close()
		} else {
			r.conns = append(r.conns, in, out)
			go r.copy(out, in)
			go r.copy(in, out)
		}
		r.mu.Unlock()
	}
}

func (r *relay) copy(to, from net.Conn) {
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		r.mu.Lock()
		flowing := r.flowing
		r.mu.Unlock()
		<-flowing
		if _, writeErr := to.Write(buffer[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

// freeze stops all bytes: connections stay up, new ones come up, and all are silent.
func (r *relay) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flowing = make(chan struct{})
}

// thaw ends a freeze.
func (r *relay) thaw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.flowing:
	default:
		close(r.flowing)
	}
}

// refuse closes all connections, and new ones, as when the server is gone.
func (r *relay) refuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusing = true
	for _, conn := range r.conns {
		conn.Close()
	}
	r.conns = nil
}

// restore ends a refuse.
func (r *relay) restore() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusing = false
}

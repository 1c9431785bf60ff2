package main

import (
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// relay stands before servers, and can do to connections what networks and servers do.
type relay struct {
	listener net.Listener
	known    chan struct{} // closed when the servers are known

	mu       sync.Mutex
	servers  []string      // host:port; connections go to one after the other
	flowing  chan struct{} // closed while bytes flow
	refusing bool          // new connections are closed at once
	conns    []net.Conn
}

// newRelay starts a relay to servers, on an address of its own that it keeps until the test ends. Without a server, its
// connections wait until there is one.
func newRelay(t *testing.T, servers ...string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{listener: l, known: make(chan struct{}), flowing: make(chan struct{})}
	close(r.flowing)
	if len(servers) > 0 {
		r.to(servers...)
	}
	go r.accept()
	t.Cleanup(func() {
		l.Close()
		r.thaw()
		r.refuse()
	})
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) port() int { return r.listener.Addr().(*net.TCPAddr).Port }

// to says where connections go from now on.
func (r *relay) to(servers ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.servers == nil {
		close(r.known)
	}
	r.servers = servers
}

// next is where the next connection goes.
func (r *relay) next() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	server := r.servers[0]
	r.servers = append(r.servers[1:], server)
	return server
}

func (r *relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		go r.connect(in)
	}
}

func (r *relay) connect(in net.Conn) {
	<-r.known
	out, err := net.Dial("tcp", r.next())
	if err != nil {
		in.Close()
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refusing {
		in.Close()
		out.Close()
		return
	}
	r.conns = append(r.conns, in, out)
	go r.copy(out, in)
	go r.copy(in, out)
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

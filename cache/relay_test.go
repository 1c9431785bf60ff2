package cache_test

import (
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// relay stands between a store and its server, and can do to the connection what networks and servers do.
type relay struct {
	listener net.Listener
	server   string // host:port

	mu        sync.Mutex
	flowing   chan struct{} // closed while bytes flow
	refusing  bool          // new connections are closed at once
	swallowed bool          // answers are thrown away, and the connection with them
	once      bool          // the next answer is, and no other
	conns     []net.Conn
}

// newRelay starts a relay to a server.
func newRelay(t *testing.T, server string) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{listener: l, server: server, flowing: make(chan struct{})}
	close(r.flowing)
	go r.accept()
	t.Cleanup(func() { l.Close(); r.thaw(); r.cut() })
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		refusing := r.refusing
		r.mu.Unlock()
		if refusing {
			in.Close()
			continue
		}
		out, err := net.Dial("tcp", r.server)
		if err != nil {
			in.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, in, out)
		r.mu.Unlock()
		go r.copy(out, in, false)
		go r.copy(in, out, true)
	}
}

func (r *relay) copy(to, from net.Conn, answers bool) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		flowing, swallowed := r.flowing, answers && (r.swallowed || r.once)
		if swallowed {
			r.once = false
		}
		r.mu.Unlock()
		if swallowed {
			return
		}
		<-flowing
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// freeze stops all bytes: connections stay up and are silent.
func (r *relay) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flowing = make(chan struct{})
}

func (r *relay) thaw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.flowing:
	default:
		close(r.flowing)
	}
}

// cut closes all connections, as a server does that is killed and started again.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

// refuse closes all connections, and new ones, as when the server is gone.
func (r *relay) refuse() {
	r.set(true, false)
	r.cut()
}

// swallow lets requests through and closes the connection instead of answering: what was asked for was done.
func (r *relay) swallow() { r.set(false, true) }

// swallowOnce does so with one answer.
func (r *relay) swallowOnce() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.once = true
}

func (r *relay) restore() { r.set(false, false) }

func (r *relay) set(refusing, swallowed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusing, r.swallowed = refusing, swallowed
}

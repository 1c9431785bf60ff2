package tokenstoretest

import (
	"net"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// Relay stands before servers, and can do to connections what networks and servers do. It may be used concurrently.
type Relay struct {
	listener net.Listener
	known    chan struct{} // closed when the servers are known
	dials    atomic.Int64

	mu        sync.Mutex
	servers   []string      // host:port; connections go to one after the other
	flowing   chan struct{} // closed while bytes flow
	refusing  bool          // new connections are closed at once
	swallowed bool          // answers are thrown away, and the connection with them
	once      bool          // the next answer is, and no other
	conns     []net.Conn
}

// NewRelay starts a relay to servers (host:port), on an address of its own that it keeps until the test ends. Without a
// server, its connections wait until there is one.
func NewRelay(t testing.TB, servers ...string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &Relay{listener: l, known: make(chan struct{}), flowing: make(chan struct{})}
	close(r.flowing)
	if len(servers) > 0 {
		r.To(servers...)
	}
	go r.accept()
	t.Cleanup(func() {
		l.Close()
		r.Thaw()
		r.Refuse()
	})
	return r
}

// RelayTo starts a relay to the Postgres server of a DSN, and returns the DSN that leads through it.
func RelayTo(t testing.TB, dsn string) (r *Relay, through string) {
	t.Helper()
	c, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	r = NewRelay(t, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))))
	u := url.URL{Scheme: "postgres", User: url.UserPassword(c.User, c.Password), Host: r.Address(), Path: c.Database, RawQuery: "sslmode=disable"}
	return r, u.String()
}

// Address is where the relay listens, host:port.
func (r *Relay) Address() string { return r.listener.Addr().String() }

// Port is the port of the address.
func (r *Relay) Port() int { return r.listener.Addr().(*net.TCPAddr).Port }

// Dials is how many connections have come in so far, refused ones included.
func (r *Relay) Dials() int64 { return r.dials.Load() }

// Close stops listening and closes all connections, as a server does that has gone.
func (r *Relay) Close() {
	r.listener.Close()
	r.Cut()
}

// To says where connections go from now on.
func (r *Relay) To(servers ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.servers == nil {
		close(r.known)
	}
	r.servers = servers
}

// next is where the next connection goes.
func (r *Relay) next() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	server := r.servers[0]
	r.servers = append(r.servers[1:], server)
	return server
}

func (r *Relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.dials.Add(1)
		go r.connect(in)
	}
}

func (r *Relay) connect(in net.Conn) {
	<-r.known
	r.mu.Lock()
	refusing := r.refusing
	r.mu.Unlock()
	if refusing {
		in.Close()
		return
	}
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
	go r.copy(out, in, false)
	go r.copy(in, out, true)
}

func (r *Relay) copy(to, from net.Conn, answers bool) {
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
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
		if _, writeErr := to.Write(buffer[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

// Freeze stops all bytes: connections stay up, new ones come up, and all are silent.
func (r *Relay) Freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flowing = make(chan struct{})
}

// Thaw ends a Freeze.
func (r *Relay) Thaw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.flowing:
	default:
		close(r.flowing)
	}
}

// Cut closes all connections, as a server does that is killed and started again.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.conns {
		conn.Close()
	}
	r.conns = nil
}

// Refuse closes all connections, and new ones, as when the server is gone.
func (r *Relay) Refuse() {
	r.set(true, false)
	r.Cut()
}

// Swallow lets requests through and closes the connection instead of answering: what was asked for was done.
func (r *Relay) Swallow() { r.set(false, true) }

// SwallowOnce does so with one answer.
func (r *Relay) SwallowOnce() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.once = true
}

// Restore ends a Refuse and a Swallow.
func (r *Relay) Restore() { r.set(false, false) }

func (r *Relay) set(refusing, swallowed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusing, r.swallowed = refusing, swallowed
}

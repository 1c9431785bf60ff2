package main

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// relay stands between an instance and Postgres. It counts how often the instance dials, and can hold back what goes over
// the connection that listens for revocations while lookups go on.
type relay struct {
	listener net.Listener
	server   string

	mu      sync.Mutex
	cut     bool          // connections are closed, and new ones as well
	flowing chan struct{} // closed while notices flow
	pairs   map[*pair]struct{}
	dials   []time.Time
}

// pair is a connection of an instance and its continuation to the server.
type pair struct {
	relay     *relay
	in, out   net.Conn
	listening atomic.Bool // it has sent LISTEN
}

func newRelay(server string) (*relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: l, server: server, flowing: make(chan struct{}), pairs: map[*pair]struct{}{}}
	close(r.flowing)
	go r.accept()
	return r, nil
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) close() {
	r.listener.Close()
	r.release()
	r.sever(true)
}

func (r *relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.dials = append(r.dials, time.Now())
		cut := r.cut
		r.mu.Unlock()
		if cut {
			in.Close()
			continue
		}
		go r.connect(in)
	}
}

func (r *relay) connect(in net.Conn) {
	out, err := net.Dial("tcp", r.server)
	if err != nil {
		in.Close()
		return
	}
	p := &pair{relay: r, in: in, out: out}
	r.mu.Lock()
	r.pairs[p] = struct{}{}
	cut := r.cut
	r.mu.Unlock()
	if cut {
		p.close()
	}
	go p.copy(out, in)
	p.copy(in, out)
	r.mu.Lock()
	delete(r.pairs, p)
	r.mu.Unlock()
}

func (p *pair) close() {
	p.in.Close()
	p.out.Close()
}

func (p *pair) copy(to, from net.Conn) {
	defer p.close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if from == p.in && bytes.Contains(buffer[:n], []byte("LISTEN ")) {
			p.listening.Store(true)
		}
		if p.listening.Load() {
			<-p.relay.flow()
		}
		if _, failed := to.Write(buffer[:n]); err != nil || failed != nil {
			return
		}
	}
}

func (r *relay) flow() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.flowing
}

// hold holds back all that goes over connections that listen; they stay up.
func (r *relay) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flowing = make(chan struct{})
}

// release ends a hold.
func (r *relay) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.flowing:
	default:
		close(r.flowing)
	}
}

// sever closes all connections, and with on also those to come, until it is called without.
func (r *relay) sever(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = on
	for p := range r.pairs {
		p.close()
	}
}

// busiest is the most dials within any second between two moments.
func (r *relay) busiest(from, to time.Time) (most int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := 0
	for last, at := range r.dials {
		for first < last && (at.Sub(r.dials[first]) >= time.Second || r.dials[first].Before(from)) {
			first++
		}
		if !at.Before(from) && at.Before(to) {
			most = max(most, last-first+1)
		}
	}
	return most
}

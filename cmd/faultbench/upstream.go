package main

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	idHeader = "X-Bench-Id" // numbers every request
	forged   = "forged"     // is in every identity header that a client makes up
)

// sighting is what the upstream saw under one number.
type sighting struct {
	times                  int
	subject, client, token string // as the gateway told
	forged                 bool   // something of the client's own stood among it
}

// upstream is the legacy API: it writes down everything that reaches it.
type upstream struct {
	address string
	server  *http.Server

	mu   sync.Mutex
	seen map[uint64]*sighting
	odd  int // requests without a number: nobody sends any
}

func newUpstream() (*upstream, error) {
	u := &upstream{seen: map[uint64]*sighting{}}
	l, err := net.Listen("tcp", freeAddress())
	if err != nil {
		return nil, err
	}
	u.address = l.Addr().String()
	u.serve(l)
	return u, nil
}

func (u *upstream) serve(l net.Listener) {
	u.server = &http.Server{Handler: u}
	go u.server.Serve(l)
}

// restart breaks everything under way and serves again.
func (u *upstream) restart() error {
	u.server.Close()
	l, err := net.Listen("tcp", u.address)
	if err == nil {
		u.serve(l)
	}
	return err
}

// ServeHTTP answers with the number of the request, after a time that is different for each.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	text := r.Header.Get(idHeader)
	id, err := strconv.ParseUint(text, 10, 64)
	u.mu.Lock()
	if err != nil || r.Method == http.MethodPost && string(body) != text {
		u.odd++
	} else {
		s := u.seen[id]
		if s == nil {
			s = &sighting{}
			u.seen[id] = s
		}
		s.times++
		s.subject, s.client, s.token = r.Header.Get("X-Auth-Subject"), r.Header.Get("X-Auth-Client"), r.Header.Get("X-Auth-Token-Id")
		for _, values := range r.Header {
			s.forged = s.forged || strings.Contains(strings.Join(values, ","), forged)
		}
	}
	u.mu.Unlock()
	time.Sleep(time.Duration(id%8) * time.Millisecond)
	io.WriteString(w, text)
}

// saw is what was seen under a number.
func (u *upstream) saw(id uint64) sighting {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s := u.seen[id]; s != nil {
		return *s
	}
	return sighting{}
}

// forget makes room.
func (u *upstream) forget(requests []*request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range requests {
		delete(u.seen, r.id)
	}
}

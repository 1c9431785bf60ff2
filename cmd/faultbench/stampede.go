package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// stampede sends one proof many times at the same moment, over all instances, in rounds. That is more than the machine can
// do at once: some may be told to come again, and with bad luck the one that would have passed is.
func (s *script) stampede(ctx context.Context) error {
	rounds, copies := 2, 300
	if s.long {
		rounds, copies = 20, 1000
	}
	wires := make([]*wire, copies)
	for n := range wires {
		wires[n] = &wire{address: s.fleet[n%len(s.fleet)].address}
		defer wires[n].close()
	}
	exactly := 0
	for round := range rounds {
		method := []string{http.MethodGet, http.MethodPost}[round%2]
		victim := s.crowd.hot[round%len(s.crowd.hot)].Load()
		var proof string
		var group uint64
		var passed atomic.Int64
		var all sync.WaitGroup
		gun := make(chan struct{})
		for n, w := range wires {
			r := s.ledger.newRequest(copied, "stampede", method, victim, s.fleet[n%len(s.fleet)])
			if n == 0 {
				proof, group = signed(victim.key, s.ledger.claims(r, ordersPath)), r.proof
			}
			r.proof = group
			all.Go(func() {
				<-gun
				if s.ledger.send(w, r, sending{proof: proof}).status == http.StatusOK {
					passed.Add(1)
				}
			})
		}
		close(gun)
		all.Wait()
		if passed.Load() == 1 {
			exactly++
		}
		if !sleep(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
	s.note("%d rounds of %d copies, exactly one of which passed in %d rounds", rounds, copies, exactly)
	return nil
}

// storm opens many connections to every address at once, each with the beginning of a request that never ends.
func (s *script) storm(ctx context.Context) error {
	each := 200
	if s.long {
		each = 1500
	}
	addresses := []string{s.turns}
	for _, i := range s.fleet {
		addresses = append(addresses, i.address)
	}
	var mu sync.Mutex
	var conns []net.Conn
	var dialling sync.WaitGroup
	for _, address := range addresses {
		for range each {
			dialling.Go(func() {
				conn, err := net.DialTimeout("tcp", address, 5*time.Second)
				if err != nil {
					return
				}
				io.WriteString(conn, "GET /orders/1 HTTP/1.1\r\nHost: ")
				mu.Lock()
				defer mu.Unlock()
				conns = append(conns, conn)
			})
		}
	}
	dialling.Wait()
	s.hold(ctx, 4*time.Second, time.Second)
	for _, conn := range conns {
		conn.Close()
	}
	s.note("%d connections", len(conns))
	return nil
}

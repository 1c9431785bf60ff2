package main

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
)

// Addresses to be listened on later are below the range that the system takes ports from by itself: one that it had given
// out before could be another connection's by then. No two tests of this process get the same one.
const firstPort, lastPort = 10000, 19999

var nextPort atomic.Int64

func init() { nextPort.Store(rand.Int64N(lastPort - firstPort)) }

// freeAddress is an address that nobody listens on.
func freeAddress() string {
	for {
		port := firstPort + nextPort.Add(1)%(lastPort-firstPort)
		address := net.JoinHostPort("127.0.0.1", strconv.FormatInt(port, 10))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
}

// freeAddresses are addresses that nobody listens on.
func freeAddresses(t *testing.T, count int) []string {
	t.Helper()
	addresses := make([]string, count)
	for i := range addresses {
		addresses[i] = freeAddress()
	}
	return addresses
}

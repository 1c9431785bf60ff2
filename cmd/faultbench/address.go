package main

import (
	"math/rand/v2"
	"net"
	"strconv"
)

// Addresses to be listened on later are below the range that the system takes ports from by itself: one that it has given
// to a connection could be that connection's when a server is started again.
const firstPort, lastPort = 10000, 19999

var lastGiven = rand.IntN(lastPort - firstPort)

// freeAddress is an address that nobody listens on, and that it has not given out before.
func freeAddress() string {
	for {
		lastGiven = (lastGiven + 1) % (lastPort - firstPort)
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+lastGiven))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
}

func splitAddress(address string) (host, port string) {
	host, port, _ = net.SplitHostPort(address)
	return host, port
}

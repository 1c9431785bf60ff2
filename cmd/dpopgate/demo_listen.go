package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// demoListen listens where the demo is to be reached: on this machine only. localhost is both of its addresses, where
// there are two, as clients try either; so is 127.0.0.1, which is how most people write it. host is how to call it.
func demoListen(address string) (host string, listeners []net.Listener, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", nil, usagef("--listen %s: want HOST:PORT, such as --listen 127.0.0.1:9090", address)
	}
	switch strings.ToLower(host) {
	case "localhost", "127.0.0.1":
		listeners, err = listenLocalhost(port)
		host = "localhost"
	case "::1":
		var l net.Listener
		l, err = net.Listen("tcp6", net.JoinHostPort("::1", port))
		listeners = []net.Listener{l}
		host = "[::1]"
	default:
		return "", nil, usagef("--listen %s: the demo gives its token away, so it listens on this machine only: localhost, 127.0.0.1 or [::1]", address)
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "", nil, fmt.Errorf("port %s is in use by another program: choose another, such as --listen 127.0.0.1:%s", port, otherPort(port))
	case err != nil:
		return "", nil, fmt.Errorf("listening on %s: %w", address, err)
	}
	return fmt.Sprintf("%s:%d", host, listeners[0].Addr().(*net.TCPAddr).Port), listeners, nil
}

// listenLocalhost listens on 127.0.0.1, and on ::1 at the same port where this machine has that address. Somebody else
// on either of them would get what is meant for the demo, so that is an error.
func listenLocalhost(port string) ([]net.Listener, error) {
	const tries = 10 // for a free port that is free on both
	var err error
	for range tries {
		var v4, v6 net.Listener
		if v4, err = net.Listen("tcp4", net.JoinHostPort("127.0.0.1", port)); err != nil {
			return nil, err
		}
		_, got, _ := net.SplitHostPort(v4.Addr().String())
		v6, err = net.Listen("tcp6", net.JoinHostPort("::1", got))
		switch {
		case err == nil:
			return []net.Listener{v4, v6}, nil
		case !errors.Is(err, syscall.EADDRINUSE):
			return []net.Listener{v4}, nil
		}
		v4.Close()
		if port != "0" {
			break
		}
	}
	return nil, err
}

// otherPort is a port to suggest in place of one that is taken.
func otherPort(port string) string {
	if port == "9090" {
		return "9191"
	}
	return "9090"
}

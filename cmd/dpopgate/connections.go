package main

import (
	"net"
	"sync"
)

// connections bounds how many there are at a time, over all listeners that share it. What is too much is not accepted
// until another one is closed: it waits in the system's queue, where it costs the gateway nothing. A nil connections
// bounds nothing.
type connections chan struct{}

// newConnections makes room for that many; 0 is no bound.
func newConnections(most int) connections {
	if most == 0 {
		return nil
	}
	return make(connections, most)
}

// bound makes a listener share the room.
func (c connections) bound(l net.Listener) net.Listener {
	if c == nil {
		return l
	}
	return &boundListener{Listener: l, room: c, closed: make(chan struct{})}
}

type boundListener struct {
	net.Listener
	room   connections
	once   sync.Once
	closed chan struct{}
}

func (l *boundListener) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok { // bind makes no others
		<-l.room
		conn.Close()
		return nil, net.ErrClosed
	}
	return &boundConn{TCPConn: tcp, room: l.room}, nil
}

func (l *boundListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// boundConn makes room when it is closed. It is a TCPConn, so that it can be closed for writing only.
type boundConn struct {
	*net.TCPConn
	room connections
	once sync.Once
}

func (c *boundConn) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(func() { <-c.room })
	return err
}

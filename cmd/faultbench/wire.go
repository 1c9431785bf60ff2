package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

const (
	// wait bounds a request; nothing in the rig should take that long.
	wait = 15 * time.Second
	// longestRest is how long a connection may go unused before it is used again. It is less than limits.drain_delay, within
	// which a gateway that is about to end tells its clients so: who sends something just when an idle connection is closed
	// cannot know what became of it.
	longestRest = drainDelay / 2
)

// errUnreached says that nothing of a request was sent.
var errUnreached = errors.New("there was no connection to send it on")

// wire is a client's connection to an address, kept as long as the server lets it. Unlike net/http's client it never sends
// anything twice, and knows whether it has sent anything at all.
type wire struct {
	address string
	conn    net.Conn
	r       *bufio.Reader
	used    time.Time
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// send sends the bytes of one request and reads the answer.
func (w *wire) send(method string, request []byte) (answer, error) {
	if w.conn != nil && (w.stale() || time.Since(w.used) > longestRest) {
		w.close()
	}
	if w.conn == nil {
		conn, err := net.DialTimeout("tcp", w.address, wait)
		if err != nil {
			return answer{}, errUnreached
		}
		w.conn, w.r = conn, bufio.NewReader(conn)
	}
	a, keep, err := w.exchange(method, request)
	if err != nil || !keep {
		w.close()
	}
	w.used = time.Now()
	return a, err
}

func (w *wire) exchange(method string, request []byte) (a answer, keep bool, err error) {
	w.conn.SetDeadline(time.Now().Add(wait))
	if _, err := w.conn.Write(request); err != nil {
		return a, false, err
	}
	res, err := http.ReadResponse(w.r, &http.Request{Method: method})
	if err != nil {
		return a, false, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	return answer{res.StatusCode, res.Header, string(body)}, !res.Close, err
}

// move has what is sent from now on go to an address.
func (w *wire) move(address string) {
	if address != w.address {
		w.close()
		w.address = address
	}
}

// stale says whether the server has closed the connection since it was last used, as far as that is known here.
func (w *wire) stale() bool {
	raw, err := w.conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return true
	}
	stale := true
	raw.Control(func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		stale = !errors.Is(err, syscall.EAGAIN)
	})
	return stale
}

func (w *wire) close() {
	if w.conn != nil {
		w.conn.Close()
	}
	w.conn = nil
}

package proxy

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Close codes of a WebSocket (RFC 6455 §7.4.1).
const (
	goingAway       = 1001
	policyViolation = 1008
)

const (
	tunnelBuffer  = 8 << 10                // of each direction
	closePatience = time.Second            // for the other side to end when one has
	closeWithin   = 250 * time.Millisecond // to write a Close frame, or gRPC's status
	writePatience = time.Minute            // for the client to take what is written to it
)

// tunnel is a WebSocket: two connections, joined. It reads no message. Of what goes to the client it follows where
// frames begin and end, so that the gateway can end the conversation in the protocol's own words.
type tunnel struct {
	client   net.Conn
	upstream io.ReadWriteCloser

	stopped atomic.Bool // by the gateway

	mu      sync.Mutex // for writing to the client, and for the rest
	frames  frames     // that have gone to the client
	written int64      // to the client

	done chan struct{} // closed when it is over
}

// run carries bytes both ways until both have ended, and says how many went to the client. early is what the client has
// already sent: it need not wait for the answer to its handshake.
func (t *tunnel) run(early *bufio.Reader) int64 {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t.carryUp(early)
	}()
	t.carryDown()
	closeWrite(t.client)
	// What the client still sends is read and dropped for a moment. Closed with bytes unread, its connection would be
	// reset, and the last frames lost that it has not read yet.
	t.client.SetReadDeadline(time.Now().Add(closePatience))
	<-ended
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.written
}

// carryUp takes the client's bytes to the upstream, which then has a moment to have its last word.
func (t *tunnel) carryUp(early *bufio.Reader) {
	_, err := io.CopyBuffer(t.upstream, onlyReader{io.MultiReader(io.LimitReader(early, int64(early.Buffered())), t.client)}, make([]byte, tunnelBuffer))
	closeWrite(t.upstream)
	time.AfterFunc(closePatience, func() { t.upstream.Close() })
	if err != nil {
		io.Copy(io.Discard, t.client)
	}
}

// onlyReader hides the other methods of a reader, so that a copy uses the buffer that it is given.
type onlyReader struct{ io.Reader }

// carryDown takes the upstream's bytes to the client.
func (t *tunnel) carryDown() {
	buf := make([]byte, tunnelBuffer)
	for {
		n, err := t.upstream.Read(buf)
		if n > 0 && !t.deliver(buf[:n]) || err != nil {
			return
		}
	}
}

// deliver writes to the client, unless the gateway has had the last word.
func (t *tunnel) deliver(b []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.client.SetWriteDeadline(time.Now().Add(writePatience))
	if t.stopped.Load() { // looked at after setting the deadline, which stop sets after this
		return false
	}
	n, err := t.client.Write(b)
	t.frames.pass(b[:n])
	t.written += int64(n)
	return err == nil
}

// stop ends the conversation with a Close frame that says why. Inside of a frame there is no place for one, and the
// connection just ends. It returns within closeWithin, and what the upstream says from then on goes nowhere.
func (t *tunnel) stop(code uint16, reason string) {
	if t.stopped.Swap(true) {
		return
	}
	t.client.SetWriteDeadline(time.Now().Add(closeWithin))
	t.mu.Lock()
	if t.frames.between() {
		t.client.Write(closeFrame(code, reason))
	}
	t.mu.Unlock()
	t.upstream.Close()
}

// close lets both connections go.
func (t *tunnel) close() {
	t.client.Close()
	t.upstream.Close()
}

// closeFrame is a Close frame of a server (RFC 6455 §5.5.1). The reason is at most 123 bytes.
func closeFrame(code uint16, reason string) []byte {
	frame := []byte{0x80 | opClose, byte(2 + len(reason))}
	return append(binary.BigEndian.AppendUint16(frame, code), reason...)
}

const opClose = 8

// frames follows the frames of a WebSocket in a stream of bytes (RFC 6455 §5.2).
type frames struct {
	head   [14]byte // of the frame that begins, as far as it is there
	have   int
	left   uint64 // of the payload
	closed bool   // a Close frame has begun: none comes after it
}

// between says whether another frame may be put here.
func (f *frames) between() bool { return f.have == 0 && f.left == 0 && !f.closed }

// pass takes in the next bytes.
func (f *frames) pass(b []byte) {
	for len(b) > 0 {
		if f.left > 0 {
			n := min(f.left, uint64(len(b)))
			f.left -= n
			b = b[n:]
			continue
		}
		f.head[f.have] = b[0]
		f.have++
		b = b[1:]
		if size := f.headSize(); f.have == size {
			f.begin()
		}
	}
}

// headSize is the length of the frame header as far as it is known.
func (f *frames) headSize() int {
	if f.have < 2 {
		return 2
	}
	size := 2
	switch f.head[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if f.head[1]&0x80 != 0 { // masked
		size += 4
	}
	return size
}

// begin ends a frame header.
func (f *frames) begin() {
	switch length := f.head[1] & 0x7f; length {
	case 126:
		f.left = uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		f.left = binary.BigEndian.Uint64(f.head[2:])
	default:
		f.left = uint64(length)
	}
	f.closed = f.closed || f.head[0]&0x0f == opClose
	f.have = 0
}

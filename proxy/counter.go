package proxy

import (
	"maps"
	"net/http"
	"sync/atomic"
	"time"
)

// counter is a ResponseWriter that keeps the status and counts the body. It also holds an upstream's 1xx answers in
// bounds.
type counter struct {
	http.ResponseWriter
	status  int
	written int64

	relaying *exchange   // set while the upstream may send 1xx
	hints    http.Header // the header of its next one
	informed int         // how many it has sent

	headOnly bool // the answer has no body, and header and end go out as one: gRPC reads a status from no other header

	leaving func() bool // Options.Leaving

	cut     atomic.Bool // the exchange was ended, and no deadline may be set any more but the last one
	parting bool        // then a status is still to be written: the answer is one of gRPC
	parted  bool        // that is so now
}

// maxInformed is how many 1xx answers of an upstream reach the client. There is no bound in the standard (RFC 9110
// §15.2), and no use for more.
const maxInformed = 10

// readerPatience is how long a client may take for some 32 KiB of a long answer.
var readerPatience = time.Minute

// relay begins the wait for the upstream's answer. ReverseProxy writes each 1xx into the header map and empties it
// then, so it gets one of its own, and what the gateway has put on its answer so far is not lost.
func (c *counter) relay(x *exchange) { c.relaying = x }

// relayed ends it: from here on the header is that of the answer.
func (c *counter) relayed() { c.relaying = nil }

func (c *counter) Header() http.Header {
	if c.relaying == nil {
		return c.ResponseWriter.Header()
	}
	if c.hints == nil {
		c.hints = http.Header{}
	}
	return c.hints
}

func (c *counter) WriteHeader(status int) {
	if status < 200 && status != http.StatusSwitchingProtocols {
		c.inform(status)
		return
	}
	c.begin(status)
	c.ResponseWriter.WriteHeader(status)
}

// begin takes the status of the answer. Only now is it said that the connection is not to be used again: who was asked
// long ago may answer while it closes.
func (c *counter) begin(status int) {
	if c.status != 0 {
		return
	}
	c.status = status
	if c.leaving != nil && c.leaving() && status != http.StatusSwitchingProtocols {
		c.ResponseWriter.Header().Set("Connection", "close")
	}
}

// inform passes a 1xx answer on. 100 is left to net/http, which says so by itself once the body is read: the upstream's
// would be a second one. HTTP/1.0 has no 1xx (RFC 9110 §15.2).
func (c *counter) inform(status int) {
	if c.informed++; c.relaying == nil || status == http.StatusContinue || c.informed > maxInformed || c.relaying.event.Protocol == "HTTP/1.0" {
		return
	}
	c.relaying.table.identity.cleanResponse(c.hints)
	h := c.ResponseWriter.Header()
	ours := maps.Clone(h)
	clear(h)
	maps.Copy(h, c.hints)
	c.ResponseWriter.WriteHeader(status)
	clear(h)
	maps.Copy(h, ours)
}

func (c *counter) Write(b []byte) (int, error) {
	c.begin(http.StatusOK)
	defer c.hurry()()
	n, err := c.ResponseWriter.Write(b)
	c.written += int64(n)
	return n, err
}

// FlushError is for http.ResponseController.
func (c *counter) FlushError() error {
	if c.headOnly {
		return nil
	}
	defer c.hurry()()
	return http.NewResponseController(c.ResponseWriter).Flush()
}

// hurry bounds the time in which the client takes what is written next; call what it returns after that. An answer that
// fits into the buffers on the way is not waited for, and pays nothing.
func (c *counter) hurry() (done func()) {
	if c.written < longBody {
		return noHurry
	}
	at := http.NewResponseController(c.ResponseWriter)
	at.SetWriteDeadline(time.Now().Add(readerPatience))
	if c.cut.Load() { // looked at after setting the deadline, as end sets it after this
		at.SetWriteDeadline(c.lastMoment())
	}
	return func() {
		if !c.cut.Load() {
			at.SetWriteDeadline(time.Time{})
		}
	}
}

func noHurry() {}

// lastMoment is until when the answer of an exchange that was ended may still be written.
func (c *counter) lastMoment() time.Time {
	if c.parting {
		return time.Now().Add(closeWithin)
	}
	return time.Unix(1, 0)
}

// Unwrap lets http.ResponseController flush and set deadlines.
func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

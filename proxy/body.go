package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// bodyPatience is how long the body of a request may still take to come in once its answer is an error.
const bodyPatience = 2 * time.Second

// boundBody is to be called before such an answer: net/http reads what is left of a short body first, so that the
// connection can be used again, and would wait for it without an end.
func boundBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 {
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyPatience)) // where there is a connection
	}
}

// A body has to come in at this pace, counted while the gateway waits for it: one that trickles holds a connection and
// a place at the upstream for nothing.
var (
	bodyGrace         = 30 * time.Second // before the pace counts
	bodyPace    int64 = 100              // bytes per second
	errBodyLate       = errors.New("the body of the request came too slowly")
	errBodyCut        = errors.New("the request was ended")
)

// received is a request's body. It remembers how reading it failed: that is the client's doing, not the upstream's.
type received struct {
	io.ReadCloser
	out   *counter
	limit int64 // bytes; 0: none
	paced bool

	upload *upload // nil: it is short

	read   int64         // bytes, by the transport
	waited time.Duration // for them

	failed   atomic.Bool // read while the transport may still be reading
	tooLarge atomic.Bool // likewise: failed, since there was more than limit
	late     atomic.Bool // likewise: failed, since it came too slowly
	ended    atomic.Bool // all of it has been read
	begun    atomic.Bool // something has been read, or tried to be
	over     atomic.Bool // nothing is to be read any more
	answered atomic.Bool // the answer has begun: what follows is a conversation, which may pause
}

// receive puts a request's body under watch.
func (x *exchange) receive(r *http.Request) {
	b := &x.body
	b.ReadCloser, b.out, b.limit = r.Body, x.out, x.route.maxBody
	b.paced = !isGRPC(r.Header) // whose streams may pause
	r.Body = b
}

func (b *received) Read(p []byte) (int, error) {
	if b.over.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	b.begun.Store(true)
	if room := b.limit - b.read + 1; b.limit > 0 && int64(len(p)) > room {
		p = p[:room]
	}
	b.upload.waitForClient()
	n, err := b.await(p)
	b.upload.waitForUpstream()
	b.read += int64(n)
	if b.limit > 0 && b.read > b.limit {
		b.tooLarge.Store(true)
		n, err = n-1, &http.MaxBytesError{Limit: b.limit}
	}
	switch {
	case err == io.EOF:
		b.ended.Store(true)
	case err != nil && !errors.Is(err, http.ErrBodyReadAfterClose):
		b.failed.Store(true)
	}
	return n, err
}

// await reads within the time that is left.
func (b *received) await(p []byte) (int, error) {
	if !b.paced || b.answered.Load() {
		return b.ReadCloser.Read(p)
	}
	at := http.NewResponseController(b.out)
	began := time.Now()
	left := bodyGrace + time.Duration(b.read)*time.Second/time.Duration(bodyPace) - b.waited
	at.SetReadDeadline(began.Add(left))
	switch { // looked at after setting the deadline: who changes these sets another one after it
	case b.out.cut.Load():
		return 0, errBodyCut
	case b.answered.Load():
		at.SetReadDeadline(time.Time{})
	}
	n, err := b.ReadCloser.Read(p)
	if b.waited += time.Since(began); err == io.EOF {
		at.SetReadDeadline(time.Time{}) // which net/http would take for the client's leaving
	}
	if err != nil && err != io.EOF && time.Since(began) >= left {
		b.late.Store(true)
		err = errBodyLate
	}
	return n, err
}

// answers ends the pace.
func (b *received) answers() {
	if b.ReadCloser == nil || !b.paced {
		return
	}
	b.answered.Store(true)
	if !b.ended.Load() {
		http.NewResponseController(b.out).SetReadDeadline(time.Time{})
	}
}

// refuseSize is the answer to a body that says that it is too large; nil for others.
func (x *exchange) refuseSize(length int64) *refusal {
	if x.route == nil || x.asked != "" || x.route.maxBody == 0 || length <= x.route.maxBody {
		return nil
	}
	return tooLarge()
}

func tooLarge() *refusal {
	return refuseRequest(http.StatusRequestEntityTooLarge, BodyTooLarge, "the body of the request is larger than this route takes")
}

// refusal is the answer when reading the body has failed; nil when it has not.
func (b *received) refusal() *refusal {
	switch {
	case b.tooLarge.Load():
		return tooLarge()
	case b.late.Load():
		return refuseRequest(http.StatusRequestTimeout, RequestBodyLate, "the body of the request came too slowly")
	case b.failed.Load():
		return refuseRequest(http.StatusBadRequest, RequestBodyFailed, "the body of the request is malformed or broke off")
	}
	return nil
}

package main

import (
	"sync"
	"time"
)

// allowance is what honest clients may meet while a fault is declared. Nothing allows that a crime succeeds.
type allowance int

const (
	unavailable allowance = 1 << iota // 502, 503 and 504
	unknowable                        // the same, but for tokens that every instance knows only once cache.stale_on_error is over
	renonced                          // a nonce that is asked for again and again, by one instance after the other
	broken                            // a connection that ends without an answer
	deaf                              // a revocation that is seen within cache.ttl only, since no notice of it arrives
	cutOff                            // and within cache.stale_on_error more, since the store does not answer either
	repeated                          // a GET that is delivered twice, since the upstream broke off the first time
)

// windows are the declared times of faults. They may be used concurrently.
type windows struct {
	mu  sync.Mutex
	all []*window
}

// window is one: from the beginning of a fault until it has been mended and a while has passed, within which everything
// has to be well again.
type window struct {
	allows   allowance
	from, to time.Time // zero: still open
}

// open begins a window. There is one at a time.
func (w *windows) open(allows allowance) *window { return w.openFrom(time.Now(), allows) }

// openFrom is open for a window that begins at another time.
func (w *windows) openFrom(from time.Time, allows allowance) *window {
	w.mu.Lock()
	defer w.mu.Unlock()
	opened := &window{allows: allows, from: from}
	w.all = append(w.all, opened)
	return opened
}

// close ends the window that is open, if any is.
func (w *windows) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.all); n > 0 && w.all[n-1].to.IsZero() {
		w.all[n-1].to = time.Now()
	}
}

// allow says whether a window that allows something touches a time.
func (w *windows) allow(what allowance, from, to time.Time) bool {
	return w.allowLate(what, 0, from, to)
}

// allowLate is allow for what is allowed only when a window has been open for so long.
func (w *windows) allowLate(what allowance, since time.Duration, from, to time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.all {
		if one.allows&what != 0 && !to.Before(one.from.Add(since)) && (one.to.IsZero() || !from.After(one.to)) {
			return true
		}
	}
	return false
}

// bounds are the promises that reconciliation holds the fleet to.
type bounds struct {
	timeout  time.Duration // store.timeout
	ttl      time.Duration // cache.ttl
	stale    time.Duration // cache.stale_on_error
	notice   time.Duration // from a commit until every instance refuses, while notices work
	recovery time.Duration // from the mending of a fault until nothing is felt of it
}

// revocation is how long after its commit a revocation may go unseen, with what is declared meanwhile.
func (b bounds) revocation(w *windows, from, to time.Time) time.Duration {
	unseen := b.notice
	if w.allow(deaf|cutOff, from, to) {
		unseen = max(unseen, b.ttl+time.Second)
	}
	if w.allow(cutOff, from, to) {
		unseen += b.stale
	}
	return unseen
}

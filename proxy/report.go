package proxy

// pardons says whether the route lets a request through that a check has failed: in mode report nothing is refused for
// who asks or how often. What is wrong with the request itself is refused all the same.
func (x *exchange) pardons(f *refusal) bool { return f.pardonable && x.route.report }

// pardon turns a refusal on a route in mode report into a note on the event. The upstream is not told who calls unless
// that was established. A challenge is never sent, so no nonce can be asked for.
func (x *exchange) pardon(f *refusal) *refusal {
	if f == nil || !x.pardons(f) {
		return f
	}
	x.event.Would, x.event.Err = f.reason, f.err
	if f.reason != RateLimited {
		x.record = nil
	}
	return nil
}

package proxy

import (
	"context"
	"sync/atomic"
	"time"
)

// upload bounds how long a body on its way may wait for its upstream. Transport waits for an answer with a bound only
// from the body's end on: an upstream that takes no more of it would be waited for without an end. The time that the
// client takes does not count, nor does any once the answer has begun. A nil upload bounds nothing.
type upload struct {
	patience time.Duration
	timer    *time.Timer
	state    atomic.Int32
}

// The states of an upload.
const (
	uploading int32 = iota
	uploadAnswered
	uploadStuck
)

// newUpload makes one that cancels the upstream's request.
func newUpload(patience time.Duration, cancel context.CancelFunc) *upload {
	u := &upload{patience: patience}
	u.timer = time.AfterFunc(patience, func() {
		if u.state.CompareAndSwap(uploading, uploadStuck) {
			cancel()
		}
	})
	u.timer.Stop()
	return u
}

// waitForClient is called before each read, and waitForUpstream after it.
func (u *upload) waitForClient() {
	if u != nil {
		u.timer.Stop()
	}
}

func (u *upload) waitForUpstream() {
	if u != nil && u.state.Load() == uploading {
		u.timer.Reset(u.patience)
	}
}

// end is called when the answer begins, or there will be none.
func (u *upload) end() {
	if u != nil {
		u.state.CompareAndSwap(uploading, uploadAnswered)
		u.timer.Stop()
	}
}

// stuck says whether the upstream has been given up.
func (u *upload) stuck() bool { return u != nil && u.state.Load() == uploadStuck }

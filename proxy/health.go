package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// maxHealthBody is how much of a check's answer is read, so that its connection can be used again.
const maxHealthBody = 64 << 10

// attend asks a target how it is, again and again until ctx ends.
func (u *upstream) attend(ctx context.Context, t *target) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for differ := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		err := u.ask(ctx, t)
		if ctx.Err() != nil {
			return
		}
		differ = u.heard(t, err, differ)
		pause.Reset(u.health.Interval.Std())
	}
}

// ask sends one check. An answer below 400 is a good one; redirects are not followed.
func (u *upstream) ask(ctx context.Context, t *target) error {
	ctx, cancel := context.WithTimeout(ctx, u.health.Timeout.Std())
	defer cancel()
	r := (&http.Request{
		Method: http.MethodGet,
		URL:    &url.URL{Scheme: t.scheme, Host: t.host, Opaque: u.health.Path},
		Header: http.Header{"User-Agent": {"dpopgate"}},
	}).WithContext(ctx)
	for name, value := range u.headers {
		r.Header.Set(name, value)
	}
	res, err := u.transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxHealthBody)); err != nil {
		return err
	}
	if res.StatusCode < 200 || res.StatusCode >= 400 {
		return fmt.Errorf("answered %d", res.StatusCode)
	}
	return nil
}

// heard takes the result of a check. It is given how many results in a row were unlike the target's state, and returns
// how many are now.
func (u *upstream) heard(t *target, err error, differ int) int {
	u.mu.Lock()
	if t.down == (err != nil) {
		if err == nil && !t.benched(u.now()) {
			t.failing = false // as good as a request that tries; failures stay for how long it is left alone the next time
		}
		u.mu.Unlock()
		return 0
	}
	differ++
	needed := u.health.UnhealthyAfter
	if t.down {
		needed = u.health.HealthyAfter
	}
	turned := differ >= needed
	if turned {
		t.down = !t.down
		t.failures, t.failing = 0, false
		differ = 0
	}
	u.mu.Unlock()
	switch {
	case turned && err != nil:
		u.log.Warn("upstream target is unhealthy", "upstream", u.name, "target", t.url, "error", err)
	case turned:
		u.log.Info("upstream target is healthy", "upstream", u.name, "target", t.url)
	}
	return differ
}

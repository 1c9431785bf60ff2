package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func reported(r *readiness) (text string, ready bool) {
	var b bytes.Buffer
	ready = r.report(&b)
	return b.String(), ready
}

func TestReadinessAsksTheStoreOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		var answer error
		r := newReadiness(time.Second)
		r.watch("store", func(context.Context) error { asked++; return answer })
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { reported(r) })
		}
		all.Wait()
		assert.Equal(t, 1, asked)
		answer = errors.New("down")
		time.Sleep(readyFor - time.Nanosecond)
		text, ready := reported(r)
		assert.True(t, ready)
		assert.Equal(t, "serving ok\nstore ok\n", text)
		time.Sleep(time.Nanosecond)
		text, ready = reported(r)
		assert.False(t, ready)
		assert.Equal(t, "serving ok\nstore failed\n", text)
		assert.Equal(t, 2, asked)
	})
}

func TestReadinessDoesNotWaitForAStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReadiness(500 * time.Millisecond)
		r.watch("store", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		began := time.Now()
		_, ready := reported(r)
		assert.False(t, ready)
		assert.Equal(t, 500*time.Millisecond, time.Since(began))
	})
}

func TestReadinessEndsWithTheDrain(t *testing.T) {
	r := newReadiness(time.Second)
	r.watch("store", func(context.Context) error { return nil })
	r.draining.Store(true)
	text, ready := reported(r)
	assert.False(t, ready)
	assert.Equal(t, "serving failed\nstore ok\n", text)
}

// attack: 197
func TestAdminAnswersToItsNamesOnly(t *testing.T) {
	r := newReadiness(time.Second)
	r.watch("store", func(context.Context) error { return nil })
	for _, c := range []struct {
		address, host string
		status        int
	}{
		{"127.0.0.1:9180", "127.0.0.1:9180", 200},
		{"127.0.0.1:9180", "localhost:9180", 200},
		{"127.0.0.1:9180", "LOCALHOST", 200},
		{"127.0.0.1:9180", "[::1]:9180", 200},
		{"127.0.0.1:9180", "", 200},
		{"127.0.0.1:9180", "evil.example:9180", 421},
		{"127.0.0.1:9180", "127.0.0.1.evil.example", 421},
		{"localhost:9180", "evil.example", 421},
		{"[::1]:9180", "evil.example", 421},
		{"0.0.0.0:9180", "10.1.2.3:9180", 200},
		{":9180", "gateway.internal:9180", 200},
	} {
		req := httptest.NewRequest(http.MethodGet, "/readyz", nil)
		req.Host = c.host
		w := httptest.NewRecorder()
		(&adminGuard{address: c.address}).protect(adminMux(r, newMetrics())).ServeHTTP(w, req)
		assert.Equal(t, c.status, w.Code, "%s asked as %q", c.address, c.host)
	}
}

// attack: 197
func TestAdminIsReadOnly(t *testing.T) {
	r := newReadiness(time.Second)
	r.watch("store", func(context.Context) error { return nil })
	w := httptest.NewRecorder()
	adminMux(r, newMetrics()).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/readyz", nil))
	assert.Equal(t, http.StatusMethodNotAllowed, w.Code)
}

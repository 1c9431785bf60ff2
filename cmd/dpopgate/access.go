package main

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/textproto"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
)

// maxLogged is how many bytes of a value that the client chose are logged.
const maxLogged = 1024

// accessLog writes one line for each request. Without log.access it still writes those that failed for reasons of
// ours: they are nobody's access, but the operator's work.
type accessLog struct {
	log *slog.Logger
	all atomic.Bool // log.access

	sample atomic.Int64 // log.sample; 0 is 1
}

// Write logs one event. It may be called concurrently.
func (a *accessLog) Write(e *proxy.Event) {
	level := severity(e)
	ctx := context.Background()
	if level == slog.LevelInfo && !a.all.Load() || !a.log.Enabled(ctx, level) || a.leavesOut(e) {
		return
	}
	attrs := make([]slog.Attr, 0, 24)
	add := func(name, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(name, clip(value)))
		}
	}
	add("request_id", e.RequestID)
	add("trace_id", e.TraceID)
	add("span_id", e.SpanID)
	add("method", e.Method)
	add("host", e.Host)
	add("path", e.Path)
	add("route", e.Route)
	attrs = append(attrs, slog.Int("status", e.Status))
	add("verdict", string(e.Verdict))
	add("reason", string(e.Reason))
	add("would_refuse", string(e.Would))
	add("forward_auth", e.Asker)
	if e.Err != nil {
		add("error", plainError(e.Err))
	}
	attrs = append(attrs,
		slog.Float64("duration_ms", milliseconds(e.Duration)),
		slog.Float64("auth_ms", milliseconds(e.Auth)),
	)
	if e.Upstream > 0 {
		attrs = append(attrs, slog.Float64("upstream_ms", milliseconds(e.Upstream)))
	}
	add("target", e.Target)
	add("client_address", e.Client)
	add("protocol", e.Protocol)
	add("scheme", e.Scheme)
	add("jkt", string(e.Thumbprint))
	add("alg", string(e.Algorithm))
	if e.TokenID != uuid.Nil {
		add("token_id", e.TokenID.String())
		add("client_id", e.ClientID.String())
	}
	if e.UserID.Valid {
		add("user_id", e.UserID.UUID.String())
	}
	attrs = append(attrs, slog.Int64("bytes", e.Written))
	a.log.LogAttrs(ctx, level, "request", attrs...)
}

// leavesOut says whether a request is one of those that another one has a line for.
func (a *accessLog) leavesOut(e *proxy.Event) bool {
	n := a.sample.Load()
	return n > 1 && e.Verdict == proxy.Passed && e.Would == "" && e.Reason == "" && rand.Int64N(n) != 0
}

// severity is who has to look: nobody, when the client's doing was answered as it should be.
func severity(e *proxy.Event) slog.Level {
	switch {
	case e.Verdict == proxy.Failed && e.Reason != proxy.ClientGone:
		return slog.LevelError
	case e.Verdict == proxy.Refused && e.Status >= http.StatusInternalServerError, e.Would != "":
		return slog.LevelWarn
	default:
		return slog.LevelInfo
	}
}

// plainError is an error's text without what an upstream sent: net/http quotes a malformed answer, and an upstream may
// answer with what the client had sent it.
func plainError(err error) string {
	var refused *dpop.Error
	if errors.As(err, &refused) {
		return refused.Description
	}
	if errors.As(err, new(textproto.ProtocolError)) {
		return "malformed response header"
	}
	before, _, _ := strings.Cut(oneLine(err), `"`)
	return strings.TrimSpace(before)
}

func clip(s string) string {
	if len(s) <= maxLogged {
		return s
	}
	return strings.ToValidUTF8(s[:maxLogged], "") + "…"
}

// milliseconds is a duration as logs have it, with microseconds behind the point.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

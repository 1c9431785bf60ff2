package main

import (
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
)

// Attributes are the stable ones of OpenTelemetry's conventions for HTTP; there are none for DPoP, and those are
// dpopgate.*, with the values of the log.

// stepNames are the names of the spans of the steps.
var stepNames = map[proxy.Step]string{
	proxy.StepCheck:  "dpop.check",
	proxy.StepLookup: "token.lookup",
	proxy.StepVerify: "dpop.verify",
	proxy.StepClaim:  "dpop.claim",
}

// methodName is a method as spans have it: one of those that HTTP knows, or _OTHER.
func methodName(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
		http.MethodConnect, http.MethodTrace:
		return method
	}
	return "_OTHER"
}

// Step implements proxy.Trace. What is the client's doing is no error of the step.
func (t *traced) Step(s proxy.Step) func(error) {
	_, span := t.tracer.Start(t.ctx, stepNames[s])
	return func(err error) {
		if refused := dpop.AsError(err); refused != nil {
			span.SetAttributes(attribute.String("dpopgate.reason", string(refused.Reason)))
		} else if err != nil {
			span.SetStatus(codes.Error, plainError(err))
		}
		span.End()
	}
}

// Try implements proxy.Trace.
func (t *traced) Try(r *http.Request) func(*http.Response, error) {
	host, port := r.URL.Hostname(), r.URL.Port()
	attrs := []attribute.KeyValue{
		attribute.String("http.request.method", methodName(r.Method)),
		attribute.String("server.address", host),
		attribute.String("url.full", clip(r.URL.Scheme+"://"+r.URL.Host+r.URL.Opaque)), // without the query
	}
	if n, err := strconv.Atoi(port); err == nil {
		attrs = append(attrs, attribute.Int("server.port", n))
	}
	if t.tries > 0 {
		attrs = append(attrs, attribute.Int("http.request.resend_count", t.tries))
	}
	t.tries++
	ctx, span := t.tracer.Start(t.ctx, methodName(r.Method), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attrs...))
	r.Header.Del("Tracestate") // of another trace, if this one has none
	traceContext.Inject(ctx, propagation.HeaderCarrier(r.Header))
	return func(res *http.Response, err error) {
		switch {
		case err != nil:
			span.SetStatus(codes.Error, plainError(err))
			span.SetAttributes(attribute.String("error.type", errorType(err)))
		case res.StatusCode >= 400:
			span.SetStatus(codes.Error, "")
			span.SetAttributes(attribute.String("error.type", strconv.Itoa(res.StatusCode)))
			fallthrough
		default:
			span.SetAttributes(attribute.Int("http.response.status_code", res.StatusCode))
		}
		span.End()
	}
}

// errorType is what kind of error kept an upstream from answering.
func errorType(err error) string {
	if late, ok := err.(net.Error); ok && late.Timeout() {
		return "timeout"
	}
	return "_OTHER"
}

// End implements proxy.Trace.
func (t *traced) End(e *proxy.Event) {
	if !t.span.IsRecording() {
		t.span.End()
		return
	}
	method := methodName(e.Method)
	name := method
	if method == "_OTHER" {
		name = "HTTP"
		t.span.SetAttributes(attribute.String("http.request.method_original", clip(e.Method)))
	}
	if e.Route != "" {
		_, path, ok := strings.Cut(e.Route, " ")
		if !ok {
			path = e.Route
		}
		name += " " + path
		t.span.SetAttributes(attribute.String("http.route", path))
	}
	t.span.SetName(name)
	say := func(key, value string) {
		if value != "" {
			t.span.SetAttributes(attribute.String(key, clip(value)))
		}
	}
	say("http.request.method", method)
	say("url.path", e.Path)
	say("server.address", e.Host)
	say("client.address", e.Client)
	say("network.protocol.version", strings.Replace(strings.TrimPrefix(e.Protocol, "HTTP/"), "2.0", "2", 1))
	say("dpopgate.request_id", e.RequestID)
	say("dpopgate.verdict", string(e.Verdict))
	say("dpopgate.reason", string(e.Reason))
	say("dpopgate.would_refuse", string(e.Would))
	say("dpopgate.forward_auth", e.Asker)
	say("dpopgate.scheme", e.Scheme)
	say("dpopgate.jkt", string(e.Thumbprint))
	if e.TokenID != uuid.Nil {
		say("dpopgate.token_id", e.TokenID.String())
		say("dpopgate.client_id", e.ClientID.String())
	}
	if e.Status > 0 {
		t.span.SetAttributes(attribute.Int("http.response.status_code", e.Status))
	}
	if e.Status >= http.StatusInternalServerError || e.Verdict == proxy.Failed {
		t.span.SetStatus(codes.Error, "")
		kind := string(e.Reason)
		if kind == "" {
			kind = strconv.Itoa(e.Status)
		}
		say("error.type", kind)
	}
	t.span.End()
}

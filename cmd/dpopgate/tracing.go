package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/proxy"
)

// flushTimeout bounds the sending of the last spans when the gateway ends.
const flushTimeout = 3 * time.Second

// tracing sends what the gateway does with requests to an OTLP collector. It implements proxy.Tracing.
type tracing struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	exporter *saidExporter
}

// newTracing is what a config and the OTEL_* variables ask for: nil for no tracing. It does not wait for the collector.
func newTracing(ctx context.Context, c config.Tracing, e *env, log *slog.Logger) (*tracing, error) {
	on, err := tracingWanted(c, e)
	if !on || err != nil {
		return nil, err
	}
	var options []otlptracehttp.Option // what they do not say, the variables do
	if c.OTLPEndpoint != "" {
		options = append(options, otlptracehttp.WithEndpointURL(tracesURL(c.OTLPEndpoint)))
	}
	client, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	of, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "dpopgate"), attribute.String("service.version", thisBuild().Version)),
		resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("tracing: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	t := &tracing{exporter: &saidExporter{SpanExporter: client, log: log}}
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithResource(of), sdktrace.WithBatcher(t.exporter))
	t.tracer = t.provider.Tracer(module)
	return t, nil
}

// module names the tracer.
const module = "github.com/dpopgate/dpopgate"

// tracingWanted says whether there is an endpoint, and none of the variables turns tracing off.
func tracingWanted(c config.Tracing, e *env) (bool, error) {
	set := func(name string) string {
		value, _ := e.lookup(name)
		return strings.TrimSpace(value)
	}
	exporter := set("OTEL_TRACES_EXPORTER")
	switch {
	case c.OTLPEndpoint == "" && set("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "":
		return false, nil
	case strings.EqualFold(set("OTEL_SDK_DISABLED"), "true"), exporter == "none":
		return false, nil
	case exporter != "" && exporter != "otlp":
		return false, fmt.Errorf("tracing: OTEL_TRACES_EXPORTER is %q: want otlp or none", exporter)
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if protocol := set(name); protocol == "grpc" {
			return false, fmt.Errorf("tracing: %s is grpc: traces are sent over HTTP, to the collector's port 4318: want http/protobuf", name)
		} else if protocol != "" {
			break
		}
	}
	return true, nil
}

// tracesURL is where spans go below an endpoint: OTLP over HTTP has a path of its own for each signal.
func tracesURL(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil && strings.Trim(u.Path, "/") == "" {
		return u.JoinPath("v1", "traces").String()
	}
	return endpoint
}

// close sends what has not been sent yet, and does not wait long for that.
func (t *tracing) close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	t.provider.Shutdown(ctx)
}

// watchTracing shows how many spans were lost.
func (m *metrics) watchTracing(t *tracing) {
	m.registry.MustRegister(counterOf("dpopgate_trace_spans_lost_total", func() float64 {
		if t == nil {
			return 0
		}
		return float64(t.exporter.lost.Load())
	}))
}

// saidExporter counts the spans that could not be sent, and says so once in the log until it works again.
type saidExporter struct {
	sdktrace.SpanExporter
	log    *slog.Logger
	lost   atomic.Uint64
	failed atomic.Bool // so was the last batch
}

// ExportSpans implements sdktrace.SpanExporter.
func (x *saidExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := x.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil:
		x.lost.Add(uint64(len(spans)))
		if !x.failed.Swap(true) {
			x.log.Warn("traces cannot be sent", "error", plainError(err))
		}
	case x.failed.Swap(false):
		x.log.Info("traces can be sent again")
	}
	return nil
}

var traceContext propagation.TraceContext

// Begin implements proxy.Tracing. Whoever is not believed begins a trace of his own, which has a link to the one that he
// names (W3C Trace Context, section 4).
func (t *tracing) Begin(r *http.Request, believed bool) proxy.Trace {
	ctx := context.Background()
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.String("url.scheme", scheme))}
	from := trace.SpanContextFromContext(traceContext.Extract(ctx, propagation.HeaderCarrier(r.Header)))
	switch {
	case !from.IsValid():
	case believed:
		ctx = trace.ContextWithRemoteSpanContext(ctx, from)
	default:
		options = append(options, trace.WithLinks(trace.Link{SpanContext: from}))
	}
	span := &traced{tracer: t.tracer}
	span.ctx, span.span = t.tracer.Start(ctx, methodName(r.Method), options...)
	return span
}

// traced is a request that is followed. It implements proxy.Trace.
type traced struct {
	tracer trace.Tracer
	ctx    context.Context
	span   trace.Span
	tries  int
}

// IDs implements proxy.Trace.
func (t *traced) IDs() (traceID, spanID string) {
	c := t.span.SpanContext()
	return c.TraceID().String(), c.SpanID().String()
}

package main

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/dpopgate/dpopgate/config"
)

// otlpCollector takes spans as the protocol has it, OTLP over HTTP.
type otlpCollector struct {
	url   string
	mu    sync.Mutex
	raw   bytes.Buffer // everything it was sent
	spans []*otlp.Span
	of    map[string]string // the resource
}

func newCollector(t *testing.T) *otlpCollector {
	t.Helper()
	c := &otlpCollector{of: map[string]string{}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(r.Body)
		}
		data, _ := io.ReadAll(body)
		var got collector.ExportTraceServiceRequest
		if r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" || proto.Unmarshal(data, &got) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw.Write(data)
		for _, of := range got.GetResourceSpans() {
			for _, a := range of.GetResource().GetAttributes() {
				c.of[a.GetKey()] = a.GetValue().GetStringValue()
			}
			for _, scope := range of.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		answer, _ := proto.Marshal(&collector.ExportTraceServiceResponse{})
		w.Write(answer)
	}))
	t.Cleanup(s.Close)
	c.url = s.URL
	return c
}

// named are the spans of that name.
func (c *otlpCollector) named(name string) (spans []*otlp.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.GetName() == name {
			spans = append(spans, s)
		}
	}
	return spans
}

// attributesOf are a span's, as text.
func attributesOf(s *otlp.Span) map[string]string {
	all := map[string]string{}
	for _, a := range s.GetAttributes() {
		all[a.GetKey()] = a.GetValue().GetStringValue()
		if n := a.GetValue().GetIntValue(); n != 0 {
			all[a.GetKey()] = fmt.Sprint(n)
		}
	}
	return all
}

// ended stops the gateway, which sends what it has not sent yet.
func (g *gateway) ended(t *testing.T) {
	t.Helper()
	g.signals <- syscall.SIGTERM
	g.signals <- syscall.SIGTERM
	require.Equal(t, exitOK, <-g.exit)
}

const foreignTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestTraceHasASpanForEachStep(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	upstream, got := answering(t, func(http.ResponseWriter, *http.Request) {})
	g := startGateway(t, "  - {match: GET /a/, upstream: "+upstream+", scopes: [a]}", "tracing: {otlp_endpoint: "+c.url+"}")
	owner := newHolder(t, g)
	r := owner.request(t, g, "/a/b")
	r.URL.RawQuery = "q=secret-query"
	r.Header.Set("Traceparent", foreignTrace)
	r.Header.Set("Tracestate", "vendor=stranger")
	require.Equal(t, http.StatusOK, answerTo(t, r))
	require.Equal(t, http.StatusUnauthorized, answerTo(t, owner.thief(t).request(t, g, "/a/b")))
	g.ended(t)

	assert.Equal(t, "dpopgate", c.of["service.name"])
	servers := c.named("GET /a/")
	require.Len(t, servers, 2)
	server, refused := servers[0], servers[1]
	assert.Equal(t, otlp.Span_SPAN_KIND_SERVER, server.GetKind())
	assert.Empty(t, server.GetParentSpanId(), "a stranger's traceparent is not believed")
	require.Len(t, server.GetLinks(), 1)
	assert.Equal(t, "0af7651916cd43dd8448eb211c80319c", hex.EncodeToString(server.GetLinks()[0].GetTraceId()))
	attrs := attributesOf(server)
	for key, want := range map[string]string{
		"http.request.method": "GET", "http.route": "/a/", "http.response.status_code": "200", "url.path": "/a/b", "url.scheme": "http",
		"network.protocol.version": "1.1", "client.address": "127.0.0.1", "server.address": strings.TrimPrefix(g.url, "http://"),
		"dpopgate.verdict": "passed", "dpopgate.jkt": string(owner.key.Thumbprint()), "dpopgate.scheme": "DPoP",
	} {
		assert.Equal(t, want, attrs[key], key)
	}
	for _, name := range []string{"dpop.check", "token.lookup", "dpop.verify", "dpop.claim"} {
		spans := c.named(name)
		require.NotEmpty(t, spans, name)
		assert.Equal(t, server.GetSpanId(), spans[0].GetParentSpanId(), name)
	}
	clients := c.named("GET")
	require.Len(t, clients, 1)
	client := clients[0]
	assert.Equal(t, otlp.Span_SPAN_KIND_CLIENT, client.GetKind())
	assert.Equal(t, server.GetSpanId(), client.GetParentSpanId())
	assert.Equal(t, upstream+"/a/b", attributesOf(client)["url.full"], "without the query")
	assert.Equal(t, "200", attributesOf(client)["http.response.status_code"])
	want := fmt.Sprintf("00-%x-%x-01", client.GetTraceId(), client.GetSpanId())
	assert.Equal(t, []string{want}, (*got)[0].header["Traceparent"])
	assert.Empty(t, (*got)[0].header["Tracestate"], "which is another trace's")

	assert.Equal(t, "refused", attributesOf(refused)["dpopgate.verdict"])
	assert.Equal(t, "key_not_bound", attributesOf(refused)["dpopgate.reason"])
	assert.NotEqual(t, otlp.Status_STATUS_CODE_ERROR, refused.GetStatus().GetCode(), "a refusal is no error of the server")
	lines := documented(t, g.log.String())
	assert.Equal(t, hex.EncodeToString(server.GetTraceId()), lines[0]["trace_id"])
	assert.Equal(t, hex.EncodeToString(server.GetSpanId()), lines[0]["span_id"])
	assert.NotContains(t, c.raw.String(), "secret-query")
}

func TestTrustedProxySaysWhatARequestIsPartOf(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	upstream, got := answering(t, func(http.ResponseWriter, *http.Request) {})
	g := newGatewayWith(t, "  - {match: /, upstream: "+upstream+", public: true}\ntracing: {otlp_endpoint: "+c.url+"}", "stdout")
	text, err := os.ReadFile(g.path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(g.path, bytes.Replace(text, []byte("listen: {"), []byte("listen: {trusted_proxies: [127.0.0.0/8], "), 1), 0o600))
	g.serve(t)
	r, err := http.NewRequest("ODD", g.url+"/", nil)
	require.NoError(t, err)
	r.Header.Set("Traceparent", foreignTrace)
	require.Equal(t, http.StatusMethodNotAllowed, answerTo(t, r))
	r.Method = "GET"
	r.Header.Set("Tracestate", "vendor=known")
	require.Equal(t, http.StatusOK, answerTo(t, r))
	g.ended(t)
	assert.Len(t, c.named("HTTP"), 1, "a method that HTTP does not know makes no name")
	servers := c.named("GET /")
	require.Len(t, servers, 1)
	assert.Equal(t, "0af7651916cd43dd8448eb211c80319c", hex.EncodeToString(servers[0].GetTraceId()))
	assert.Equal(t, "b7ad6b7169203331", hex.EncodeToString(servers[0].GetParentSpanId()))
	assert.Empty(t, servers[0].GetLinks())
	assert.Equal(t, []string{"vendor=known"}, (*got)[0].header["Tracestate"])
	assert.Contains(t, (*got)[0].header.Get("Traceparent"), "0af7651916cd43dd8448eb211c80319c")
}

func TestEachTryAtAnUpstreamIsASpan(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	upstream, got := answering(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	g := startGateway(t, "  - {match: /, upstream: api, public: true}", fmt.Sprintf(
		"upstreams: {api: {targets: [%q, %q], balance: round_robin}}\ntracing: {otlp_endpoint: %q}", "http://"+freeAddresses(t, 1)[0], upstream, c.url))
	for len(*got) < 2 {
		require.Equal(t, http.StatusTeapot, answerTo(t, httptestRequest(t, g.url)))
	}
	g.ended(t)
	failed, answered := 0, 0
	for _, s := range c.named("GET") {
		attrs := attributesOf(s)
		assert.Equal(t, otlp.Status_STATUS_CODE_ERROR, s.GetStatus().GetCode())
		if attrs["http.response.status_code"] == "418" {
			answered++
			assert.Equal(t, "418", attrs["error.type"])
			continue
		}
		failed++
		assert.Equal(t, "_OTHER", attrs["error.type"])
	}
	assert.Equal(t, 2, answered)
	assert.GreaterOrEqual(t, failed, 1)
	first, second := (*got)[0].header.Get("Traceparent"), (*got)[1].header.Get("Traceparent")
	assert.NotEqual(t, first, second)
}

// httptestRequest is a plain GET.
func httptestRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url+"/", nil)
	require.NoError(t, err)
	return r
}

func TestCollectorThatIsAwayStopsNothing(t *testing.T) {
	t.Parallel()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(refusing.Close)
	upstream, _ := answering(t, func(http.ResponseWriter, *http.Request) {})
	g := startGateway(t, "  - {match: /, upstream: "+upstream+", public: true}", "tracing: {otlp_endpoint: "+refusing.URL+"/v1/traces}")
	require.Equal(t, http.StatusOK, answerTo(t, httptestRequest(t, g.url)))
	g.ended(t)
	assert.Equal(t, 1, strings.Count(g.log.String(), `"msg":"traces cannot be sent"`), g.log.String())
}

func TestTracingIsWantedWhereThereIsAnEndpoint(t *testing.T) {
	const endpoint = "http://127.0.0.1:4318"
	for name, c := range map[string]struct {
		config string
		vars   map[string]string
		want   bool
		err    string
	}{
		"nothing":                 {"", nil, false, ""},
		"the config":              {endpoint, nil, true, ""},
		"the variable":            {"", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, true, ""},
		"the variable for traces": {"", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint}, true, ""},
		"disabled":                {endpoint, map[string]string{"OTEL_SDK_DISABLED": "True"}, false, ""},
		"no exporter":             {endpoint, map[string]string{"OTEL_TRACES_EXPORTER": "none"}, false, ""},
		"another exporter":        {endpoint, map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, false, "want otlp or none"},
		"grpc":                    {endpoint, map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, false, "want http/protobuf"},
		"grpc, but not for traces": {
			endpoint, map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, true, "",
		},
		"grpc, and no endpoint": {"", map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			on, err := tracingWanted(config.Tracing{OTLPEndpoint: c.config}, shell{vars: c.vars}.env(nil, nil, nil))
			assert.Equal(t, c.want, on)
			if c.err == "" {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, c.err)
			}
		})
	}
	assert.Equal(t, endpoint+"/v1/traces", tracesURL(endpoint))
	assert.Equal(t, endpoint+"/v1/traces", tracesURL(endpoint+"/"))
	assert.Equal(t, endpoint+"/tenant/spans", tracesURL(endpoint+"/tenant/spans"))
}

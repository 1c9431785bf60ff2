package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTargetsAreShownAndADownOneDoesNotMakeTheGatewayUnready(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(api.Close)
	dead := "http://" + freeAddresses(t, 1)[0]
	g := startGateway(t, "  - {match: GET /orders/, upstream: orders, public: true}\n",
		fmt.Sprintf("upstreams: {orders: {targets: [%q, %q], health: {interval: 5ms, unhealthy_after: 1}}}", api.URL, dead))
	read := func(path string) (status int, body string) {
		res, err := http.Get(g.admin + path)
		require.NoError(t, err)
		defer res.Body.Close()
		all, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(all)
	}
	require.Eventually(t, func() bool {
		_, body := read("/readyz?verbose")
		return strings.Contains(body, "\nupstream orders "+dead+" down\n")
	}, 10*time.Second, 5*time.Millisecond)
	status, body := read("/readyz?verbose")
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, body, "\nupstream orders "+api.URL+" ok\n")
	_, body = read("/metrics")
	assert.Contains(t, body, fmt.Sprintf("dpopgate_upstream_target_up{target=%q,upstream=\"orders\"} 1\n", api.URL))
	assert.Contains(t, body, fmt.Sprintf("dpopgate_upstream_target_up{target=%q,upstream=\"orders\"} 0\n", dead))
	assert.Contains(t, body, fmt.Sprintf("dpopgate_upstream_target_requests{target=%q,upstream=\"orders\"} 0\n", dead))
	assert.Contains(t, g.log.String(), `"msg":"upstream target is unhealthy"`)
	for range 10 {
		res, err := http.Get(g.url + "/orders/1")
		require.NoError(t, err)
		res.Body.Close()
		assert.Equal(t, http.StatusOK, res.StatusCode)
	}
}

func TestUpstreamThatSaysMoreThanAskedMakesOneLine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	more := make(chan bool)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.Read(make([]byte, 4096))
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		<-more
		io.WriteString(conn, "one\n{\"level\":\"ERROR\"}\n")
		<-more
	}()
	t.Cleanup(func() { close(more) })
	g := startGateway(t, fmt.Sprintf("  - {match: GET /orders/, upstream: %q, public: true}\n", "http://"+l.Addr().String()), "")
	res, err := http.Get(g.url + "/orders/1")
	require.NoError(t, err)
	res.Body.Close()
	more <- true
	g.awaitLog(t, `"library said"`)
	for line := range strings.Lines(g.log.String()) {
		assert.Regexp(t, `^{"time":.*}\n$`, line)
	}
	assert.Contains(t, g.log.String(), `"target":"http://`+l.Addr().String()+`"`)
}

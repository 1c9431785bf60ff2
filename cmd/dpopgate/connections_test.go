package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// attack: 139
func TestMoreConnectionsThanTheLimitWait(t *testing.T) {
	g := startGateway(t, `  - {match: /orders/, upstream: "http://127.0.0.1:9"}`, "limits: {max_connections: 2, idle_timeout: 1m}")
	request := "GET /orders/ HTTP/1.1\r\nHost: " + strings.TrimPrefix(g.url, "http://") + "\r\n\r\n"
	asks := func(conn net.Conn) {
		_, err := io.WriteString(conn, request)
		require.NoError(t, err)
	}
	hears := func(conn net.Conn) {
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		assert.Equal(t, http.StatusUnauthorized, res.StatusCode)
	}
	first, second := dialGateway(t, g), dialGateway(t, g)
	for _, conn := range []net.Conn{first, second} {
		asks(conn)
		hears(conn)
	}
	third := dialGateway(t, g)
	asks(third)
	require.NoError(t, third.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	_, err := third.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "not looked at while there are two")
	res, err := http.Get(g.admin + "/healthz")
	require.NoError(t, err)
	res.Body.Close()
	assert.Equal(t, http.StatusOK, res.StatusCode, "the admin listener has room of its own")
	first.Close()
	require.NoError(t, third.SetReadDeadline(time.Now().Add(time.Minute)))
	hears(third)
	for range 50 { // and no place is lost on the way
		conn := dialGateway(t, g)
		second.Close()
		asks(conn)
		hears(conn)
		second = conn
	}
}

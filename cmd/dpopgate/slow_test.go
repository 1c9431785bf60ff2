package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// dialGateway is a connection to a gateway; what it waits for longer than a minute fails.
func dialGateway(t *testing.T, g *gateway) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return conn
}

// conformance: NET-11
func TestSlowClientsAreLetGo(t *testing.T) {
	const path = "/orders/"
	g := startGateway(t, `  - {match: /orders/, upstream: "http://127.0.0.1:9"}`, "limits: {header_timeout: 100ms, idle_timeout: 100ms}")
	host := strings.TrimPrefix(g.url, "http://")
	for name, start := range map[string]string{
		"nothing":               "",
		"half a line":           "GET " + path,
		"half a header":         "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: DPoP a",
		"all but the last line": "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn := dialGateway(t, g)
			_, err := io.WriteString(conn, start)
			require.NoError(t, err)
			said, err := io.ReadAll(conn)
			require.NoError(t, err, "the gateway ends the connection")
			assert.NotContains(t, string(said), " 200 ")
		})
	}
	t.Run("idle", func(t *testing.T) {
		conn := dialGateway(t, g)
		_, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		require.NoError(t, err)
		said, err := io.ReadAll(conn)
		require.NoError(t, err, "the gateway ends the connection")
		assert.Contains(t, string(said), " 401 ")
	})
	t.Run("a body that never comes", func(t *testing.T) {
		conn := dialGateway(t, g)
		_, err := io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: "+host+"\r\nContent-Length: 1000\r\n\r\nx")
		require.NoError(t, err)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		assert.Equal(t, http.StatusUnauthorized, res.StatusCode, "without waiting for all of the body")
	})
}

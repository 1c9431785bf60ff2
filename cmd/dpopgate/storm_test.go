package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stormVariable says how many connections a storm has. Both ends of each are in this process, so it takes twice as many
// file descriptors.
const stormVariable = "DPOPGATE_TEST_CONNECTIONS"

// Connections that stall in their header, or before it, keep nobody else out, take little memory, and are all let go.
//
// attack: 139
func TestStormOfStalledConnectionsIsLetGo(t *testing.T) {
	storm := 500
	if text := os.Getenv(stormVariable); text != "" {
		var err error
		storm, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	g := startGateway(t, `  - {match: /orders/, upstream: "http://127.0.0.1:9"}`, "limits: {header_timeout: 5s, idle_timeout: 5s}")
	host := strings.TrimPrefix(g.url, "http://")
	inUse := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := inUse()
	var conns []net.Conn
	for i := range storm {
		conn, err := net.Dial("tcp", host)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		conns = append(conns, conn)
		if i%2 == 0 {
			_, err = io.WriteString(conn, "GET /orders/ HTTP/1.1\r\nHost: "+host+"\r\nX-A: "+strings.Repeat("x", 1000))
			require.NoError(t, err)
		}
	}
	assert.Equal(t, http.StatusUnauthorized, fetch(t, g.url+"/orders/").StatusCode, "others are served meanwhile")
	after := inUse()
	t.Logf("%d KiB for each of %d connections, both ends", (max(after, before)-before)/uint64(storm)>>10, storm)
	assert.Less(t, after, before+uint64(storm)<<15+16<<20)
	for _, conn := range conns {
		require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		said, err := io.ReadAll(conn)
		if err != nil {
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the gateway ends the connection")
		}
		assert.NotContains(t, string(said), " 200 ")
	}
	assert.Equal(t, http.StatusUnauthorized, fetch(t, g.url+"/orders/").StatusCode)
}

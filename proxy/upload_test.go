package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// attack: 159
func TestUpstreamThatTakesNoBodyIsGivenUpInTime(t *testing.T) {
	full, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { full.Close() })
	go func() {
		for {
			conn, err := full.Accept()
			if err != nil {
				return
			}
			defer conn.Close() // it never reads
		}
	}()
	for _, settings := range []string{"", ", h2c: true"} {
		g := newPool(t, "response_timeout: 100ms"+settings, "http://"+full.Addr().String())
		for _, framing := range []string{"Content-Length: 67108864\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n4000000\r\n"} {
			conn, err := net.Dial("tcp", g.server.Listener.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			go func() {
				io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: api.example.test\r\n"+framing)
				conn.Write(make([]byte, 64<<20)) // until the gateway has had enough
			}()
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			assert.Equal(t, http.StatusGatewayTimeout, res.StatusCode)
			assert.Equal(t, proxy.UpstreamLate, g.eventOf(res).Reason)
			assert.Equal(t, []bool{true}, g.up(), "late is not broken")
		}
	}
}

func TestSlowClientIsNotAnUpstreamThatIsLate(t *testing.T) {
	for _, settings := range []string{"", ", h2c: true"} {
		l := &legacy{t: t, address: "127.0.0.1:0", h2c: settings != "", seen: map[string]int{}}
		l.handler = func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }
		l.start()
		t.Cleanup(l.kill)
		g := newPool(t, "response_timeout: 100ms"+settings, l.url())
		body, write := io.Pipe()
		r := g.request("POST", "/x", "", "")
		r.Body, r.ContentLength = body, -1
		go func() {
			for range 4 {
				write.Write(make([]byte, 50_000))
				<-time.After(150 * time.Millisecond) // the client's time, which is its own
			}
			write.Close()
		}()
		res, err := http.DefaultTransport.RoundTrip(r)
		require.NoError(t, err)
		got, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, res.StatusCode)
		assert.Len(t, got, 200_000)
	}
}

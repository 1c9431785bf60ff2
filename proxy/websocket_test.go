package proxy_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// streaming is a config with routes for what lasts longer than a request.
const streaming = `
public_urls: [https://api.example.test]
listen: {http: "127.0.0.1:0"}
store: {sqlite: unused.db}
dpop: {nonce: "off"}
routes:
  - {match: /v1/, upstream: "${UPSTREAM}"}
  - {match: /ws/, upstream: "${UPSTREAM}", websocket: true, scopes: [items:read]}
  - {match: /public/, upstream: "${UPSTREAM}", public: true}
`

// newStreaming is a rig with those routes.
func newStreaming(t *testing.T) (*rig, *dpop.Key) {
	g := newRigFrom(t, "streaming", []byte(streaming))
	key := vectorKeys(t)["K1"]
	g.rows.put("T1", bound(key.Thumbprint(), "items:read"))
	return g, key
}

// The opcodes of RFC 6455 §5.2 that the tests use.
const (
	opText  = 1
	opClose = 8
)

// frame is one frame of a WebSocket (RFC 6455 §5.2), masked as a client's is to be.
func frame(op byte, payload string, masked bool) []byte {
	b := []byte{0x80 | op}
	mask := byte(0)
	if masked {
		mask = 0x80
	}
	switch n := len(payload); {
	case n < 126:
		b = append(b, mask|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	if !masked {
		return append(b, payload...)
	}
	key := [4]byte{1, 2, 3, 4}
	b = append(b, key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

// readFrame reads one frame. Its payload comes unmasked.
func readFrame(r io.Reader) (op byte, payload string, err error) {
	var head [2]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		return 0, "", err
	}
	n := uint64(head[1] & 0x7f)
	var more [8]byte
	switch n {
	case 126:
		_, err = io.ReadFull(r, more[:2])
		n = uint64(binary.BigEndian.Uint16(more[:2]))
	case 127:
		_, err = io.ReadFull(r, more[:])
		n = binary.BigEndian.Uint64(more[:])
	}
	var key [4]byte
	if err == nil && head[1]&0x80 != 0 {
		_, err = io.ReadFull(r, key[:])
	}
	if err != nil {
		return 0, "", err
	}
	data := make([]byte, n)
	_, err = io.ReadFull(r, data)
	for i := range data {
		data[i] ^= key[i%4]
	}
	return head[0] & 0x0f, string(data), err
}

// acceptKey is Sec-WebSocket-Accept (RFC 6455 §4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// echo is the upstream's end of a WebSocket: it sends each message back, and a Close too. ended is closed when the
// connection is over.
func echo(t *testing.T, ended *sync.WaitGroup) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ended.Add(1)
		defer ended.Done()
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade, X-Hop\r\nX-Hop: 1\r\n"+
			"X-Auth-Subject: admin\r\nSec-WebSocket-Accept: %s\r\n\r\n", acceptKey(r.Header.Get("Sec-WebSocket-Key")))
		for {
			op, payload, err := readFrame(buffered)
			if err != nil {
				return
			}
			conn.Write(frame(op, payload, false))
			if op == opClose {
				return
			}
		}
	}
}

// handshake is the text of one (RFC 6455 §4.1).
func handshake(r *http.Request, more ...string) string {
	return text(r, append([]string{
		"Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}, more...)...)
}

// open opens a WebSocket, whose first message is sent with the handshake.
func (g *rig) open(key *dpop.Key, first string) (net.Conn, *bufio.Reader) {
	conn, from := g.dial()
	write(g.t, conn, handshake(g.signed(key, dpop.Claims{URL: apiURL + "/ws/x"}))+string(frame(opText, first, true)))
	res, err := http.ReadResponse(from, nil)
	require.NoError(g.t, err)
	require.Equal(g.t, http.StatusSwitchingProtocols, res.StatusCode)
	assert.Equal(g.t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", res.Header.Get("Sec-WebSocket-Accept"))
	assert.Equal(g.t, []string{"websocket"}, res.Header["Upgrade"])
	assert.Equal(g.t, []string{"Upgrade"}, res.Header["Connection"])
	assert.NotEmpty(g.t, res.Header.Get("X-Request-Id"))
	assert.Empty(g.t, res.Header["X-Hop"], "a field for one hop")
	assert.Empty(g.t, res.Header["X-Auth-Subject"], "an identity field")
	g.hears(from, first)
	return conn, from
}

// hears requires that the next message is this one.
func (g *rig) hears(from io.Reader, message string) {
	g.t.Helper()
	op, payload, err := readFrame(from)
	require.NoError(g.t, err)
	assert.EqualValues(g.t, opText, op)
	assert.Equal(g.t, message, payload)
}

// attack: 155
func TestWebSocketCarriesMessagesFromTheFirstOn(t *testing.T) {
	g, key := newStreaming(t)
	var ended sync.WaitGroup
	g.reply = echo(t, &ended)
	conn, from := g.open(key, "sent with the handshake")
	up := g.last()
	assert.Equal(t, "websocket", up.Header.Get("Upgrade"))
	assert.Equal(t, "Upgrade", up.Header.Get("Connection"))
	assert.Equal(t, aUser.String(), up.Header.Get("X-Auth-Subject"))
	assert.Empty(t, up.Header["Authorization"])
	for _, message := range []string{"", "short", strings.Repeat("m", 300), strings.Repeat("long", 50_000)} {
		write(t, conn, string(frame(opText, message, true)))
		g.hears(from, message)
	}
	write(t, conn, string(frame(opClose, "\x03\xe8", true)))
	op, payload, err := readFrame(from)
	require.NoError(t, err)
	assert.EqualValues(t, opClose, op)
	assert.Equal(t, "\x03\xe8", payload)
	_, err = from.ReadByte()
	assert.ErrorIs(t, err, io.EOF)
	ended.Wait()
	e := g.awaitEvent()
	assert.Equal(t, http.StatusSwitchingProtocols, e.Status)
	assert.Equal(t, proxy.Passed, e.Verdict)
	assert.Greater(t, e.Written, int64(200_000))
}

// awaitEvent waits for the first event.
func (g *rig) awaitEvent() proxy.Event {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.events) == 0 {
		g.heard.Wait()
	}
	return g.events[0]
}

// attack: 151
func TestWebSocketHandshakeIsAuthorized(t *testing.T) {
	g, key := newStreaming(t)
	g.rows.put("T2", bound(key.Thumbprint(), "other"))
	for name, c := range map[string]struct {
		request *http.Request
		status  int
	}{
		"no proof": {func() *http.Request {
			r := g.signed(key, dpop.Claims{URL: apiURL + "/ws/x"})
			r.Header.Del("DPoP")
			return r
		}(), 401},
		"no credentials": {func() *http.Request {
			r := g.signed(key, dpop.Claims{URL: apiURL + "/ws/x"})
			r.Header = http.Header{}
			return r
		}(), 401},
		"a proof for another path": {func() *http.Request {
			r := g.signed(key, dpop.Claims{URL: apiURL + "/ws/y"})
			r.URL.Path = "/ws/x"
			return r
		}(), 401},
		"a token without scope": {g.signed(key, dpop.Claims{URL: apiURL + "/ws/x", Token: "T2"}), 403},
	} {
		t.Run(name, func(t *testing.T) {
			res := g.raw("GET", handshake(c.request, "X-Sent-Over: a socket of its own"))
			assert.Equal(t, c.status, res.StatusCode)
			assert.Zero(t, g.count(), "what the upstream saw")
		})
	}
}

// attack: 149, 150, 154
func TestNothingIsUpgradedUnlessTheRouteSaysSo(t *testing.T) {
	g, key := newStreaming(t)
	g.reply = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Upgrade", "websocket")
		io.WriteString(w, "plain\n")
	}
	for name, c := range map[string]struct {
		path  string
		lines []string
		keeps bool
	}{
		"a WebSocket on a plain route":      {"/v1/x", []string{"Connection: Upgrade", "Upgrade: websocket"}, false},
		"h2c on a plain route":              {"/v1/x", []string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"}, false},
		"h2c on a WebSocket route":          {"/ws/x", []string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"}, false},
		"h2c beside it":                     {"/ws/x", []string{"Connection: Upgrade", "Upgrade: websocket, h2c"}, false},
		"h2c on a line beside it":           {"/ws/x", []string{"Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"}, false},
		"TLS":                               {"/ws/x", []string{"Connection: Upgrade", "Upgrade: TLS/1.2"}, false},
		"a WebSocket that is not connected": {"/ws/x", []string{"Connection: keep-alive", "Upgrade: websocket"}, false},
		"a handshake that is answered 200":  {"/ws/x", []string{"Connection: Upgrade", "Upgrade: websocket"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			conn, from := g.dial()
			write(t, conn, text(g.signed(key, dpop.Claims{URL: apiURL + c.path}), c.lines...))
			res, body := answer(t, from)
			assert.Equal(t, http.StatusOK, res.StatusCode)
			assert.Equal(t, "plain\n", body)
			assert.Empty(t, res.Header["Upgrade"])
			assert.Equal(t, c.keeps, g.last().Header["Upgrade"] != nil)
			assert.Empty(t, g.last().Header["Http2-Settings"])
			write(t, conn, "GET /v1/x HTTP/1.1\r\nHost: api.example.test\r\n\r\n")
			res, _ = answer(t, from)
			assert.Equal(t, http.StatusUnauthorized, res.StatusCode, "still HTTP, and checked")
		})
	}
	t.Run("a handshake with a body", func(t *testing.T) {
		res := g.raw("GET", text(g.signed(key, dpop.Claims{URL: apiURL + "/ws/x"}), "Connection: Upgrade, close", "Upgrade: websocket", "Content-Length: 5")+"hello")
		assert.Equal(t, http.StatusOK, res.StatusCode)
		assert.Empty(t, g.last().Header["Upgrade"])
		assert.Equal(t, "hello", g.bodies[len(g.bodies)-1])
	})
}

// raw101 is an upstream that answers everything with this 101 and keeps the connection.
func raw101(t *testing.T, answer string) (url string, open func() int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	var mu sync.Mutex
	n := 0
	count := func(by int) { mu.Lock(); defer mu.Unlock(); n += by }
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			count(1)
			go func() {
				defer count(-1)
				defer conn.Close()
				from := bufio.NewReader(conn)
				for {
					if _, err := http.ReadRequest(from); err != nil {
						return
					}
					io.WriteString(conn, answer)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String(), func() int { mu.Lock(); defer mu.Unlock(); return n }
}

// attack: 152, 153
func TestWrong101Is502AndLeaksNothing(t *testing.T) {
	for name, c := range map[string]struct{ path, answer string }{
		"another protocol":     {"/ws/x", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n"},
		"two protocols":        {"/ws/x", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: other\r\n\r\n"},
		"no protocol":          {"/ws/x", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n"},
		"no Connection":        {"/ws/x", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"},
		"unprintable":          {"/ws/x", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: \xffx\r\n\r\n"},
		"nobody asked":         {"/v1/x", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		"nobody asked for h2c": {"/v1/x", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			up, open := raw101(t, c.answer)
			g := newRigFrom(t, "streaming", []byte(strings.ReplaceAll(streaming, "${UPSTREAM}", up)))
			key := vectorKeys(t)["K1"]
			g.rows.put("T1", bound(key.Thumbprint(), "items:read"))
			before := 0
			for i := range 50 {
				r := g.signed(key, dpop.Claims{URL: apiURL + c.path})
				res := g.raw("GET", handshake(r, "X-Request: one of many"))
				require.Equal(t, http.StatusBadGateway, res.StatusCode)
				require.Equal(t, "application/json", res.Header.Get("Content-Type"))
				if i == 0 {
					before = runtime.NumGoroutine()
				}
			}
			assert.Equal(t, proxy.UpstreamBroke, g.event().Reason)
			assert.Eventually(t, func() bool { return open() == 0 }, 10*time.Second, time.Millisecond, "connections to the upstream")
			assert.Eventually(t, func() bool { return runtime.NumGoroutine() < before+25 }, 10*time.Second, 10*time.Millisecond, "goroutines")
		})
	}
}

func TestWebSocketReachesAnUpstreamThatPrefersHTTP2(t *testing.T) {
	var ended sync.WaitGroup
	up := httptest.NewUnstartedServer(echo(t, &ended))
	up.EnableHTTP2 = true
	up.StartTLS()
	t.Cleanup(up.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	pemBytes := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: up.Certificate().Raw})
	require.NoError(t, os.WriteFile(ca, pemBytes, 0o600))
	g := newRigFrom(t, "streaming", []byte(strings.ReplaceAll(streaming, `"${UPSTREAM}"`, "up")+
		fmt.Sprintf("upstreams:\n  up: {targets: [%q], tls: {ca_file: %q}}\n", up.URL, ca)))
	key := vectorKeys(t)["K1"]
	g.rows.put("T1", bound(key.Thumbprint(), "items:read"))
	conn, _ := g.open(key, "over HTTP/1.1")
	conn.Close()
	ended.Wait()
}

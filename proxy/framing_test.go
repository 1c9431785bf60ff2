package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// dial is a connection to the gateway, and a reader of it.
func (g *rig) dial() (net.Conn, *bufio.Reader) {
	conn, err := net.Dial("tcp", g.server.Listener.Addr().String())
	require.NoError(g.t, err)
	g.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn, bufio.NewReader(conn)
}

// write puts text on a connection.
func write(t *testing.T, conn net.Conn, text string) {
	_, err := io.WriteString(conn, text)
	require.NoError(t, err)
}

// answer reads one response, and its body.
func answer(t *testing.T, from *bufio.Reader) (*http.Response, string) {
	res, err := http.ReadResponse(from, nil)
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(body)
}

var anyX = dpop.Claims{Method: "POST", URL: apiURL + "/v1/any/x"}

// conformance: POL-11
func TestAmbiguousFramingIsRefused(t *testing.T) {
	g, key := newAPI(t, "base")
	for _, framing := range [][]string{
		{"Transfer-Encoding: chunked, identity"},
		{"Transfer-Encoding: identity, chunked"},
		{"Transfer-Encoding: identity"},
		{"Transfer-Encoding: chunked", "Transfer-Encoding: chunked"},
		{"Transfer-Encoding: chunked", "Transfer-Encoding: identity"},
		{"Transfer-Encoding: xchunked"},
		{"Transfer-Encoding: gzip, chunked"},
		{"Transfer-Encoding: chunked\x0b"},
		{"Transfer-Encoding : chunked"},
		{"Content-Length: 5", "Content-Length: 6"},
		{"Content-Length: 5, 6"},
		{"Content-Length: 5", "Content-Length: 0"},
		{"Content-Length: +5"},
		{"Content-Length: -5"},
		{"Content-Length: 0x5"},
		{"Content-Length: 5 5"},
		{"Content-Length: 5.0"},
		{"Content-Length: 99999999999999999999"},
		{"Content-Length : 5"},
	} {
		t.Run(strings.Join(framing, " and "), func(t *testing.T) {
			res := g.raw("POST", text(g.signed(key, anyX), append(framing, "Connection: close")...)+"5\r\nhello\r\n0\r\n\r\n")
			assert.Contains(t, []int{http.StatusBadRequest, http.StatusNotImplemented}, res.StatusCode)
			assert.Zero(t, g.count(), "what the upstream saw")
		})
	}
}

// Of both lengths the chunked one counts (RFC 9112 §6.3), and to the upstream goes one, of the gateway's own making:
// what follows is a request to be checked by itself.
//
// conformance: POL-11
func TestNothingHidesBehindALengthThatDoesNotCount(t *testing.T) {
	for _, hidden := range []string{
		"GET /admin/x HTTP/1.1\r\nHost: api.example.test\r\n\r\n",
		"GET /v1/items HTTP/1.1\r\nHost: api.example.test\r\nX-Auth-Subject: admin\r\n\r\n",
	} {
		g, key := newAPI(t, "base")
		conn, from := g.dial()
		write(t, conn, text(g.signed(key, anyX), "Transfer-Encoding: chunked", "Content-Length: 300")+"5\r\nhello\r\n0\r\n\r\n"+hidden)
		res, _ := answer(t, from)
		require.Equal(t, http.StatusOK, res.StatusCode)
		if res, err := http.ReadResponse(from, nil); err == nil { // the connection may also have ended
			assert.Equal(t, http.StatusUnauthorized, res.StatusCode)
		}
		require.Equal(t, 1, g.count(), "what the upstream saw")
		assert.Equal(t, "hello", g.bodies[0])
		assert.Empty(t, g.last().Header["Content-Length"])
		assert.Equal(t, []string{"chunked"}, g.last().TransferEncoding)
	}
}

// conformance: POL-15
func TestEachRequestOfAConnectionIsCheckedByItself(t *testing.T) {
	g, key := newAPI(t, "base")
	good := text(g.signed(key, dpop.Claims{}))
	bare := "GET /v1/items HTTP/1.1\r\nHost: api.example.test\r\n\r\n"
	conn, from := g.dial()
	write(t, conn, good+bare+good+text(g.signed(key, dpop.Claims{}))+bare)
	var statuses []int
	for range 5 {
		res, _ := answer(t, from)
		statuses = append(statuses, res.StatusCode)
	}
	assert.Equal(t, []int{200, 401, 401, 200, 401}, statuses)
	assert.Equal(t, 2, g.count(), "what the upstream saw")
	assert.Equal(t, dpop.ProofReplayed, g.events[2].Reason)
	assert.Equal(t, dpop.CredentialsMissing, g.events[4].Reason)
}

// conformance: NET-10
func TestBodyIsNotAskedForBeforeTheDecision(t *testing.T) {
	g, key := newAPI(t, "base")
	refused := g.signed(key, anyX)
	refused.Header.Set("Authorization", "DPoP T9")
	conn, from := g.dial()
	write(t, conn, text(refused, "Expect: 100-continue", "Content-Length: 1000000000"))
	res, _ := answer(t, from)
	assert.Equal(t, http.StatusUnauthorized, res.StatusCode, "and no 100 before")
	assert.Zero(t, g.count(), "what the upstream saw")
	_, err := from.ReadByte()
	assert.ErrorIs(t, err, io.EOF, "the connection ends, as nobody wants that body")

	conn, from = g.dial()
	write(t, conn, text(g.signed(key, anyX), "Expect: 100-continue", "Content-Length: 5"))
	res, err = http.ReadResponse(from, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusContinue, res.StatusCode)
	write(t, conn, "hello")
	res, _ = answer(t, from)
	assert.Equal(t, http.StatusOK, res.StatusCode)
	assert.Equal(t, []string{"hello"}, g.bodies)
}

// conformance: UPS-13
func TestRequestTrailersEndAtTheGateway(t *testing.T) {
	g, key := newAPI(t, "base")
	res := g.raw("POST", text(g.signed(key, anyX), "Trailer: X-Auth-Subject, X-Checksum", "Transfer-Encoding: chunked", "Connection: close")+
		"5\r\nhello\r\n0\r\nX-Auth-Subject: admin\r\nX_Auth_Scope: admin\r\nX-Checksum: 1\r\nAuthorization: Bearer x\r\n\r\n")
	require.Equal(t, http.StatusOK, res.StatusCode)
	up := g.last()
	assert.Equal(t, "hello", g.bodies[0])
	assert.Empty(t, up.Trailer)
	assert.Empty(t, up.Header["Trailer"])
	assert.Empty(t, up.Header["X-Checksum"])
	assert.Equal(t, []string{aUser.String()}, up.Header["X-Auth-Subject"])
	assert.Equal(t, []string{"items:read"}, up.Header["X-Auth-Scope"])
	assert.Empty(t, up.Header["Authorization"])
}

func TestBrokenBodyIsTheClientsDoing(t *testing.T) {
	g, key := newAPI(t, "base")
	res := g.raw("POST", text(g.signed(key, anyX), "Transfer-Encoding: chunked", "Connection: close")+"zz\r\nhello\r\n0\r\n\r\n")
	assert.Equal(t, http.StatusBadRequest, res.StatusCode)
	assert.Equal(t, proxy.RequestBodyFailed, g.event().Reason)
}

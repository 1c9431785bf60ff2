package proxy_test

import (
	"bufio"
	"crypto/tls"
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

// dialOver is a connection that speaks HTTP/1.1, be it over TLS.
func (g *rig) dialOver(secure bool) (net.Conn, *bufio.Reader) {
	if !secure {
		return g.dial()
	}
	conn, err := tls.Dial("tcp", g.secure().Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	require.NoError(g.t, err)
	g.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn, bufio.NewReader(conn)
}

// write puts text on a connection.
func write(t testing.TB, conn net.Conn, text string) {
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

// Of both lengths the chunked one counts (RFC 9112 §6.3), and to the upstream goes one, of the gateway's own making.
// Who counts by the other one takes what follows for something else, so nothing of it is read (§6.1), be it a request
// with good credentials. HTTP/1.0 knows no chunks, and net/http does not tell of those that it did not look at.
//
// conformance: POL-11
func TestNothingIsReadAfterARequestThatMayHaveTwoLengths(t *testing.T) {
	for name, secure := range map[string]bool{"cleartext": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			for _, s := range []struct {
				protocol, body, heard string
				framing               []string
			}{
				{"HTTP/1.1", hi, "hi", []string{chunked, "Content-Length: 300"}},
				{"HTTP/1.1", hi, "hi", []string{"Content-Length: 300", chunked}},
				{"HTTP/1.1", hi, "hi", []string{chunked, "Content-Length: 0"}},
				{"HTTP/1.1", "0\r\n\r\n", "", []string{"Content-Length: 5", chunked}},
				{"HTTP/1.1", hi, "hi", []string{"Connection: keep-alive", "Content-Length: 300", chunked}},
				{"HTTP/1.1", hi, "hi", []string{chunked}},
				{"HTTP/1.0", "0\r\n\r\n", "0\r\n\r\n", []string{"Connection: keep-alive", chunked, "Content-Length: 5"}},
				{"HTTP/1.0", hi, "", []string{"Connection: keep-alive", chunked}},
			} {
				t.Run(s.protocol+" "+strings.Join(s.framing, " and "), func(t *testing.T) {
					g, key := newAPI(t, "base")
					for _, refused := range []bool{false, true} {
						before := g.count()
						r := g.signed(key, anyX)
						if refused {
							r.Header.Set("Authorization", "DPoP T9")
						}
						conn, from := g.dialOver(secure)
						write(t, conn, strings.Replace(text(r, s.framing...), "HTTP/1.1", s.protocol, 1)+s.body+text(g.signed(key, dpop.Claims{})))
						res, _ := answer(t, from)
						assert.True(t, res.Close, "the client is told")
						_, err := from.ReadByte()
						assert.Error(t, err, "and there is no second answer")
						if refused {
							assert.Equal(t, http.StatusUnauthorized, res.StatusCode)
							assert.Equal(t, before, g.count(), "what the upstream saw")
							continue
						}
						assert.Equal(t, http.StatusOK, res.StatusCode)
						require.Equal(t, before+1, g.count(), "what the upstream saw")
						assert.Equal(t, s.heard, g.bodies[before])
						assert.Empty(t, g.last().Header["Connection"])
						if s.protocol == "HTTP/1.1" {
							assert.Empty(t, g.last().Header["Content-Length"])
							assert.Equal(t, []string{"chunked"}, g.last().TransferEncoding)
						}
					}
				})
			}
		})
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

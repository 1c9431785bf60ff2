package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// claimed is what a client says that it is.
const claimed = "claimed-by-the-client"

// rawPublic is a request for a public route, with further header lines.
func rawPublic(more ...string) string {
	return strings.Join(append([]string{"GET /public/x HTTP/1.1", "Host: api.example.test", "Connection: close"}, more...), "\r\n") + "\r\n\r\n"
}

// Whatever a name may hold beside letters and digits (RFC 9110 §5.6.2) is a hyphen to one server or another.
//
// attack: 3
func TestNoCharacterOfANameStandsForAHyphen(t *testing.T) {
	g, key := newAPI(t, "device")
	open := newRig(t, "base")
	const tchars = "!#$%&'*+.^_`|~-"
	names := append(config.PresetHeaders(), "X-Forwarded-For", "X-Real-IP", "X-HTTP-Method-Override", "X-Original-URL")
	for _, c := range tchars {
		var lines []string
		for _, name := range names {
			alias := strings.ReplaceAll(name, "-", string(c))
			first := strings.Replace(name, "-", string(c), 1)
			lines = append(lines, alias+": "+claimed, strings.ToUpper(alias)+": "+claimed, strings.ToLower(first)+": "+claimed)
		}
		lines = append(lines, "X-Nobodys"+string(c)+"Own: kept")
		for _, sent := range []struct {
			g    *rig
			text string
		}{
			{g, text(g.signed(key, dpop.Claims{}), append(lines, "X"+string(c)+"Auth"+string(c)+"Device: "+claimed, "Connection: close")...)},
			{open, rawPublic(lines...)},
		} {
			res := sent.g.raw("GET", sent.text)
			require.Equal(t, http.StatusOK, res.StatusCode, "%q", c)
			for name, values := range sent.g.last().Header {
				assert.NotContains(t, values, claimed, "%q: %s", c, name)
			}
			assert.Contains(t, fmt.Sprint(sent.g.last().Header), "[kept]", "%q: what is nobody's passes", c)
		}
	}
}

// attack: 4
func TestIdentityIsSaidOnceAndByTheGateway(t *testing.T) {
	g, key := newAPI(t, "base")
	res := g.raw("GET", text(g.signed(key, dpop.Claims{}), "x-auth-subject: admin", "X-AUTH-SUBJECT: admin", "X-Auth-Scope: admin", "x_auth_scope: admin", "Connection: close"))
	require.Equal(t, http.StatusOK, res.StatusCode)
	var said []string
	for name := range g.last().Header {
		if strings.Contains(strings.ToLower(name), "subject") || strings.Contains(strings.ToLower(name), "scope") {
			said = append(said, name)
		}
	}
	assert.ElementsMatch(t, []string{"X-Auth-Subject", "X-Auth-Scope"}, said)
	assert.Equal(t, []string{aUser.String()}, g.last().Header["X-Auth-Subject"])
	assert.Equal(t, []string{"items:read"}, g.last().Header["X-Auth-Scope"])
}

// attack: 6, 7
func TestConnectionTakesNothingOutOfWhatTheGatewayAdds(t *testing.T) {
	g, key := newAPI(t, "keep")
	for _, lines := range [][]string{
		{"Connection: X-Auth-Subject"},
		{"connection: x-auth-subject, close"},
		{"Connection:", "Connection: X-Auth-Subject"},
		{"Connection: close, X-Auth-Subject, X-Auth-Scope, X-Request-Id, X-Forwarded-For, Host, Content-Length"},
		{"Proxy-Connection: X-Auth-Subject", "Connection: X-Auth-Subject"},
		{"Connection: Authorization, DPoP"},
		{"Connection: ,,x-auth-subject ,\tX-Auth-Subject,"},
	} {
		before := g.count()
		conn, from := g.dial()
		write(t, conn, text(g.signed(key, dpop.Claims{}), lines...))
		res, _ := answer(t, from)
		require.Equal(t, http.StatusOK, res.StatusCode, lines)
		require.Equal(t, before+1, g.count())
		h := g.last().Header
		assert.Equal(t, []string{aUser.String()}, h["X-Auth-Subject"], lines)
		assert.Equal(t, []string{"items:read"}, h["X-Auth-Scope"], lines)
		assert.Len(t, h["X-Forwarded-For"], 1, lines)
		assert.Len(t, h["X-Request-Id"], 1, lines)
		assert.Empty(t, h["Connection"], lines)
		assert.Empty(t, h["Proxy-Connection"], lines)
	}
}

// attack: 8
func TestAFoldedLineHidesNothing(t *testing.T) {
	g, key := newAPI(t, "base")
	for _, fold := range []string{
		"X-A: b\r\n X-Auth-Subject: admin",
		"X-A: b\r\n\tX-Auth-Subject: admin",
		"X-A:\r\n X-Auth-Subject: admin",
		"X-A: b\r\n \r\n X-Auth-Subject: admin",
	} {
		before := g.count()
		res := g.raw("GET", text(g.signed(key, dpop.Claims{}), fold, "Connection: close"))
		if res.StatusCode == http.StatusBadRequest {
			assert.Equal(t, before, g.count())
			continue
		}
		require.Equal(t, http.StatusOK, res.StatusCode, "%q", fold)
		assert.Equal(t, []string{aUser.String()}, g.last().Header["X-Auth-Subject"], "%q", fold)
		assert.Contains(t, g.last().Header.Get("X-A"), "X-Auth-Subject: admin", "%q", fold)
	}
	res := g.raw("GET", "GET /public/x HTTP/1.1\r\n Host: api.example.test\r\nConnection: close\r\n\r\n")
	assert.Equal(t, http.StatusBadRequest, res.StatusCode, "a fold of nothing")
}

// attack: 12, 13
func TestNoHeaderMakesAnotherRequestOfIt(t *testing.T) {
	g, key := newAPI(t, "base")
	res := g.raw("POST", text(g.signed(key, anyX), "X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE",
		"X_HTTP_Method_Override: DELETE", "x.method.override: DELETE", "X-Original-Method: DELETE", "X-Forwarded-Method: DELETE",
		"X-Original-URL: /admin/x", "X-Rewrite-URL: /admin/x", "X-Original-URI: /admin/x", "X-Forwarded-Uri: /admin/x", "X-Forwarded-Prefix: /admin",
		"Proxy: http://127.0.0.1:1", "Content-Length: 0", "Connection: close"))
	require.Equal(t, http.StatusOK, res.StatusCode)
	assert.Equal(t, "POST", g.last().Method)
	for name, values := range g.last().Header {
		for _, value := range values {
			assert.NotContains(t, value, "DELETE", name)
			assert.NotContains(t, value, "/admin", name)
			assert.NotContains(t, value, "127.0.0.1:1", name)
		}
	}
}

// attack: 20
func TestAFailureIsPassedOnAndNothingElseIsAsked(t *testing.T) {
	var asked atomic.Int32
	failing := func() string {
		up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, "legacy error")
		}))
		t.Cleanup(up.Close)
		return up.URL
	}
	g := newRigFrom(t, "two", fmt.Appendf(nil, `
public_urls: [https://api.example.test]
listen: {http: "127.0.0.1:0"}
store: {sqlite: unused.db}
dpop: {nonce: "off"}
identity: {authorization: keep}
upstreams:
  primary: {targets: [%q, %q]}
  mirror: {targets: ["${UPSTREAM}"]}
routes:
  - {match: /v1/, upstream: primary}
  - {match: /error/, upstream: mirror, public: true}
`, failing(), failing()))
	key := vectorKeys(t)["K1"]
	g.rows.put("T1", bound(key.Thumbprint()))
	for i := range int32(10) {
		res := g.raw("GET", text(g.signed(key, dpop.Claims{}), "Cookie: session=1", "Connection: close"))
		assert.Equal(t, http.StatusInternalServerError, res.StatusCode)
		body, _ := io.ReadAll(res.Body)
		assert.Equal(t, "legacy error", string(body))
		assert.Equal(t, i+1, asked.Load())
	}
	assert.Zero(t, g.count(), "what the other upstream saw")
}

// attack: 21
func TestTrailersOfAStreamEndAtTheGateway(t *testing.T) {
	begun, seen := make(chan string, 1), make(chan *http.Request, 1)
	up := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		first := make([]byte, 5)
		io.ReadFull(r.Body, first)
		begun <- string(first)
		io.Copy(io.Discard, r.Body)
		seen <- r
	}))
	t.Cleanup(up.Close)
	g, key := inFrontOf(t, "base", up.URL)
	conn, from := g.dial()
	write(t, conn, text(g.signed(key, anyX), "Transfer-Encoding: chunked", "Trailer: X-Auth-Subject", "TE: trailers", "Connection: TE")+"5\r\nhello\r\n")
	assert.Equal(t, "hello", <-begun, "before the end of the body")
	write(t, conn, "0\r\nX-Auth-Subject: admin\r\nx_auth_scope: admin\r\nX-Sum: 1\r\nDPoP: x\r\n\r\n")
	res, _ := answer(t, from)
	require.Equal(t, http.StatusOK, res.StatusCode)
	r := <-seen
	assert.Empty(t, r.Trailer)
	assert.Empty(t, r.Header["Trailer"])
	assert.Empty(t, r.Header["Te"])
	assert.Equal(t, []string{aUser.String()}, r.Header["X-Auth-Subject"])
}

// attack: 23
func TestUpstreamSaysNothingInTheGatewaysName(t *testing.T) {
	const trailers = "X-Auth-Subject, DPoP-Nonce, X-Sum"
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, _ := w.(http.Hijacker).Hijack()
		defer conn.Close()
		buffered.WriteString("HTTP/1.1 200 OK\r\nX-Auth-Subject: root\r\nX_Auth_Subject: root\r\nx-auth-scope: root\r\nRemote-User: root\r\n" +
			"Alt-Svc: h3=\":1\"\r\nConnection: X-Foo\r\nX-Foo: 1\r\nKeep-Alive: x\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\n" +
			"DPoP-Nonce: theirs\r\nWWW-Authenticate: Basic\r\nX-Request-Id: theirs\r\nX-Kept: kept\r\nTrailer: " + trailers + "\r\n" +
			"Transfer-Encoding: chunked\r\n\r\n6\r\nlegacy\r\n0\r\nX-Auth-Subject: root\r\nDPoP-Nonce: theirs\r\nX-Sum: 1\r\nX_Auth_Scope: root\r\n\r\n")
		buffered.Flush()
	}))
	t.Cleanup(up.Close)
	g, key := inFrontOf(t, "base", up.URL)
	for _, request := range []string{text(g.signed(key, dpop.Claims{})), strings.Replace(rawPublic(), "Connection: close\r\n", "", 1)} {
		conn, from := g.dial()
		write(t, conn, request)
		res, err := http.ReadResponse(bufio.NewReader(from), nil)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		assert.Equal(t, "legacy", string(body))
		for name, values := range res.Header {
			assert.NotContains(t, values, "root", name)
			assert.NotContains(t, values, "theirs", name)
		}
		for _, gone := range []string{"Alt-Svc", "Connection", "X-Foo", "Keep-Alive", "Proxy-Authenticate", "Upgrade", "Dpop-Nonce", "Www-Authenticate"} {
			assert.Empty(t, res.Header[gone], gone)
		}
		assert.Equal(t, "kept", res.Header.Get("X-Kept"))
		assert.Equal(t, http.Header{"X-Sum": {"1"}}, res.Trailer)
	}
}

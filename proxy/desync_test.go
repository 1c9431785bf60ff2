package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// agrees sends a request whose end two servers could see in different places, and another one after it on the same
// connection. Whatever becomes of the first, the upstream sees one request at the most, and the second is read where the
// gateway took the first to end.
func (g *rig) agrees(t *testing.T, request string, statuses ...int) {
	t.Helper()
	before := g.count()
	conn, from := g.dial()
	write(t, conn, request)
	res, _ := answer(t, from)
	assert.Contains(t, statuses, res.StatusCode)
	if res.StatusCode >= 400 {
		assert.Equal(t, before, g.count(), "what the upstream saw")
	}
	conn.Close()
	assert.LessOrEqual(t, g.count()-before, 1, "what the upstream saw")
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.seen[before:] {
		assert.NotContains(t, r.URL.Path, "admin")
	}
}

// attack: 58
func TestOddLengthsAreRefused(t *testing.T) {
	g, key := newAPI(t, "base")
	for _, lengths := range [][]string{
		{"2", "3"},
		{"2, 2"},
		{"2, 3"},
		{"+2"},
		{"0x2"},
		{""},
		{"-1"},
		{"12345678901234567890"},
		{"2_"},
		{"2 "},
	} {
		var lines []string
		for _, n := range lengths {
			lines = append(lines, "Content-Length: "+n)
		}
		t.Run(strings.Join(lines, " and "), func(t *testing.T) {
			statuses := []int{http.StatusBadRequest}
			if lengths[0] == "2 " {
				statuses = append(statuses, http.StatusOK) // white space around a value is none of it
			}
			g.agrees(t, text(g.signed(key, anyX), append(lines, "Connection: close")...)+"hi", statuses...)
		})
	}
}

// attack: 60, 61
func TestFramingFieldsOfAnotherAgeOrSpellingDoNotCount(t *testing.T) {
	g, key := newAPI(t, "base")
	hidden := "0\r\n\r\nGET /admin/x HTTP/1.1\r\nHost: api.example.test\r\n\r\n"
	old := strings.Replace(text(g.signed(key, anyX), "Content-Length: 5", "Transfer-Encoding: chunked"), "HTTP/1.1", "HTTP/1.0", 1)
	g.agrees(t, old+hidden, http.StatusBadRequest, http.StatusOK)
	for _, name := range []string{"Transfer_Encoding", "Transfer.Encoding", "Content_Length", "X-Transfer-Encoding"} {
		g.agrees(t, text(g.signed(key, anyX), name+": chunked", "Content-Length: 5", "Connection: close")+hidden[:5], http.StatusBadRequest, http.StatusOK)
		last := g.last()
		assert.EqualValues(t, 5, last.ContentLength)
		assert.Empty(t, last.TransferEncoding)
		if !strings.HasPrefix(name, "X-") {
			assert.NotContains(t, last.Header, name, "an upstream that reads names as CGI does would believe it")
		}
	}
}

// attack: 62, 63
func TestChunksOfOddSpellingBreakTheRequest(t *testing.T) {
	g, key := newAPI(t, "base")
	for _, chunks := range []string{
		"2\nhi\r\n0\r\n\r\n",
		"2;\nhi\r\n0\r\n\r\n",
		"2;a=b\nhi\r\n0\r\n\r\n",
		"2\r\nhi\r\n0\n\r\n",
		"0x2\r\nhi\r\n0\r\n\r\n",
		"+2\r\nhi\r\n0\r\n\r\n",
		"2_\r\nhi\r\n0\r\n\r\n",
		"-2\r\nhi\r\n0\r\n\r\n",
		" 2\r\nhi\r\n0\r\n\r\n",
		"\r\nhi\r\n0\r\n\r\n",
		"10000000000000002\r\nhi\r\n0\r\n\r\n",
		"2\r\nhi0\r\n\r\n",
		"2\r\nhiGET /admin/x HTTP/1.1\r\nHost: api.example.test\r\n\r\n",
	} {
		t.Run(fmt.Sprintf("%.20q", chunks), func(t *testing.T) {
			told := g.told()
			res := g.raw("POST", text(g.signed(key, anyX), "Transfer-Encoding: chunked", "Connection: close")+chunks)
			assert.Equal(t, http.StatusBadRequest, res.StatusCode)
			require.Greater(t, g.told(), told)
			g.passes(g.signed(key, dpop.Claims{})) // and no connection is left in the middle of a message
		})
	}
}

// attack: 64
func TestExtensionsOfChunksAreNotReadWithoutEnd(t *testing.T) {
	g, key := newAPI(t, "base")
	conn, from := g.dial()
	write(t, conn, text(g.signed(key, anyX), "Transfer-Encoding: chunked", "Connection: close"))
	chunk := "1;" + strings.Repeat("x", 1<<10) + "\r\na\r\n"
	sent := 0
	for ; sent < 10<<20; sent += len(chunk) {
		if _, err := conn.Write([]byte(chunk)); err != nil {
			break
		}
	}
	res, err := http.ReadResponse(from, nil)
	if err == nil { // the rest of what was sent may also have reset the connection
		assert.Equal(t, http.StatusBadRequest, res.StatusCode)
	}
	assert.Less(t, sent, 10<<20, "bytes taken")
}

// attack: 65
func TestControlBytesInAHeaderAreRefused(t *testing.T) {
	g, key := newAPI(t, "base")
	for _, line := range []string{
		"X-A: b\rc",
		"X-A: b\x00c",
		"X-A: b\x7fc",
		"X-A: \x01",
		": b",
		"X-A : b",
		" X-A: b",
		"X A: b",
		"X-A\x00: b",
		"X-A",
	} {
		t.Run(fmt.Sprintf("%q", line), func(t *testing.T) {
			request := text(g.signed(key, dpop.Claims{}), "Connection: close")
			first := strings.Replace(request, "\r\n", "\r\n"+line+"\r\n", 1)
			g.agrees(t, first, http.StatusBadRequest)
		})
	}
}

// attack: 74
func TestBodyOfARefusedRequestIsNoRequest(t *testing.T) {
	g, key := newAPI(t, "base")
	for _, size := range []int{1 << 10, 1 << 20} {
		conn, from := g.dial()
		hidden := text(g.signed(key, dpop.Claims{}))
		body := strings.Repeat(hidden, size/len(hidden)+1)
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn.Write([]byte("POST /v1/any/x HTTP/1.1\r\nHost: api.example.test\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n\r\n" + body))
			conn.Write([]byte("GET /v1/any/x HTTP/1.1\r\nHost: api.example.test\r\n\r\n"))
		}()
		res, _ := answer(t, from)
		assert.Equal(t, http.StatusUnauthorized, res.StatusCode)
		if res, err := http.ReadResponse(from, nil); err == nil {
			assert.Equal(t, http.StatusUnauthorized, res.StatusCode, "the request after the body, and none from within")
		}
		conn.Close()
		<-done
		assert.Zero(t, g.count(), "what the upstream saw")
	}
}

// attack: 70
func TestCONNECTOfHTTP2HidesNoRequest(t *testing.T) {
	g, key := newAPI(t, "base")
	s := g.secure()
	hidden := "GET /admin/x HTTP/1.1\r\nHost: api.example.test\r\nX-Auth-Subject: admin\r\n\r\n"
	for _, authority := range []string{"a", "api.example.test", "api.example.test:443"} {
		r := g.signed(key, dpop.Claims{Method: "CONNECT", URL: apiURL})
		fields := []field{{":method", "CONNECT"}, {":authority", authority}}
		credentials := []field{{"authorization", r.Header.Get("Authorization")}, {"dpop", r.Header.Get("DPoP")}}
		assert.False(t, exchangeFrames(t, s, withData(headersFrame(fields), hidden)))
		assert.False(t, exchangeFrames(t, s, withData(headersFrame(append(fields, credentials...)), hidden)))
		extended := append(fields, field{":protocol", "websocket"}, field{":scheme", "https"}, field{":path", "/v1/items"})
		assert.False(t, exchangeFrames(t, s, withData(headersFrame(append(extended, credentials...)), hidden)))
	}
	assert.Zero(t, g.count(), "what the upstream saw")
}

// attack: 72
func TestLengthsOfHTTP2HaveToBeTrue(t *testing.T) {
	g, key := newAPI(t, "base")
	s := g.secure()
	request := func(length, data string) []byte {
		r := g.signed(key, anyX)
		return withData(headersFrame([]field{
			{":method", "POST"},
			{":scheme", "https"},
			{":authority", "api.example.test"},
			{":path", "/v1/any/x"},
			{"authorization", r.Header.Get("Authorization")},
			{"dpop", r.Header.Get("DPoP")},
			{"content-length", length},
		}), data)
	}
	require.True(t, exchangeFrames(t, s, request("2", "hi")), "the request itself is good")
	for _, length := range []string{"0", "1", "3", "999", "-1", "x"} {
		assert.False(t, exchangeFrames(t, s, request(length, "hi")), length)
	}
	g.passes(g.signed(key, dpop.Claims{}))
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, body := range g.bodies {
		assert.LessOrEqual(t, len(body), 2)
	}
}

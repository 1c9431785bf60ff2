package proxy_test

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/dpopgate/dpopgate/dpop"
)

// shape is a request whose end two servers could see in different places.
type shape struct {
	method   string   // POST, unless it says otherwise
	framing  []string // header lines
	swap     []string // a text of the request, and what stands in its place
	body     string   // in which HIDDEN is a request that needs no credentials, and would be answered if it were seen
	left     bool     // the client leaves, as the gateway waits for more
	finished []string // bodies of the requests that are finished: that of the request, and of the one that it hides
}

const (
	chunked = "Transfer-Encoding: chunked"
	hi      = "2\r\nhi\r\n0\r\n\r\n"
)

var http10 = []string{"HTTP/1.1", "HTTP/1.0"}

// bodyOnly is a body that is HIDDEN and nothing else: it is no request, whatever it looks like.
var bodyOnly = []string{"HIDDEN"}

var shapes = []shape{
	{body: "", finished: []string{""}},
	{framing: []string{"Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{framing: []string{"Content-Length: 2"}, body: "hiHIDDEN", finished: []string{"hi", ""}},
	{framing: []string{chunked}, body: hi + "HIDDEN", finished: []string{"hi"}}, // the last one of its connection

	// Both lengths, of which the chunked one counts (RFC 9112 §6.3), but not in HTTP/1.0, which knows no chunks.
	{framing: []string{chunked, "Content-Length: 300"}, body: hi + "HIDDEN", finished: []string{"hi"}},
	{framing: []string{"Content-Length: 5", chunked}, body: "0\r\n\r\nHIDDEN", finished: []string{""}},
	{swap: http10, framing: []string{chunked, "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN", finished: []string{"0\r\n\r\n"}},
	{swap: http10, framing: []string{chunked}, body: hi + "HIDDEN", finished: []string{""}},
	{swap: http10, framing: []string{"Connection: keep-alive", "Content-Length: 2"}, body: "hiHIDDEN", finished: []string{"hi"}},

	// Codings that one server would see and another would not.
	{framing: []string{"Transfer-Encoding: xchunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding : chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding:\x0bchunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding:\r\n chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN", finished: []string{""}},
	{framing: []string{"X-A: b\r\n Transfer-Encoding: chunked", "Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{framing: []string{chunked, "Transfer-Encoding: identity"}, body: hi + "HIDDEN"},
	{framing: []string{chunked, chunked}, body: hi + "HIDDEN"},
	{framing: []string{"Transfer-Encoding: identity, chunked"}, body: hi + "HIDDEN"},
	{framing: []string{"Transfer_Encoding: chunked", "Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{framing: []string{"Transfer-Encoding: chunked, identity", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding: identity", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding: ", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding: chunked,", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding: ,chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding: chunked;q=1", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding: \"chunked\"", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding: chunked\x00", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding: chunked\x0b", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding: \x85chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding: \xa0chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding:\rchunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding:\tchunked\t", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN", finished: []string{""}},
	{framing: []string{"Transfer-Encoding: CHUNKED", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN", finished: []string{""}},
	{framing: []string{"transfer-encoding: cow", chunked, "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding\x00: chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding\xff: chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer\xadEncoding: chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding\t: chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"X-A: b\r\n\tTransfer-Encoding: chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN", finished: []string{"0\r\n\r\n", ""}},
	{framing: []string{"Transfer Encoding: chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Transfer-Encoding;: chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"X: y\nTransfer-Encoding: chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN", finished: []string{""}},
	{framing: []string{"X: y\rTransfer-Encoding: chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN"},
	{framing: []string{"Content-Encoding: chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN", finished: []string{"0\r\n\r\n", ""}},
	{framing: []string{"TE: chunked", "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN", finished: []string{"0\r\n\r\n", ""}},
	{framing: []string{"Connection: Transfer-Encoding", chunked, "Content-Length: 5"}, body: "0\r\n\r\nHIDDEN", finished: []string{""}},
	{framing: []string{chunked, "Content_Length: 300"}, body: hi + "HIDDEN", finished: []string{"hi"}},

	// Lengths.
	{framing: []string{"Content-Length: 2", "Content-Length: SIZE"}, body: "HIDDEN"},
	{framing: []string{"Content-Length: 2, 2"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: +2"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: 0x2"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: "}, body: "HIDDEN"},
	{framing: []string{"Content-Length: -1"}, body: "HIDDEN"},
	{framing: []string{"Content-Length: 18446744073709551618"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: 2_"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: 2", "Content-Length: 2"}, body: "hiHIDDEN", finished: []string{"hi", ""}},
	{framing: []string{"Content-Length: 02"}, body: "hiHIDDEN", finished: []string{"hi", ""}},
	{framing: []string{"Content-Length: 2, 3"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: 2,"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: 2", "Content-Length: "}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: 2\r\n 2"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: 2;"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: 1e1"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: 2.0"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: 2\x0b"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: \x002"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: \xef\xbc\x92"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: \"2\""}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length: 9223372036854775808"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length : 2"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length\x00: 2"}, body: "hiHIDDEN"},
	{framing: []string{"Content-Length\xff: 2"}, body: "hiHIDDEN"},
	{framing: []string{"Content_Length: 2", "Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{framing: []string{"Connection: Content-Length", "Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{framing: []string{"Connection: Host, Content-Length", "Content-Length: 2"}, body: "hiHIDDEN", finished: []string{"hi", ""}},
	{framing: []string{"Content-Length: 0"}, body: "HIDDEN", finished: []string{"", ""}},
	{framing: []string{"Content-Length: 0"}, body: "hi", finished: []string{""}},

	// Chunks.
	{framing: []string{chunked}, body: "2;a=b\r\nhi\r\n0;c\r\n\r\nHIDDEN", finished: []string{"hi"}},
	{framing: []string{chunked}, body: hi + "garbage\r\n\r\n", finished: []string{"hi"}},
	{framing: []string{chunked}, body: "2\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2;\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2;\nxx\r\n40\r\n0\r\n\r\nHIDDEN0\r\n\r\n"},
	{framing: []string{chunked}, body: "2\r\nhi\r\n0\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "0x2\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "+2\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2_\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "10000000000000002\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2\r\nhi0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "0002\r\nhi\r\n0000\r\n\r\nHIDDEN", finished: []string{"hi"}},
	{framing: []string{chunked}, body: "0000000000000002\r\nhi\r\n0\r\n\r\nHIDDEN", finished: []string{"hi"}},
	{framing: []string{chunked}, body: "00000000000000002\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, left: true, body: "8000000000000002\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, left: true, body: "FFFFFFFFFFFFFFFF\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, left: true, body: "fffffffffffffffe\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2 \r\nhi\r\n0\r\n\r\nHIDDEN", finished: []string{"hi"}},
	{framing: []string{chunked}, body: "2\t\r\nhi\r\n0\r\n\r\nHIDDEN", finished: []string{"hi"}},
	{framing: []string{chunked}, body: " 2\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2\x00\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2\r\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2\rhi\r0\r\rHIDDEN"},
	{framing: []string{chunked}, body: "2h\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2,2\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "-2\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2.\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: ";a\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2;a=\"\r\nhi\r\n0\r\n\r\nHIDDEN", finished: []string{"hi"}},
	{framing: []string{chunked}, body: "2;a=\"\n\"\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2;a\rb\r\nhi\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2;\x00\r\nhi\r\n0\r\n\r\nHIDDEN", finished: []string{"hi"}},
	{framing: []string{chunked}, body: "2\r\nhi\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2\r\nhi\r0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2\r\nhi\r\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2\r\nhiXX0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2\r\nhi\r\n\r\n0\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2\r\nhi\r\n0\r\n\nHIDDEN", finished: []string{"hi"}},
	{framing: []string{chunked}, body: "2\r\nhi\r\n0\r\nX-A: b\n\r\nHIDDEN", finished: []string{"hi"}},
	{framing: []string{chunked}, body: "2\r\nhi\r\n0\r\nContent-Length: 5\r\n\r\nHIDDEN", finished: []string{"hi"}},
	{framing: []string{chunked}, body: "2\r\nhi\r\n0\r\nTransfer-Encoding: chunked\r\nHost: b\r\n\r\nHIDDEN", finished: []string{"hi"}},
	{framing: []string{chunked}, body: "2\r\nhi\r\n0\r\nX A: b\r\n\r\nHIDDEN", finished: []string{"hi"}},
	{framing: []string{chunked}, body: "2\r\nhi\r\n0\r\n X-A: b\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2\r\nhi\r\n0\r\nno colon\r\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2\r\nhi\r\n0\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2\r\nhi\r\n00\r\n\r\nHIDDEN", finished: []string{"hi"}},
	{framing: []string{chunked}, body: "2\r\nhi\r\n0;\n\r\nHIDDEN"},
	{framing: []string{chunked}, body: "2\r\nhi\r\n0\r\r\n\r\nHIDDEN"},

	// Bodies where few expect one.
	{method: "GET", framing: []string{"Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{method: "DELETE", framing: []string{"Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{method: "GET", framing: []string{chunked}, body: hi + "HIDDEN", finished: []string{"hi"}},
	{method: "OPTIONS", framing: []string{"Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{method: "HEAD", framing: []string{"Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{method: "HEAD", framing: []string{chunked}, body: hi + "HIDDEN", finished: []string{"hi"}},
	{method: "GET", framing: []string{"Content-Length: 0"}, body: "HIDDEN", finished: []string{"", ""}},
	{method: "TRACE", framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{method: "get", framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},

	// Bodies that are waited for.
	{framing: []string{"Expect: 100-continue", "Content-Length: 2"}, body: "hiHIDDEN", finished: []string{"hi", ""}},
	{framing: []string{"Expect: 100-continue", chunked}, body: hi + "HIDDEN", finished: []string{"hi"}},
	{framing: []string{"Expect: 100-continue", "Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{method: "GET", framing: []string{"Expect: 100-continue", "Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{method: "GET", framing: []string{"Expect: y 100-continue", "Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{framing: []string{"Expect: 100-continue", "Expect: x", "Content-Length: 2"}, body: "hiHIDDEN", finished: []string{"hi", ""}},
	{framing: []string{"Expect:\r\n 100-continue", "Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{swap: http10, framing: []string{"Expect: 100-continue", "Content-Length: 2"}, body: "hiHIDDEN", finished: []string{"hi"}},

	// Upgrades to what one server would speak from there on, and another would not.
	{framing: []string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__", "Content-Length: 2"}, body: "hiHIDDEN", finished: []string{"hi", ""}},
	{method: "GET", framing: []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 777", "Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{method: "GET", framing: []string{"Connection: Upgrade", "Upgrade: TLS/1.0"}, body: "HIDDEN", finished: []string{"", ""}},

	// Request lines and ends of lines.
	{swap: []string{" HTTP/1.1", ""}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{swap: []string{"HTTP/1.1", "HTTP/0.9"}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{swap: []string{"HTTP/1.1", "HTTP/1.2"}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{swap: []string{"HTTP/1.1", "HTTP/1.11"}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{swap: []string{"HTTP/1.1", "HTTP/2.0"}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{swap: []string{"HTTP/1.1", "http/1.1"}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{swap: []string{"HTTP/1.1", "HTTP/1.1 "}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{swap: []string{" HTTP/1.1", "\tHTTP/1.1"}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{swap: []string{" HTTP/1.1", "  HTTP/1.1"}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{swap: []string{"POST ", "POST\t"}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{swap: []string{"POST ", "\r\nPOST "}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{swap: []string{"POST ", " POST "}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{swap: []string{"Host: ", "Host:\r\n "}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{swap: []string{"Host: ", "Host : "}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{swap: []string{"Host: ", "X: y\r\n\r\nHost: "}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{swap: []string{"\r\n\r\n", "\n\n"}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{swap: []string{"\r\n\r\n", "\n\r\n"}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN", finished: bodyOnly},
	{swap: []string{"\r\n\r\n", "\r\r\n"}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{swap: []string{"\r\n\r\n", "\r\n\x00\r\n"}, framing: []string{"Content-Length: SIZE"}, body: "HIDDEN"},
	{framing: []string{"Host: b", "Content-Length: SIZE"}, body: "HIDDEN"},
}

// hide puts the request that a shape hides into a text.
func hide(text string, number int) string {
	hidden := fmt.Sprintf("GET /public/hidden/%d HTTP/1.1\r\nHost: api.example.test\r\n\r\n", number)
	return strings.ReplaceAll(text, "HIDDEN", hidden)
}

// render is a shape with good credentials, and a last request after it that has none and ends the connection.
func (s shape) render(g *rig, key *dpop.Key, number int) (sent, method string) {
	if method = s.method; method == "" {
		method = http.MethodPost
	}
	r := g.signed(key, dpop.Claims{Method: method, URL: fmt.Sprintf("%s/v1/any/%d", apiURL, number)})
	sent = strings.Replace(text(r, s.framing...), "SIZE", fmt.Sprint(len(hide("HIDDEN", number))), 1) + hide(s.body, number)
	if s.swap != nil {
		sent = strings.Replace(sent, s.swap[0], s.swap[1], 1)
	}
	return sent + "GET /nowhere HTTP/1.1\r\nHost: api.example.test\r\nConnection: close\r\n\r\n", method
}

package proxy_test

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// secure serves the rig's gateway over TLS, with HTTP/2.
func (g *rig) secure() *httptest.Server {
	s := httptest.NewUnstartedServer(g.gateway)
	s.EnableHTTP2 = true
	s.StartTLS()
	g.t.Cleanup(s.Close)
	return s
}

// conformance: NET-09, HDR-18
func TestAuthorityOfHTTP2IsNormalized(t *testing.T) {
	g, key := newAPI(t, "base")
	s := g.secure()
	over2 := s.Client().Transport
	over1 := over2.(*http.Transport).Clone()
	over1.ForceAttemptHTTP2, over1.TLSClientConfig.NextProtos = false, []string{"http/1.1"}
	over1.Protocols = new(http.Protocols)
	over1.Protocols.SetHTTP1(true)
	for proto, transport := range map[string]http.RoundTripper{"HTTP/2.0": over2, "HTTP/1.1": over1} {
		for host, status := range map[string]int{
			"api.example.test":      http.StatusOK,
			"API.Example.TEST":      http.StatusOK,
			"api.example.test:443":  http.StatusOK,
			"API.EXAMPLE.TEST:443":  http.StatusOK,
			"api.example.test:8443": http.StatusMisdirectedRequest,
			"evil.test":             http.StatusMisdirectedRequest,
		} {
			before := g.count()
			r := g.signed(key, dpop.Claims{})
			r.URL.Scheme, r.URL.Host, r.Host = "https", s.Listener.Addr().String(), host
			for _, want := range []int{status, map[int]int{200: 401, 421: 421}[status]} { // and once more, used up
				res, err := transport.RoundTrip(r)
				require.NoError(t, err)
				res.Body.Close()
				assert.Equal(t, proto, res.Proto)
				assert.Equal(t, want, res.StatusCode, host)
			}
			if status == http.StatusOK {
				assert.Equal(t, 1, g.count()-before)
				assert.Equal(t, "api.example.test", g.last().Header.Get("X-Forwarded-Host"))
			} else {
				assert.Equal(t, before, g.count())
			}
		}
	}
}

// field is one header field of HTTP/2.
type field struct{ name, value string }

// headersFrame is a HEADERS frame that ends stream 1 (RFC 9113 §6.2), each field a literal (RFC 7541 §6.2.2), so that
// it can hold what no client would send.
func headersFrame(fields []field) []byte {
	var block []byte
	for _, f := range fields {
		block = append(block, 0)
		for _, s := range []string{f.name, f.value} {
			if n := len(s); n < 127 {
				block = append(block, byte(n))
			} else {
				block = binary.AppendUvarint(append(block, 127), uint64(n-127))
			}
			block = append(block, s...)
		}
	}
	const headers, endStream, endHeaders = 1, 1, 4
	frame := append(binary.BigEndian.AppendUint32(nil, uint32(len(block)))[1:], headers, endStream|endHeaders, 0, 0, 0, 1)
	return append(frame, block...)
}

// exchange2 sends fields as a request on a new connection, and says whether the answer is 200.
func exchange2(t *testing.T, s *httptest.Server, fields []field) bool {
	return exchangeFrames(t, s, headersFrame(fields))
}

// withData is a HEADERS frame that does not end stream 1, and a DATA frame that does (RFC 9113 §6.1).
func withData(headers []byte, data string) []byte {
	const endStream = 1
	headers[4] &^= endStream
	frame := append(binary.BigEndian.AppendUint32(headers, uint32(len(data))<<8), endStream, 0, 0, 0, 1)
	return append(frame, data...)
}

// exchangeFrames is exchange2 for frames.
func exchangeFrames(t *testing.T, s *httptest.Server, frames []byte) bool {
	conn, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	require.NoError(t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	const settings, reset, goAway, headers = 4, 3, 7, 1
	_, err = conn.Write(append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"), frames...))
	require.NoError(t, err)
	for {
		var head [9]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return false
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(conn, payload); err != nil {
			return false
		}
		switch head[3] {
		case headers:
			return payload[0] == 0x88 // ":status: 200" in the static table
		case reset, goAway:
			return false
		}
	}
}

// conformance: NET-12
// attack: 73
func TestHTTP2FieldsCannotSplit(t *testing.T) {
	g, key := newAPI(t, "base")
	s := g.secure()
	request := func(more ...field) []field {
		r := g.signed(key, dpop.Claims{})
		return append([]field{
			{":method", "GET"},
			{":scheme", "https"},
			{":authority", "api.example.test"},
			{":path", "/v1/items"},
			{"authorization", r.Header.Get("Authorization")},
			{"dpop", r.Header.Get("DPoP")},
		}, more...)
	}
	require.True(t, exchange2(t, s, request(field{"x-good", "a b"})), "the request itself is good")
	require.Equal(t, 1, g.count())
	for _, bad := range []field{
		{"x-a", "b\r\nx-auth-subject: admin"},
		{"x-a", "b\r\n\r\nGET /admin/x HTTP/1.1\r\nHost: api.example.test\r\n\r\n"},
		{"x-a", "b\nx-auth-subject: admin"},
		{"x-a", "b\rc"},
		{"x-a", "b\x00c"},
		{"x-a\r\nx-auth-subject", "admin"},
		{"x-a: b\r\nx-c", "d"},
		{"x a", "b"},
		{"X-Auth-Subject", "admin"},
		{"", "b"},
		{"x-a:", "b"},
		{"connection", "x-auth-subject"},
		{"transfer-encoding", "chunked"},
		{"upgrade", "h2c"},
		{"te", "gzip"},
		{":path", "/admin/x"},
		{":authority", "evil.test"},
		{":status", "200"},
		{":unknown", "x"},
	} {
		assert.False(t, exchange2(t, s, request(bad)), "%q", bad)
	}
	for i, name := range []string{"method", "scheme", "authority", "path"} {
		for _, value := range []string{"GET /v1/items HTTP/1.1\r\nX-Auth-Subject: admin\r\n", "\r\n", "a b", ""} {
			fields := request()
			fields[i].value = value
			assert.False(t, exchange2(t, s, fields), "%s: %q", name, value)
		}
	}
	assert.Equal(t, 1, g.count(), "what the upstream saw")
}

package proxy_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// message is one of gRPC: a flag, the length, and the bytes.
func message(text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text))), text...)
}

// readMessage reads one; empty at the end.
func readMessage(r io.Reader) string {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return ""
	}
	text := make([]byte, binary.BigEndian.Uint32(head[1:]))
	io.ReadFull(r, text)
	return string(text)
}

// grpcServer serves gRPC's four kinds of calls, in what they are on the wire.
func grpcServer(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
		w.WriteHeader(http.StatusUpgradeRequired)
		return
	}
	w.Header().Set("Content-Type", "application/grpc")
	send := func(text string) {
		w.Write(message(text))
		http.NewResponseController(w).Flush()
	}
	switch r.URL.Path {
	case "/v1/unary":
		send("echo " + readMessage(r.Body))
	case "/v1/server":
		for i := range 3 {
			send(fmt.Sprint(i))
		}
	case "/v1/client":
		n := 0
		for readMessage(r.Body) != "" {
			n++
		}
		send(fmt.Sprint(n))
	case "/v1/both":
		for text := readMessage(r.Body); text != ""; text = readMessage(r.Body) {
			send("echo " + text)
		}
	case "/v1/fails":
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "5") // before any message
		return
	}
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	w.Header().Set(http.TrailerPrefix+"Grpc-Message", "fine")
}

func TestCallsOfGRPCPassWithTheirTrailers(t *testing.T) {
	up := httptest.NewUnstartedServer(http.HandlerFunc(grpcServer))
	up.Config.Protocols = new(http.Protocols)
	up.Config.Protocols.SetUnencryptedHTTP2(true)
	up.Start()
	t.Cleanup(up.Close)
	g := newRigFrom(t, "streaming", []byte(strings.NewReplacer(`"${UPSTREAM}"`, "up", " websocket: true,", "").Replace(streaming)+
		fmt.Sprintf("upstreams:\n  up: {targets: [%q], h2c: true}\n", up.URL)))
	key := vectorKeys(t)["K1"]
	g.rows.put("T1", bound(key.Thumbprint(), "items:read"))
	s := g.secure()
	call := func(path string, body io.Reader) *http.Response {
		r := g.signed(key, dpop.Claims{Method: "POST", URL: apiURL + path})
		r.URL.Scheme, r.URL.Host = "https", s.Listener.Addr().String()
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("TE", "trailers")
		r.Body, r.ContentLength = io.NopCloser(body), -1
		res, err := s.Client().Transport.RoundTrip(r)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, res.StatusCode)
		return res
	}
	ends := func(res *http.Response, status string) {
		assert.Empty(t, readMessage(res.Body))
		assert.Equal(t, status, res.Trailer.Get("Grpc-Status"))
		res.Body.Close()
	}
	res := call("/v1/unary", bytes.NewReader(message("one")))
	assert.Equal(t, "echo one", readMessage(res.Body))
	ends(res, "0")
	res = call("/v1/server", bytes.NewReader(message("go")))
	for i := range 3 {
		assert.Equal(t, fmt.Sprint(i), readMessage(res.Body))
	}
	ends(res, "0")
	res = call("/v1/client", bytes.NewReader(bytes.Repeat(message("more"), 100)))
	assert.Equal(t, "100", readMessage(res.Body))
	ends(res, "0")
	answers, asks := io.Pipe()
	go asks.Write(message("first"))
	res = call("/v1/both", answers)
	assert.Equal(t, "echo first", readMessage(res.Body))
	for i := range 10 { // each one only after the answer to the one before
		asks.Write(message(fmt.Sprint(i)))
		assert.Equal(t, fmt.Sprint("echo ", i), readMessage(res.Body))
	}
	asks.Close()
	ends(res, "0")
	res = call("/v1/fails", bytes.NewReader(message("one")))
	ends(res, "5")
}

func TestRefusalOfACallIsOneOfGRPC(t *testing.T) {
	g, key := newStreaming(t)
	s := g.secure()
	for _, c := range []struct {
		url, token string
		status     int
		code       string
	}{
		{"/v1/x", "T9", http.StatusUnauthorized, "16"},
		{"/nowhere", "T1", http.StatusNotFound, "12"},
		{"/v1//x", "T1", http.StatusBadRequest, "13"},
	} {
		for _, kind := range []string{"application/grpc", "application/grpc+proto", "application/grpc-web+proto", "application/json"} {
			r := g.signed(key, dpop.Claims{Method: "POST", URL: apiURL + c.url, Token: c.token})
			r.URL.Scheme, r.URL.Host = "https", s.Listener.Addr().String()
			r.Header.Set("Content-Type", kind)
			res, err := s.Client().Transport.RoundTrip(r)
			require.NoError(t, err)
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			assert.Equal(t, c.status, res.StatusCode)
			assert.NotEmpty(t, res.Header.Get("X-Request-Id"))
			assert.Equal(t, c.status == http.StatusUnauthorized, res.Header["Www-Authenticate"] != nil)
			if kind == "application/json" || strings.Contains(kind, "web") {
				assert.Equal(t, "application/json", res.Header.Get("Content-Type"))
				assert.Empty(t, res.Header["Grpc-Status"])
				assert.NotEmpty(t, body)
				continue
			}
			assert.Equal(t, "application/grpc", res.Header.Get("Content-Type"))
			assert.Equal(t, []string{c.code}, res.Header["Grpc-Status"])
			assert.Len(t, res.Header["Grpc-Message"], 1)
			assert.Empty(t, body)
		}
	}
	assert.Zero(t, g.count(), "what the upstream saw")
}

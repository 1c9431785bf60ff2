package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
)

func TestHTTPSServesTheJourney(t *testing.T) {
	t.Parallel()
	upstream, got := echoed(t)
	g, _ := startInternal(t, upstream, "api.example.test", "localhost", "127.0.0.1")
	for _, host := range g.hosts {
		g.assertJourney(t, host)
	}
	require.Len(t, *got, 6)
	assert.Equal(t, []string{"https"}, (*got)[0].header["X-Forwarded-Proto"])
}

// conformance: NET-05
func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	g, _ := startInternal(t, "http://127.0.0.1:1", "localhost")
	for name, c := range map[string]*tls.Config{
		"TLS 1.0": {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
		"TLS 1.1": {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"RC4":     {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA}},
		"3DES":    {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA}},
		"CBC":     {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256}},
		"no ECDH": {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}},
	} {
		c.ServerName = "localhost"
		_, err := g.dialTLS(t, c)
		assert.ErrorContains(t, err, "remote error: tls:", name)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		conn, err := g.dialTLS(t, &tls.Config{ServerName: "localhost", MinVersion: version, MaxVersion: version})
		require.NoError(t, err)
		assert.Equal(t, version, conn.ConnectionState().Version)
	}
}

func TestUnknownServerNameGetsNoCertificate(t *testing.T) {
	t.Parallel()
	g, _ := startInternal(t, "http://127.0.0.1:1", "api.example.test", "localhost")
	for _, name := range []string{"other.example.test", "a.api.example.test", "example.test", "xn--e1afmkfd.example"} {
		_, err := g.dialTLS(t, &tls.Config{ServerName: name})
		assert.ErrorContains(t, err, "unrecognized name", name)
	}
	for name, want := range map[string]string{"API.Example.Test": "api.example.test", "localhost": "localhost"} {
		assert.Equal(t, []string{want}, g.served(t, name).DNSNames)
	}
	// Old clients, and those that were given an address, name none.
	conn, err := g.dialTLS(t, &tls.Config{InsecureSkipVerify: true})
	require.NoError(t, err)
	assert.Equal(t, []string{"api.example.test"}, conn.ConnectionState().PeerCertificates[0].DNSNames)
	// A ServerName that is an address is never sent.
	_, err = g.dialTLS(t, &tls.Config{ServerName: "127.0.0.1"})
	assert.ErrorContains(t, err, "certificate")
}

// attack: 46
func TestHostMustBeTheServerName(t *testing.T) {
	t.Parallel()
	upstream, got := echoed(t)
	g, _ := startInternal(t, upstream, "api.example.test", "localhost")
	for _, http2 := range []bool{false, true} {
		via := g.client(t, http2)
		r := get(t, g.at("localhost"))
		r.Host = "api.example.test"
		res, body := send(t, via, r)
		assert.Equal(t, http.StatusMisdirectedRequest, res.StatusCode, body)
		u, err := url.Parse(g.at("api.example.test"))
		require.NoError(t, err)
		r.Host = u.Host
		res, body = send(t, via, r)
		assert.Equal(t, http.StatusMisdirectedRequest, res.StatusCode)
		assert.Equal(t, "server_mismatch", refusalOf(t, body))
	}
	assert.Empty(t, *got)
}

func TestBrowsersAreToldToStayWithHTTPS(t *testing.T) {
	t.Parallel()
	upstream, _ := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=0")
		w.Header().Set("Alt-Svc", `h3=":443"`)
	})
	g, _ := startInternal(t, upstream, "localhost")
	g.routes += "\n  - {match: /public/, upstream: " + upstream + ", public: true}"
	g.configure(t)
	g.signals <- syscall.SIGHUP
	g.awaitLog(t, `"msg":"config reloaded"`)
	for _, path := range []string{"/public/", "/", "/nowhere"} {
		res, _ := send(t, g.client(t, false), get(t, g.url+path))
		assert.Equal(t, []string{"max-age=86400"}, res.Header["Strict-Transport-Security"], path)
		assert.NotContains(t, res.Header, "Alt-Svc")
	}
}

func TestDrainTellsHTTP2ClientsToGoElsewhere(t *testing.T) {
	t.Parallel()
	upstream, _ := echoed(t)
	g := newHTTPSGateway(t, fmt.Sprintf("{internal: true, internal_storage: %q}", t.TempDir()), upstream, "localhost")
	g.more = "limits: {drain_delay: 1h}"
	g.start(t)
	key, _, token := g.credentials(t)
	via := g.client(t, true)
	via.TLSClientConfig.InsecureSkipVerify = true
	var connections atomic.Int32
	dial := via.DialContext
	via.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		connections.Add(1)
		return dial(ctx, network, address)
	}
	ask := func() {
		res, body := send(t, &dpop.Transport{Key: key, Token: token, Base: via}, get(t, g.url+"/orders/"))
		assert.Equal(t, http.StatusOK, res.StatusCode, body)
	}
	ask()
	ask()
	assert.EqualValues(t, 1, connections.Load())
	g.signals <- syscall.SIGTERM
	g.awaitLog(t, `"msg":"draining"`)
	ask() // is answered, on the connection that is closed then
	require.Eventually(t, func() bool {
		ask()
		return connections.Load() > 1
	}, certPatience, 10*time.Millisecond)
	g.signals <- syscall.SIGTERM
	assert.Equal(t, exitOK, <-g.exit)
}

// The bounds that a client is told: how many streams, how long a header, how much of a body ahead of its being read.
func TestHTTP2IsBounded(t *testing.T) {
	t.Parallel()
	g, _ := startInternal(t, "http://127.0.0.1:1", "localhost")
	conn, err := g.dialTLS(t, &tls.Config{ServerName: "localhost", NextProtos: []string{"h2"}})
	require.NoError(t, err)
	require.Equal(t, "h2", conn.ConnectionState().NegotiatedProtocol)
	_, err = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	require.NoError(t, err)

	settings, window := map[uint16]uint32{}, uint32(0)
	for len(settings) == 0 || window == 0 {
		var head [9]byte // RFC 9113 §4.1
		_, err := io.ReadFull(conn, head[:])
		require.NoError(t, err)
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		_, err = io.ReadFull(conn, payload)
		require.NoError(t, err)
		switch kind, flags := head[3], head[4]; {
		case kind == 4 && flags == 0: // SETTINGS
			for ; len(payload) >= 6; payload = payload[6:] {
				settings[binary.BigEndian.Uint16(payload)] = binary.BigEndian.Uint32(payload[2:])
			}
		case kind == 8: // WINDOW_UPDATE
			require.EqualValues(t, 0, binary.BigEndian.Uint32(head[5:]), "of the connection")
			window = 65535 + binary.BigEndian.Uint32(payload)
		}
	}
	const streams, stream, frame, header = 3, 4, 5, 6 // RFC 9113 §6.5.2
	assert.EqualValues(t, 100, settings[streams])
	assert.LessOrEqual(t, settings[header], uint32(33<<10))
	assert.EqualValues(t, 16<<10, settings[frame])
	assert.LessOrEqual(t, settings[stream], window)
	assert.LessOrEqual(t, settings[streams]*settings[header]+window, uint32(4<<20), "worst case")
}

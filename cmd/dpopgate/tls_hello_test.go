package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// listening is a connection that keeps what a TLS client says first, and answers nothing.
type listening struct {
	net.Conn
	said bytes.Buffer
}

func (c *listening) Write(b []byte) (int, error) { return c.said.Write(b) }
func (c *listening) Read([]byte) (int, error)    { return 0, io.EOF }

// clientHello is the first record of a client (RFC 8446 §5.1), and its handshake message alone.
func clientHello(t *testing.T, c *tls.Config) (record, message []byte) {
	t.Helper()
	var heard listening
	require.ErrorIs(t, tls.Client(&heard, c).Handshake(), io.EOF)
	record = heard.said.Bytes()
	require.Equal(t, []byte{22, 3, 1}, record[:3])
	require.EqualValues(t, len(record)-5, binary.BigEndian.Uint16(record[3:]))
	return record, record[5:]
}

// firstRecord is the kind of the first record that the gateway answers with, and its content.
func (g *httpsGateway) firstRecord(t *testing.T, say []byte) (kind byte, content []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", g.https)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = conn.Write(say)
	require.NoError(t, err)
	var head [5]byte
	_, err = io.ReadFull(conn, head[:])
	require.NoError(t, err)
	content = make([]byte, binary.BigEndian.Uint16(head[3:]))
	_, err = io.ReadFull(conn, content)
	require.NoError(t, err)
	return head[0], content
}

// attack: 204
func TestClientHelloInPiecesIsReadAsAWhole(t *testing.T) {
	t.Parallel()
	g, _ := startInternal(t, "http://127.0.0.1:1", "localhost")
	for name, want := range map[string]struct{ kind, first byte }{
		"localhost":          {22, 2}, // handshake, ServerHello
		"other.example.test": {21, 2}, // alert, fatal
	} {
		_, message := clientHello(t, &tls.Config{ServerName: name})
		var pieces []byte
		for _, cut := range [][2]int{{0, 1}, {1, 60}, {60, len(message)}} {
			piece := message[cut[0]:cut[1]]
			pieces = append(append(pieces, 22, 3, 1, byte(len(piece)>>8), byte(len(piece))), piece...)
		}
		kind, content := g.firstRecord(t, pieces)
		assert.Equal(t, want.kind, kind, name)
		assert.Equal(t, want.first, content[0], name)
		if kind == 21 {
			assert.EqualValues(t, 112, content[1], "unrecognized_name")
		}
	}
}

// attack: 202
func TestHandshakesThatStallAreLetGo(t *testing.T) {
	t.Parallel()
	p := startPebble(t, pebbleOptions{})
	g, _ := newACMEGateway(t, p, "http://127.0.0.1:1", "stalled.example.com")
	g.more = "limits: {header_timeout: 100ms, drain_delay: 0s}"
	g.start(t)
	g.awaitReady(t)
	usual, _ := clientHello(t, &tls.Config{ServerName: "stalled.example.com"})
	challenge, _ := clientHello(t, &tls.Config{ServerName: "stalled.example.com", NextProtos: []string{"acme-tls/1"}})
	for name, start := range map[string][]byte{
		"nothing": nil, "half a hello": usual[:len(usual)/2], "a hello": usual, "half a challenge": challenge[:50], "a challenge": challenge,
	} {
		conn, err := net.Dial("tcp", g.https)
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		_, err = conn.Write(start)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, conn)
		require.NoError(t, err, "%s: the gateway ends the connection", name)
	}
}

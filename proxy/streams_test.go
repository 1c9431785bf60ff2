package proxy_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// endings are the ways in which a token's life ends, and what is said of it.
var endings = map[string]struct {
	end    func(g *rig)
	reason dpop.Reason
}{
	"expiry":               {func(g *rig) { g.offset.Store(int64(10 * time.Minute)) }, proxy.TokenExpired},
	"a shorter life":       {func(g *rig) { g.change(func(r *tokenstore.Record) { r.ExpiresAt = start.Add(time.Second) }) }, proxy.TokenExpired},
	"deletion":             {func(g *rig) { g.rows.drop("T1") }, proxy.TokenUnknown},
	"a notice":             {func(g *rig) { g.gateway.Revoked(tokenstore.Digester{}.Digest("T1")) }, proxy.TokenUnknown},
	"fewer scopes":         {func(g *rig) { g.change(func(r *tokenstore.Record) { r.Scopes = nil }) }, proxy.ScopeMissing},
	"another key":          {func(g *rig) { g.change(func(r *tokenstore.Record) { r.DPoPJKT = "another" }) }, proxy.TokenBound},
	"another audience":     {func(g *rig) { g.change(func(r *tokenstore.Record) { r.Audience = []string{"urn:other"} }) }, proxy.AudienceMismatch},
	"a store that is down": {func(g *rig) { g.rows.mu.Lock(); g.rows.fail = errors.New("down"); g.rows.mu.Unlock() }, proxy.StoreUnavailable},
}

// change puts another row in the place of T1's.
func (g *rig) change(how func(r *tokenstore.Record)) {
	rec := bound(vectorKeys(g.t)["K1"].Thumbprint(), "items:read")
	how(&rec)
	g.rows.put("T1", rec)
}

// pass lets the clock go on, a second each time, until stop is closed.
func (g *rig) pass(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(50 * time.Millisecond):
			g.offset.Add(int64(time.Second))
		}
	}
}

// lasting is an upstream that answers with one event and goes on until it is cut off.
func lasting(ended *sync.WaitGroup) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ended.Add(1)
		defer ended.Done()
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: 1\n\n")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

// attack: 156
func TestStreamDoesNotOutliveItsToken(t *testing.T) {
	for name, c := range endings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, key := newStreaming(t)
			var ended sync.WaitGroup
			g.reply = lasting(&ended)
			conn, from := g.dial()
			write(t, conn, text(g.signed(key, dpop.Claims{URL: apiURL + "/ws/x"})))
			res, err := http.ReadResponse(from, nil)
			require.NoError(t, err)
			event := make([]byte, 9)
			_, err = io.ReadFull(res.Body, event)
			require.NoError(t, err)
			assert.Equal(t, "data: 1\n\n", string(event), "passed on as it comes")
			c.end(g)
			over := make(chan struct{})
			go g.pass(over)
			_, err = res.Body.Read(event)
			close(over)
			assert.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut, and not ended")
			ended.Wait()
			assert.Equal(t, c.reason, g.awaitEvent().Reason)
			assert.Equal(t, proxy.Passed, g.awaitEvent().Verdict)
		})
	}
}

// attack: 156
func TestWebSocketDoesNotOutliveItsToken(t *testing.T) {
	for name, c := range endings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, key := newStreaming(t)
			var ended sync.WaitGroup
			g.reply = echo(t, &ended)
			_, from := g.open(key, "hello")
			c.end(g)
			over := make(chan struct{})
			go g.pass(over)
			op, payload, err := readFrame(from)
			close(over)
			require.NoError(t, err)
			assert.EqualValues(t, opClose, op)
			require.GreaterOrEqual(t, len(payload), 2)
			assert.EqualValues(t, 1008, binary.BigEndian.Uint16([]byte(payload)))
			_, err = from.ReadByte()
			assert.ErrorIs(t, err, io.EOF)
			ended.Wait()
			e := g.awaitEvent()
			assert.Equal(t, c.reason, e.Reason)
			assert.Equal(t, http.StatusSwitchingProtocols, e.Status)
		})
	}
}

// A Close frame has its place between two frames; within one the connection just ends.
//
// attack: 156
func TestCloseFrameIsNotPutIntoAnother(t *testing.T) {
	g, key := newStreaming(t)
	g.reply = func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		conn.Write(frame(opText, string(make([]byte, 1000)), false)[:500])
		io.Copy(io.Discard, buffered)
	}
	conn, from := g.dial()
	write(t, conn, handshake(g.signed(key, dpop.Claims{URL: apiURL + "/ws/x"})))
	_, err := http.ReadResponse(from, nil)
	require.NoError(t, err)
	part := make([]byte, 500)
	_, err = io.ReadFull(from, part)
	require.NoError(t, err)
	g.offset.Store(int64(10 * time.Minute))
	_, err = from.ReadByte()
	assert.ErrorIs(t, err, io.EOF)
}

// attack: 156
func TestUploadDoesNotOutliveItsToken(t *testing.T) {
	g, key := newStreaming(t)
	over := make(chan struct{})
	up, fed := io.Pipe()
	g.intake = func(r *http.Request) { io.Copy(fed, r.Body) }
	conn, from := g.dial()
	write(t, conn, text(g.signed(key, dpop.Claims{Method: "POST", URL: apiURL + "/v1/x"}), "Transfer-Encoding: chunked")+"5\r\nhello\r\n")
	begun := make([]byte, 5)
	_, err := io.ReadFull(up, begun)
	require.NoError(t, err)
	g.offset.Store(int64(10 * time.Minute))
	go g.pass(over)
	defer close(over)
	res, _ := answer(t, from)
	assert.Equal(t, http.StatusUnauthorized, res.StatusCode)
	assert.Contains(t, res.Header.Get("WWW-Authenticate"), `error="invalid_token"`)
	assert.Equal(t, proxy.TokenExpired, g.eventOf(res).Reason)
}

func TestStreamOfALivingTokenGoesOn(t *testing.T) {
	g, key := newStreaming(t)
	more := make(chan struct{})
	g.reply = func(w http.ResponseWriter, r *http.Request) {
		for range 3 {
			io.WriteString(w, "data: 1\n\n")
			http.NewResponseController(w).Flush()
			<-more
		}
	}
	conn, from := g.dial()
	write(t, conn, text(g.signed(key, dpop.Claims{URL: apiURL + "/ws/x"}), "Connection: close"))
	res, err := http.ReadResponse(from, nil)
	require.NoError(t, err)
	g.change(func(r *tokenstore.Record) { r.ExpiresAt = start.Add(time.Hour) })
	event := make([]byte, 9)
	for range 3 {
		_, err = io.ReadFull(res.Body, event)
		require.NoError(t, err)
		before := g.rows.asked()
		g.offset.Add(int64(8 * time.Minute)) // past what the token's life was at first
		assert.Eventually(t, func() bool { return g.rows.asked() > before }, 10*time.Second, time.Millisecond, "looked up again")
		more <- struct{}{}
	}
	_, err = res.Body.Read(event)
	assert.ErrorIs(t, err, io.EOF)
	assert.Empty(t, g.awaitEvent().Reason)
}

// asked is how often the table was looked into.
func (r *rows) asked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lookups
}

// attack: 157
func TestWebSocketsAreClosedWhenADrainEnds(t *testing.T) {
	g, key := newStreaming(t)
	var ended sync.WaitGroup
	g.reply = echo(t, &ended)
	var open []io.Reader
	for range 20 {
		_, from := g.open(key, "hello")
		open = append(open, from)
	}
	conn, from := g.open(key, "goes by itself")
	ctx, cancel := context.WithCancel(t.Context())
	drained := make(chan struct{})
	go func() { defer close(drained); g.gateway.Drain(ctx) }()
	write(t, conn, string(frame(opText, "still here", true)))
	g.hears(from, "still here")
	write(t, conn, string(frame(opClose, "\x03\xe8", true)))
	op, _, err := readFrame(from)
	require.NoError(t, err)
	assert.EqualValues(t, opClose, op)
	select {
	case <-drained:
		t.Error("others are open")
	default:
	}
	cancel()
	for _, from := range open {
		op, payload, err := readFrame(from)
		require.NoError(t, err)
		assert.EqualValues(t, opClose, op)
		assert.EqualValues(t, 1001, binary.BigEndian.Uint16([]byte(payload)))
	}
	<-drained
	ended.Wait()
}

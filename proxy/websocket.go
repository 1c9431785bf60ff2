package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// webSocket is the one protocol that a connection may be upgraded to.
const webSocket = "websocket"

var (
	errSwitched  = errors.New("the upstream switched to a protocol that was not asked for")
	errTunnelled = errors.New("the connection was a WebSocket") // not an error: there is nothing left to answer
)

// asksForWebSocket says whether a request is a WebSocket handshake (RFC 6455 §4.1). One with a body never is: two
// servers could disagree where the body ends and the protocol begins.
func asksForWebSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.ContentLength == 0 && upgradesTo(r.Header)
}

// upgradesTo says whether a header upgrades the connection to a WebSocket and to nothing else.
func upgradesTo(h http.Header) bool {
	to := h["Upgrade"]
	return len(to) == 1 && strings.EqualFold(to[0], webSocket) && slices.ContainsFunc(connectionOptions(h), func(option string) bool {
		return strings.EqualFold(option, "upgrade")
	})
}

// connectionOptions are the members of Connection (RFC 9110 §7.6.1).
func connectionOptions(h http.Header) []string {
	var all []string
	for _, line := range h["Connection"] {
		for option := range strings.SplitSeq(line, ",") {
			all = append(all, strings.TrimSpace(option))
		}
	}
	return all
}

// switchProtocols is the answer to a handshake: it tunnels until either side or the token's life ends, and returns
// errTunnelled. A 101 that is not what was asked for is an error, with which the upstream's connection is closed.
func (x *exchange) switchProtocols(res *http.Response) error {
	upstream, ok := res.Body.(io.ReadWriteCloser)
	if !x.upgrade || !ok || !upgradesTo(res.Header) {
		return errSwitched
	}
	client, buffered, err := http.NewResponseController(x.out).Hijack()
	if err != nil {
		return fmt.Errorf("taking over the client's connection: %w", err)
	}
	x.out.status = http.StatusSwitchingProtocols
	t := &tunnel{client: client, upstream: upstream}
	defer x.tunnels.add(t)()
	defer t.close()
	if err := writeSwitch(buffered.Writer, x.out.Header(), res.Header); err != nil {
		x.event.Verdict, x.event.Reason, x.event.Err = Failed, ClientGone, err
		return errTunnelled
	}
	if !x.begins(nil, t) {
		t.stop(policyViolation, "")
	}
	x.out.written = t.run(buffered.Reader)
	return errTunnelled
}

// writeSwitch writes the 101 with what each side has put on it, and without the fields that are for one hop alone.
func writeSwitch(w *bufio.Writer, ours, upstream http.Header) error {
	for _, name := range append(connectionOptions(upstream), "Connection", "Upgrade", "Keep-Alive", "Transfer-Encoding", "Content-Length", "Trailer") {
		upstream.Del(name)
	}
	io.WriteString(w, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+webSocket+"\r\n")
	for _, h := range []http.Header{ours, upstream} {
		h.Write(w)
	}
	io.WriteString(w, "\r\n")
	return w.Flush() // with the error of any write before
}

// closeWrite tells the other side that nothing more comes, where the connection can say so.
func closeWrite(conn any) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}

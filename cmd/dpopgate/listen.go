package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/dpopgate/dpopgate/config"
)

// The config keys of the listeners, as errors and logs name them.
const (
	httpsKey = "listen.https"
	httpKey  = "listen.http"
	adminKey = "listen.admin"
)

// listener is an address of the config that is listened on, and the server behind it.
type listener struct {
	net.Listener
	socket socket // below it
	key    string // of the config
	server *http.Server
}

// bind listens on the address of a config key.
func bind(ctx context.Context, key, address string) (socket, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err == nil {
		return socket{l.(*net.TCPListener), byAddress}, nil
	}
	if cause := syscall.Errno(0); errors.As(err, &cause) { // without the address, which stands here already
		err = cause
	}
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = ": another process listens there"
	case errors.Is(err, syscall.EACCES):
		hint = ": ports below 1024 want CAP_NET_BIND_SERVICE or root"
	}
	return socket{}, fmt.Errorf("%s: listening on %s: %w%s", key, address, err, hint)
}

// newHTTPServer is a server within the limits. Beyond the header it bounds nothing by time, since streams and uploads
// may take as long as they want.
func newHTTPServer(h http.Handler, limits config.Limits, log *slog.Logger, key string) *http.Server {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: limits.HeaderTimeout.Std(),
		IdleTimeout:       limits.IdleTimeout.Std(),
		MaxHeaderBytes:    int(limits.HeaderBytes),
		ErrorLog:          noiseLog(log, key),
		Protocols:         new(http.Protocols),
		// The gateway answers OPTIONS * as its contract has it.
		DisableGeneralOptionsHandler: true,
	}
	s.Protocols.SetHTTP1(true)
	return s
}

// Bounds of an HTTP/2 connection. At worst a client makes us hold 100 headers of limits.header_bytes, and as much of
// their bodies as fits into the window of the connection: below 4 MiB with the default header.
const (
	http2Streams          = 100
	http2ConnectionWindow = 512 << 10
	http2StreamWindow     = 256 << 10
	http2Frame            = 16 << 10
	http2Silence          = 30 * time.Second // after which a ping asks whether the client is still there
	http2Patience         = 15 * time.Second // with a client that takes no byte, and with the answer to a ping
)

// newHTTPSServer is newHTTPServer with TLS, and HTTP/2 for those who want it. A handshake has as long as a header.
func newHTTPSServer(h http.Handler, t *tls.Config, limits config.Limits, log *slog.Logger) *http.Server {
	s := newHTTPServer(h, limits, log, httpsKey)
	s.TLSConfig = t
	s.Protocols.SetHTTP2(true)
	s.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams:          http2Streams,
		MaxReceiveBufferPerConnection: http2ConnectionWindow,
		MaxReceiveBufferPerStream:     http2StreamWindow,
		MaxReadFrameSize:              http2Frame,
		SendPingTimeout:               http2Silence,
		PingTimeout:                   http2Patience,
		WriteByteTimeout:              http2Patience,
	}
	return s
}

// serve runs the server until it is closed.
func (l *listener) serve() error {
	if l.server.TLSConfig != nil {
		return l.server.ServeTLS(l, "", "")
	}
	return l.server.Serve(l)
}

// serveAll runs the servers and returns the first error that is not their end.
func serveAll(listeners []*listener) <-chan error {
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() {
			if err := l.serve(); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				failed <- fmt.Errorf("%s: serving on %s: %w", l.key, l.Addr(), err)
			}
		}()
	}
	return failed
}

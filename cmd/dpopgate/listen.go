package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"

	"github.com/dpopgate/dpopgate/config"
)

// The config keys of the listeners, as errors and logs name them.
const (
	httpKey  = "listen.http"
	adminKey = "listen.admin"
)

// listener is an address of the config that is listened on, and the server behind it.
type listener struct {
	net.Listener
	key    string // of the config
	server *http.Server
}

// bind listens on the address of a config key.
func bind(ctx context.Context, key, address string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err == nil {
		return l, nil
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
	return nil, fmt.Errorf("%s: listening on %s: %w%s", key, address, err, hint)
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

// serveAll runs the servers and returns the first error that is not their end.
func serveAll(listeners []*listener) <-chan error {
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() {
			if err := l.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("%s: serving on %s: %w", l.key, l.Addr(), err)
			}
		}()
	}
	return failed
}

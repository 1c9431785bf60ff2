package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// adminServer is what listens at listen.admin.
func (s *server) adminServer() *http.Server {
	mux := adminMux(s.ready, s.metrics)
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, r *http.Request) {
		answerJSON(w, http.StatusOK, newReport(s.tally, s.gateway.Routes(), r.URL.Query().Get("last") != "1h"))
	})
	s.mountStatus(mux)
	admin := newHTTPServer(s.guard.protect(mux), s.config.Limits, s.log, adminKey)
	admin.TLSConfig = s.guard.tlsConfig()
	return admin
}

// adminMux answers whether the process lives, whether it should get requests, and with its metrics.
func adminMux(ready *readiness, m *metrics) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.handler())
	for _, path := range []string{"/healthz", "/livez", "/ping"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { answerProbe(w, http.StatusOK, "ok\n") })
	}
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		var lines bytes.Buffer
		status, word := http.StatusOK, "ok\n"
		if !ready.report(&lines) {
			status, word = http.StatusServiceUnavailable, "not ready\n"
		}
		if r.URL.Query().Has("verbose") {
			word = lines.String()
		}
		answerProbe(w, status, word)
	})
	return mux
}

func answerProbe(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	io.WriteString(w, text)
}

// onlyNamed refuses, on a loopback address, requests whose Host is neither a loopback name nor the configured one. A
// web page can give its own host name the address 127.0.0.1 and so read what is here from its visitor's browser (DNS
// rebinding); what it cannot do is to send another Host.
func onlyNamed(next http.Handler, address string) http.Handler {
	configured, _, err := net.SplitHostPort(address)
	if err != nil || !isLoopbackHost(configured) {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		// No browser sends an empty Host; plain TCP probes of the old kind do.
		if host != "" && !isLoopbackHost(host) && !strings.EqualFold(host, configured) {
			answerProbe(w, http.StatusMisdirectedRequest, "this host is not served here\n")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLoopbackHost says whether a host without its port is this machine by name or address.
func isLoopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

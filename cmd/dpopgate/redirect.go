package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// What a CA asks for when it checks an HTTP-01 challenge (RFC 8555 §8.3).
const (
	challengePath = "/.well-known/acme-challenge/"
	// challengeLookups bounds how many ask the storage of certificates at a time, which anyone can make us do.
	challengeLookups = 16
	challengeTimeout = 2 * time.Second
)

// cleartext answers at listen.http while tls is on: it solves HTTP-01 challenges and sends everybody else to https. It
// never looks at a token, and forwards nothing.
type cleartext struct {
	bases map[string]string // by host without a port: the https URL without a path
	// solve answers a CA, or says that it has nothing to answer. nil: there are no challenges.
	solve   func(http.ResponseWriter, *http.Request) bool
	lookups chan struct{} // has room for those that may solve at a time
}

func newCleartext(publicURLs []string, solve func(http.ResponseWriter, *http.Request) bool) *cleartext {
	c := &cleartext{bases: map[string]string{}, solve: solve, lookups: make(chan struct{}, challengeLookups)}
	for _, raw := range publicURLs {
		u, err := url.Parse(raw)
		if err != nil {
			continue // validation has read it
		}
		if _, taken := c.bases[u.Hostname()]; !taken || u.Port() == "" {
			c.bases[u.Hostname()] = "https://" + u.Host
		}
	}
	return c
}

// ServeHTTP answers one request, the last of its connection.
func (c *cleartext) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	base, ok := c.bases[hostWithoutPort(r.Host)]
	switch {
	case !ok:
		refuseCleartext(w, http.StatusMisdirectedRequest, "host_unknown", "this host is not served here")
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace || r.RequestURI == "*":
		refuseCleartext(w, http.StatusMethodNotAllowed, "method_refused", "this method is not served here")
	case !strings.HasPrefix(r.RequestURI, "/"): // absolute-form, which is for proxies that forward anywhere
		refuseCleartext(w, http.StatusBadRequest, "target_ambiguous", "the target of the request is not a path")
	case c.solve != nil && strings.HasPrefix(r.RequestURI, challengePath):
		if !c.challenge(w, r) {
			refuseCleartext(w, http.StatusNotFound, "challenge_unknown", "there is no such challenge")
		}
	default:
		w.Header().Set("Location", base+r.RequestURI)
		w.WriteHeader(http.StatusPermanentRedirect)
	}
}

// challenge answers a CA. What is no token of a challenge costs nothing, and those that could be one wait for nobody.
func (c *cleartext) challenge(w http.ResponseWriter, r *http.Request) (solved bool) {
	token := strings.TrimPrefix(r.RequestURI, challengePath)
	if r.Method != http.MethodGet || !isBase64URL(token) {
		return false
	}
	select {
	case c.lookups <- struct{}{}:
		defer func() { <-c.lookups }()
	default:
		return false
	}
	ctx, cancel := context.WithTimeout(r.Context(), challengeTimeout)
	defer cancel()
	return c.solve(w, r.WithContext(ctx))
}

// isBase64URL says whether a text could be the token of a challenge (RFC 8555 §8.3).
func isBase64URL(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// hostWithoutPort is the host of a Host field in lower case, and an IPv6 address without its brackets.
func hostWithoutPort(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
}

// refuseCleartext answers in the form that the gateway's refusals have.
func refuseCleartext(w http.ResponseWriter, status int, reason, words string) {
	id := rand.Text()
	body, _ := json.Marshal(map[string]string{"error": reason, "error_description": words, "request_id": id}) // cannot fail
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Request-Id", id)
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

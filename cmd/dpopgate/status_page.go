package main

import (
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"time"
)

// The status page. Its looks are those of the playground, and what it has beside.
//
//go:embed status.html status.css status.js
var statusParts embed.FS

const (
	// statusEvery is how often the page is told what is new.
	statusEvery = 2 * time.Second
	// maxSubscribers is how many pages are told at a time. More ask again and again instead.
	maxSubscribers = 16
	// statusPatience is how long a page may take for what it is told.
	statusPatience = 10 * time.Second
)

// mountStatus adds the page, its parts, and what it asks for.
func (s *server) mountStatus(mux *http.ServeMux) {
	feed := &statusFeed{make: s.snapshot}
	for path, part := range map[string]struct {
		files fs.FS
		name  string
	}{
		"/{$}": {statusParts, "status.html"}, "/status.css": {statusParts, "status.css"}, "/status.js": {statusParts, "status.js"},
		"/page.css": {pageParts, "demo.css"}, "/page.svg": {pageParts, "demo.svg"},
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			setPageHeaders(w.Header())
			http.ServeFileFS(w, r, part.files, part.name)
		})
	}
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Write(feed.now())
	})
	mux.Handle("GET /events", &statusEvents{feed: feed, room: make(chan struct{}, maxSubscribers)})
}

// statusEvents tells pages what is new, as server-sent events.
type statusEvents struct {
	feed *statusFeed
	room chan struct{}
}

// ServeHTTP implements http.Handler. It ends with the connection or the server.
func (e *statusEvents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case e.room <- struct{}{}:
		defer func() { <-e.room }()
	default:
		w.Header().Set("Retry-After", "10")
		answerProbe(w, http.StatusServiceUnavailable, "too many pages are open\n")
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		out.SetWriteDeadline(time.Now().Add(statusPatience))
		if _, err := fmt.Fprintf(w, "data: %s\n\n", e.feed.now()); err != nil || out.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

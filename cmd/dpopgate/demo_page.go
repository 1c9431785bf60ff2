package main

import (
	"embed"
	"encoding/json"
	"html/template"
	"net/http"
)

// The playground: the page at the demo's /, and its parts below /demo/.
//
//go:embed demo.html demo.css demo.js demo.svg
var pageParts embed.FS

var pageTemplate = template.Must(template.ParseFS(pageParts, "demo.html"))

// pageFiles is where the parts of the page are, and what it asks the demo itself.
const pageFiles = "/demo/"

// pagePolicy lets the page load its own three parts and ask its own host; no script can be slipped in, by markup neither.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// upstream is what stands behind the gateway: the sample API, and the page. The page is there, behind public routes, so
// that the gateway of the demo is no other than the real one.
func (d *demo) upstream() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/orders/", d.api)
	mux.HandleFunc("GET /{$}", d.servePage)
	for _, name := range []string{"demo.css", "demo.js", "demo.svg"} {
		mux.HandleFunc("GET "+pageFiles+name, func(w http.ResponseWriter, r *http.Request) {
			setPageHeaders(w.Header())
			http.ServeFileFS(w, r, pageParts, name)
		})
	}
	mux.HandleFunc("GET "+pageFiles+"seen", d.serveSeen)
	// Pages of other hosts could not read a token, but they could use up those that there are.
	mux.Handle("POST "+pageFiles+"token", http.NewCrossOriginProtection().Handler(d.issuer))
	return mux
}

func (d *demo) servePage(w http.ResponseWriter, _ *http.Request) {
	setPageHeaders(w.Header())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	pageTemplate.Execute(w, struct {
		URL, Command string
		Commands     []demoCommand
	}{d.url, d.command, d.commands()})
}

// serveSeen tells the page how many requests have reached the sample API, which is how it shows that a refused one did not.
func (d *demo) serveSeen(w http.ResponseWriter, _ *http.Request) {
	answerJSON(w, http.StatusOK, struct {
		Requests int64 `json:"requests"`
	}{d.api.seen.Load()})
}

func setPageHeaders(h http.Header) {
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache") // the next demo on this port may be another version
}

// answerJSON answers with what nobody may keep.
func answerJSON(w http.ResponseWriter, status int, says any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(says)
}

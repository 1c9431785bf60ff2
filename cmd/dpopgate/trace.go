package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// tracer is a RoundTripper that says what goes out, with proofs decoded and tokens left out, and what comes back. As
// it stands below dpop.Transport, a request that is sent once more for a nonce is seen twice.
type tracer struct {
	base http.RoundTripper
	w    io.Writer
}

// RoundTrip implements http.RoundTripper.
func (t *tracer) RoundTrip(r *http.Request) (*http.Response, error) {
	fmt.Fprintf(t.w, "> %s %s\n", r.Method, visible(r.URL.Redacted()))
	for _, value := range r.Header.Values("Authorization") {
		scheme, token, _ := strings.Cut(value, " ")
		fmt.Fprintf(t.w, "> Authorization: %s [token of %d characters]\n", scheme, len(token))
	}
	for _, value := range r.Header.Values("DPoP") {
		fmt.Fprintf(t.w, "> DPoP: a proof\n%s", prefixed(">   ", decodeProof(value)))
	}
	res, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(t.w, "< %s\n", visible(res.Status))
	for _, name := range []string{"WWW-Authenticate", "DPoP-Nonce", "X-Request-Id"} {
		for _, value := range res.Header.Values(name) {
			fmt.Fprintf(t.w, "< %s: %s\n", name, visible(value))
		}
	}
	if res.Header.Get("DPoP-Nonce") != "" && strings.Contains(res.Header.Get("WWW-Authenticate"), `error="use_dpop_nonce"`) {
		fmt.Fprintln(t.w, "* the server asks for a proof with its nonce")
	}
	return res, nil
}

// decodeProof is the header and the claims of a proof for people. It leaves the signature out: what it shows cannot be
// sent by anybody.
func decodeProof(proof string) string {
	var b bytes.Buffer
	for i, part := range strings.SplitN(proof, ".", 3) {
		if i == 2 {
			break
		}
		text, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil || json.Indent(&b, text, "", "  ") != nil {
			return "not a JWT\n"
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// prefixed is text with a prefix on each line.
func prefixed(prefix, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(prefix + line)
	}
	return b.String()
}

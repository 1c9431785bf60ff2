package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/dpopgate/dpopgate/dpop"
)

// scene is one request of the story, and how it must come out.
type scene struct {
	title  string
	method string
	path   string
	send   func(t *theft, r *http.Request) (*http.Response, error)
	status int
	code   dpop.Code // empty: let through
}

// scenes are the story. The first is let through, and its proof is what the thief replays.
func (d *demo) scenes() []scene {
	var overheard string
	client := func(t *theft, r *http.Request) (*http.Response, error) {
		return (&dpop.Transport{Key: t.key, Token: t.token, Base: t.base}).RoundTrip(r)
	}
	return []scene{
		{
			title: "The client sends its token and a fresh proof by its key", method: http.MethodGet, path: "/orders/",
			send: func(t *theft, r *http.Request) (*http.Response, error) {
				wire := &recorder{base: t.base}
				res, err := client(&theft{key: t.key, token: t.token, base: wire}, r)
				if wire.sent != nil {
					overheard = wire.sent.Header.Get("DPoP")
				}
				return res, err
			},
			status: http.StatusOK,
		},
		{
			title: "A thief has the token and sends it alone", method: http.MethodGet, path: "/orders/",
			send: attackNamed("no-proof"), status: http.StatusUnauthorized, code: dpop.InvalidProof,
		},
		{
			title: "The thief signs a proof with a key of their own", method: http.MethodGet, path: "/orders/",
			send: attackNamed("stolen-token"), status: http.StatusUnauthorized, code: dpop.InvalidToken,
		},
		{
			title: "The thief has overheard the first request and sends the same proof again", method: http.MethodGet, path: "/orders/",
			send: func(t *theft, r *http.Request) (*http.Response, error) {
				return t.present(r, dpop.SchemeDPoP, overheard)
			},
			status: http.StatusUnauthorized, code: dpop.InvalidProof,
		},
		{
			title: "The client itself wants more than its token allows", method: http.MethodPost, path: "/orders/1001/refund",
			send: client, status: http.StatusForbidden, code: dpop.InsufficientScope,
		},
	}
}

func attackNamed(name string) func(*theft, *http.Request) (*http.Response, error) {
	a, err := findAttack(name)
	if err != nil {
		panic(err)
	}
	return a.send
}

// storyAgent is the User-Agent of the story's requests: others may come in meanwhile, and must not be taken for them.
const storyAgent = "dpopgate demo"

// play plays the story over HTTP, and fails where it does not come out as it must.
func (d *demo) play(ctx context.Context) error {
	in := d.ink
	fmt.Fprintf(d.out, `
%[1]sdpopgate demo%[2]s: a stolen token is of no use without the key it is bound to

  legacy API  %[3]s/orders/, which asks nobody for anything
  gateway     %[4]s/orders/, which wants a token and a proof
  token       bound to key %[5]s, with the scope orders:read

`, in.bold, in.reset, d.apiURL, d.url, short(string(d.key.Thumbprint())))
	base := newCallTransport()
	for i, s := range d.scenes() {
		fmt.Fprintf(d.out, "%s%d  %s%s\n\n", in.bold, i+1, s.title, in.reset)
		if err := d.playScene(ctx, s, base); err != nil {
			return fmt.Errorf("the demo went wrong in scene %d: %w", i+1, err)
		}
	}
	return nil
}

func (d *demo) playScene(ctx context.Context, s scene, base http.RoundTripper) error {
	before := d.api.story.Load()
	r, err := http.NewRequestWithContext(ctx, s.method, d.url+s.path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("User-Agent", storyAgent)
	wire := &recorder{base: base}
	res, err := s.send(&theft{key: d.key, token: string(d.token), base: wire, say: io.Discard}, r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxSmall))
	if err != nil {
		return err
	}
	d.showSent(wire.sent)
	said := readAnswer(res, body)
	if res.StatusCode != s.status || said.Error != string(s.code) {
		return fmt.Errorf("expected %d %s, but the answer was %s", s.status, s.code, said)
	}
	reached := d.api.story.Load() - before
	if s.code == "" {
		if reached != 1 {
			return fmt.Errorf("the legacy API saw %s, expected 1", plural(int(reached), "request"))
		}
		return d.showPassed(res, body)
	}
	if reached != 0 {
		return errors.New("the legacy API saw a request that was refused")
	}
	d.showRefused(res, said)
	return nil
}

// showSent shows a request: the token cut short, the proof decoded.
func (d *demo) showSent(r *http.Request) {
	in := d.ink
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	fmt.Fprintf(d.out, "   %s%s %s\n   Authorization: %s %s\n", in.dim, r.Method, r.URL, scheme, short(token))
	if raw := r.Header.Get("DPoP"); raw != "" {
		if p, err := dpop.Parse(raw, dpop.Algorithms{dpop.ES256}); err == nil {
			fmt.Fprintf(d.out, "   DPoP: %s %s, %s\n         jti %s, signed by key %s\n",
				p.HTM, p.HTU, p.IssuedAt.Format("15:04:05"), p.JTI, short(string(p.Thumbprint)))
		}
	}
	fmt.Fprintf(d.out, "%s\n", in.reset)
}

// showPassed shows what the legacy API says it was told.
func (d *demo) showPassed(res *http.Response, body []byte) error {
	var says orderAnswer
	if err := json.Unmarshal(body, &says); err != nil {
		return fmt.Errorf("reading the legacy API's answer: %w", err)
	}
	told := says.Caller
	switch {
	case told.Identity["X-Auth-Subject"] != demoUser.String():
		return errors.New("the legacy API was not told who calls")
	case told.Authorization || told.DPoP:
		return errors.New("the legacy API saw the client's credentials")
	}
	in := d.ink
	fmt.Fprintf(d.out, "   %s✓ %s%s: let through. The legacy API was told who calls:\n", in.green, visible(res.Status), in.reset)
	for _, name := range slices.Sorted(maps.Keys(told.Identity)) {
		fmt.Fprintf(d.out, "     %-18s %s\n", name, visible(told.Identity[name]))
	}
	fmt.Fprintf(d.out, "     It saw neither the token nor the proof.\n\n")
	return nil
}

// showRefused shows why.
func (d *demo) showRefused(res *http.Response, said answer) {
	in := d.ink
	fmt.Fprintf(d.out, "   %s✗ %s%s: %s\n", in.red, visible(res.Status), in.reset, visible(said.Error))
	for _, line := range wrap("Why: "+visible(said.Description)+".", 74) {
		fmt.Fprintf(d.out, "     %s\n", line)
	}
	fmt.Fprintf(d.out, "     The legacy API saw nothing of it: still %s.\n\n", plural(int(d.api.story.Load()), "request"))
}

// short is the start of something long and random.
func short(s string) string {
	if len(s) <= 8 {
		return s
	}
	return s[:8] + "…"
}

// wrap breaks text into lines of at most width bytes, where its words allow.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// ink is how a terminal is told to write; empty elsewhere.
type ink struct{ bold, dim, red, green, reset string }

// newInk is plain unless stdout is a terminal and nobody asked for no colours (no-color.org).
func newInk(e *env) ink {
	if no, _ := e.lookup("NO_COLOR"); no != "" || !e.terminal {
		return ink{}
	}
	return ink{bold: "\x1b[1m", dim: "\x1b[2m", red: "\x1b[31m", green: "\x1b[32m", reset: "\x1b[0m"}
}

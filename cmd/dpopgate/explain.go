package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// captured is a request as somebody has written it down.
type captured struct {
	method, target, token, proof, headers, at string
	bearer                                    bool
}

func newExplainCommand(e *env) *cobra.Command {
	var file, reason string
	var asJSON bool
	var c captured
	cmd := &cobra.Command{
		Use:   "explain (--method METHOD --url URL [--token TOKEN --proof PROOF | --headers FILE] | --reason WORD)",
		Short: "Say what the gateway makes of a captured request, check by check",
		Long: "Takes a request through every check that serve makes, by the same code and with the same config and store, without\n" +
			"sending it and without using its proof up, and prints a line for each check. --at is when it came, as the access log\n" +
			"has it. A nonce can only be judged with the dpop.nonce_key of the gateway that gave it. The exit code is 0 only if\n" +
			"the gateway would let the request through. With --reason it says what a reason of the log or the metrics means, its\n" +
			"usual cause, and what to do; --reason list has them all.",
		Example: "  dpopgate explain --method GET --url https://api.example.com/orders/ --at 2026-11-24T10:00:00Z --headers request.txt\n" +
			"  dpopgate explain --reason htu_mismatch",
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if reason != "" {
				return teach(e, reason, asJSON)
			}
			if err := wantFlags(cmd, "method", "url"); err != nil {
				return err
			}
			r, at, err := c.request(e)
			if err != nil {
				return err
			}
			return withTokens(cmd.Context(), file, func(ctx context.Context, conf *config.Config, store tokenstore.Store) error {
				g, err := proxy.New(conf, proxy.Options{Tokens: store, Digester: digesterOf(conf.Store), Replay: cache.NewProofs(0, nil), Offline: true})
				if err != nil {
					return err
				}
				defer g.Close()
				x := g.Explain(ctx, r, at)
				if asJSON {
					err = json.NewEncoder(e.stdout).Encode(x.Checks)
				} else {
					err = printExplanation(e.stdout, x, at)
				}
				if err == nil && !x.Allowed {
					err = errors.New("the gateway would refuse this request")
				}
				return err
			})
		},
	}
	configFlag(cmd, &file)
	f := cmd.Flags()
	f.StringVar(&c.method, "method", "", "the `METHOD` of the request")
	f.StringVar(&c.target, "url", "", "the `URL` that the client called")
	f.StringVar(&c.token, "token", "", "the access `TOKEN`, or - to read it from stdin")
	f.StringVar(&c.proof, "proof", "", "the `PROOF` of the DPoP header, or - to read it from stdin")
	f.BoolVar(&c.bearer, "bearer", false, "the token was sent as Bearer")
	f.StringVar(&c.headers, "headers", "", "a `FILE` with the header lines of the request, Authorization and DPoP among them; - is stdin")
	f.StringVar(&c.at, "at", "", "when the request came: `TIME` as RFC 3339 (default now)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.StringVar(&reason, "reason", "", "say what this `WORD` means, or list them all with list")
	for _, name := range []string{"method", "url", "token", "proof", "headers", "at", "bearer"} {
		cmd.MarkFlagsMutuallyExclusive("reason", name)
	}
	completeWith(cmd, "reason", func() []string {
		names := []string{"list"}
		for _, l := range allLessons() {
			names = append(names, string(l.Reason))
		}
		return names
	})
	cmd.MarkFlagsMutuallyExclusive("headers", "token")
	cmd.MarkFlagsMutuallyExclusive("headers", "proof")
	return cmd
}

// teach prints what there is to know about a reason, or about all of them.
func teach(e *env, reason string, asJSON bool) error {
	if reason == "list" {
		if asJSON {
			return printJSON(e.stdout, allLessons())
		}
		var b strings.Builder
		for _, c := range chapters {
			fmt.Fprintf(&b, "\n%s\n", c.title)
			for _, l := range c.lessons {
				b.WriteString(wrapped(fmt.Sprintf("  %-21s ", l.Reason), l.Cause) + "\n")
			}
		}
		_, err := io.WriteString(e.stdout, b.String())
		return err
	}
	l, err := reasonNamed(reason)
	switch {
	case err != nil:
		return err
	case asJSON:
		return printJSON(e.stdout, l)
	default:
		return printLesson(e.stdout, l)
	}
}

// request makes an http.Request of what was captured, and the time at which it came.
func (c *captured) request(e *env) (*http.Request, time.Time, error) {
	at := time.Now()
	if c.at != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, c.at); err != nil {
			return nil, at, usagef("--at %s: want a time such as 2026-11-24T10:00:00Z", c.at)
		}
	}
	u, err := url.Parse(c.target)
	if err != nil || u.Host == "" {
		return nil, at, usagef("--url: want an absolute URL, as the client called it")
	}
	if c.token == "-" && c.proof == "-" {
		return nil, at, usagef("--token and --proof cannot both be read from stdin; --headers takes both from one file")
	}
	h, err := c.header(e)
	if err != nil {
		return nil, at, err
	}
	return &http.Request{Method: c.method, URL: u, Host: u.Host, Header: h, Proto: "HTTP/1.1"}, at, nil
}

// header is the header lines of the request.
func (c *captured) header(e *env) (http.Header, error) {
	h := http.Header{}
	if c.headers != "" {
		text, err := readSmall(e, c.headers)
		if err != nil {
			return nil, err
		}
		for scan := bufio.NewScanner(strings.NewReader(string(text))); scan.Scan(); {
			name, value, ok := strings.Cut(scan.Text(), ":")
			if !ok {
				continue // a request line, or the empty one at the end
			}
			h.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		}
		return h, nil
	}
	token, err := c.secret(e, c.token)
	if err != nil {
		return nil, err
	}
	proof, err := c.secret(e, c.proof)
	if err != nil {
		return nil, err
	}
	if token != "" {
		scheme := "DPoP "
		if c.bearer {
			scheme = "Bearer "
		}
		h.Set("Authorization", scheme+token)
	}
	if proof != "" {
		h.Set("DPoP", proof)
	}
	return h, nil
}

// secret is a flag's value, or what stdin holds when that is -.
func (c *captured) secret(e *env, value string) (string, error) {
	if value != "-" {
		return value, nil
	}
	text, err := readSmall(e, "-")
	return strings.TrimSpace(string(text)), err
}

// marks of the outcomes, and remarks on those that need one.
var (
	marks   = map[proxy.Outcome]string{proxy.CheckPassed: "✓", proxy.CheckFailed: "✗", proxy.CheckNotReached: "·", proxy.CheckNotNeeded: "-"}
	remarks = map[proxy.Outcome]string{proxy.CheckNotReached: "not reached", proxy.CheckNotNeeded: "not needed here"}
)

// elsewhere is what the checks are about that need the running gateway.
var elsewhere = map[string]string{
	"single use": "whether the proof was used before",
	"size":       "how large its body is",
	"rate":       "how many requests came before",
}

// printExplanation prints a line for each check, and the verdict.
func printExplanation(w io.Writer, x proxy.Explanation, at time.Time) error {
	var b strings.Builder
	if ev := x.Event; ev.Thumbprint != "" {
		fmt.Fprintf(&b, "proof by key %s, %s, iat %s\n", ev.Thumbprint, ev.Algorithm, at.Add(ev.Offset).UTC().Format(time.RFC3339))
	}
	for _, c := range x.Checks {
		said := remarks[c.Outcome]
		if words := elsewhere[c.Name]; words != "" && c.Outcome == proxy.CheckNotNeeded {
			said = "not checked: " + words + ", only the running gateway knows"
		}
		if c.Outcome == proxy.CheckFailed {
			said = c.Words
		}
		b.WriteString(strings.TrimRight(fmt.Sprintf("%s %-12s %s", marks[c.Outcome], c.Name, said), " ") + "\n")
		if c.Expected != "" || c.Found != "" {
			fmt.Fprintf(&b, "  %-12s expected %q\n  %-12s found    %q\n", "", c.Expected, "", c.Found)
		}
		if c.Outcome == proxy.CheckFailed {
			fmt.Fprintf(&b, "  %-12s reason   %s\n", "", c.Reason)
			if l, ok := lessonOf(c.Reason); ok {
				under := strings.Repeat(" ", 15)
				b.WriteString(wrapped(under+"cause    ", l.Cause) + "\n" + wrapped(under+"fix      ", l.Fix) + "\n")
			}
		}
	}
	switch {
	case x.Allowed && x.Status != 0:
		fmt.Fprintf(&b, "let through, since the route is in mode report; enforced: %d %s\n", x.Status, x.Code)
	case x.Allowed:
		b.WriteString("let through\n")
	case x.Code != "":
		fmt.Fprintf(&b, "refused: %d %s\n", x.Status, x.Code)
	default:
		fmt.Fprintf(&b, "refused: %d\n", x.Status)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

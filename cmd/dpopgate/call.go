package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/dpop"
)

// call is one request to send, as the command line has it.
type call struct {
	method  string
	headers []string
	data    string
	hasData bool
	keyFile string
	token   string
	attack  string
	include bool
	verbose bool
}

func newCallCommand(e *env) *cobra.Command {
	c := &call{}
	cmd := &cobra.Command{
		Use:   "call [flags] --key FILE --token TOKEN|- URL",
		Short: "Send a request with a token and a fresh proof: a curl that signs",
		Long: "Sends one request with an access token and a fresh DPoP proof, once more when the server asks for a nonce, and\n" +
			"prints the body of the answer. Redirects are not followed. Against a running `dpopgate demo` it needs neither key\n" +
			"nor token.\n\n" +
			"With --attack it sends what a thief would, and succeeds when that is refused:\n" + attackList(),
		Example: `  dpopgate call --key client.jwk --token - https://api.example.com/orders/ <token
  dpopgate call --attack stolen-token http://localhost:8080/orders/`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.hasData = cmd.Flags().Changed("data")
			return c.run(cmd.Context(), e, args[0], cmd.Flags().Changed)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&c.method, "request", "X", "", "the `METHOD`; by default GET, or POST with -d")
	f.StringArrayVarP(&c.headers, "header", "H", nil, "a `HEADER` to send, as \"Name: value\"; can be repeated")
	f.StringVarP(&c.data, "data", "d", "", "the body: `DATA`, @FILE, or @- for stdin")
	f.StringVar(&c.keyFile, "key", "", "the client's private key, JWK or PEM, in this `FILE`")
	f.StringVar(&c.token, "token", "", "the access `TOKEN`, or - to read it from stdin")
	f.StringVar(&c.attack, "attack", "", "send what a thief would: `HOW` is one of "+strings.Join(attackNames(), ", "))
	f.BoolVarP(&c.include, "include", "i", false, "print the status and the header of the answer too")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "say what is sent, decoded, and what comes back (on stderr)")
	cmd.RegisterFlagCompletionFunc("attack", cobra.FixedCompletions(attackNames(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (c *call) run(ctx context.Context, e *env, target string, given func(flag string) bool) error {
	how, err := findAttack(c.attack)
	if err != nil {
		return err
	}
	u, err := callURL(target)
	if err != nil {
		return err
	}
	if c.token == "-" && (c.data == "@-" || c.keyFile == "-") || c.data == "@-" && c.keyFile == "-" {
		return usagef("only one of --token, --key and --data can be read from stdin")
	}
	key, token, err := c.credentials(e, u, given)
	if err != nil {
		return err
	}
	r, err := c.request(ctx, e, u)
	if err != nil {
		return err
	}
	var base http.RoundTripper = newCallTransport()
	if c.verbose {
		base = &tracer{base: base, w: e.stderr}
	}
	if how != nil {
		return c.play(e, how, &theft{key: key, token: token, base: base, say: e.stderr}, r)
	}
	res, err := (&dpop.Transport{Key: key, Token: token, Base: base}).RoundTrip(r)
	if err != nil {
		return fmt.Errorf("sending the request: %w", err)
	}
	defer res.Body.Close()
	said, err := c.print(e.stdout, res)
	if err != nil {
		return err
	}
	if res.StatusCode >= http.StatusBadRequest {
		return errors.New(said.String())
	}
	return nil
}

// play sends an attack and judges the answer. It is no error when that is a refusal.
func (c *call) play(e *env, how *attack, t *theft, r *http.Request) error {
	fmt.Fprintf(e.stderr, "%s: sending %s\n", how.name, how.sends)
	res, err := how.send(t, r)
	if err != nil {
		return fmt.Errorf("%s: %w", how.name, err)
	}
	defer res.Body.Close()
	said, err := c.print(e.stdout, res)
	if err != nil {
		return err
	}
	switch judge(res) {
	case refused:
		fmt.Fprintf(e.stderr, "%s: refused, as it must be: %s\n%s: %s\n", how.name, said, how.name, how.lesson)
		return nil
	case letThrough:
		return fmt.Errorf("%s: NOT refused: %s", how.name, said)
	default:
		return fmt.Errorf("%s: this answer says nothing about the attack: %s", how.name, said)
	}
}

// credentials are the key and the token to send: those of the flags, or without both those of a demo at that URL.
func (c *call) credentials(e *env, u *url.URL, given func(flag string) bool) (*dpop.Key, string, error) {
	if !given("key") && !given("token") {
		return readDemoCredentials(u)
	}
	if !given("key") || !given("token") {
		return nil, "", usagef("--key and --token go together")
	}
	key, err := readKey(e, c.keyFile)
	if err != nil {
		return nil, "", err
	}
	token, err := readToken(e, c.token)
	return key, token, err
}

// request is what to send, without credentials. Its body can be sent again.
func (c *call) request(ctx context.Context, e *env, u *url.URL) (*http.Request, error) {
	method := c.method
	var body io.Reader
	var data []byte
	if c.hasData {
		var err error
		if data, err = readData(e, c.data); err != nil {
			return nil, fmt.Errorf("reading the body: %w", err)
		}
		body = bytes.NewReader(data)
		if method == "" {
			method = http.MethodPost
		}
	}
	if method == "" {
		method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, usageError{err}
	}
	r.Header.Set("User-Agent", "dpopgate")
	r.Header.Set("Accept", "*/*")
	if c.hasData {
		r.Header.Set("Content-Type", mediaType(data))
	}
	return r, setHeaders(r, c.headers)
}

// setHeaders sets the headers of the command line. One that is repeated is sent repeated.
func setHeaders(r *http.Request, lines []string) error {
	replaced := map[string]bool{}
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		name = http.CanonicalHeaderKey(strings.TrimSpace(name))
		switch value = strings.TrimSpace(value); {
		case !ok || name == "":
			return usagef(`-H wants "Name: value"`)
		case name == "Authorization" || name == "Dpop":
			return usagef("-H %s: call writes that header itself, from --token and --key", name)
		case name == "Host":
			r.Host = value
			continue
		case !replaced[name]:
			r.Header.Del(name)
			replaced[name] = true
		}
		r.Header.Add(name, value)
	}
	return nil
}

// readData is the body that -d means.
func readData(e *env, data string) ([]byte, error) {
	switch file, ok := strings.CutPrefix(data, "@"); {
	case !ok:
		return []byte(data), nil
	case file == "-":
		return io.ReadAll(e.stdin)
	default:
		return os.ReadFile(file)
	}
}

// mediaType is JSON for what is a JSON object or array, and else what curl sends.
func mediaType(data []byte) string {
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') && json.Valid(data) {
		return "application/json"
	}
	return "application/x-www-form-urlencoded"
}

// callURL reads the URL to call. Without a scheme it is http on this machine and https elsewhere.
func callURL(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		host, _, _ := strings.Cut(text, "/")
		scheme := "https"
		if u, err := url.Parse("http://" + host); err == nil && isLoopbackHost(u.Hostname()) {
			scheme = "http"
		}
		text = scheme + "://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, which may hold a secret
		}
		return nil, usageError{fmt.Errorf("the URL: %w", err)}
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, usagef("the URL is not one of http or https with a host")
	case u.User != nil:
		return nil, usagef("the URL holds a user: requests are signed with --key and --token instead")
	}
	return u, nil
}

// newCallTransport leaves compression alone: what the server sends is what is printed.
func newCallTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true
	t.DisableKeepAlives = true
	return t
}

// print writes the answer as it comes in, and keeps what it says about an error.
func (c *call) print(w io.Writer, res *http.Response) (answer, error) {
	if c.include {
		fmt.Fprintf(w, "%s %s\r\n", res.Proto, res.Status)
		res.Header.Write(w)
		io.WriteString(w, "\r\n")
	}
	var start head
	if _, err := io.Copy(w, io.TeeReader(res.Body, &start)); err != nil {
		return answer{}, fmt.Errorf("passing the answer on: %w", err)
	}
	return readAnswer(res, start.b), nil
}

// head keeps the start of what is written to it.
type head struct{ b []byte }

func (h *head) Write(p []byte) (int, error) {
	h.b = append(h.b, p[:min(len(p), maxSmall-len(h.b))]...)
	return len(p), nil
}

package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

//go:embed demo.yaml
var demoConfig []byte

func newDemoCommand(e *env) *cobra.Command {
	var listen string
	var once, printConfig bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show it all in one process: nothing to configure, nothing to install",
		Long: "Starts a sample legacy API, an embedded token store and the gateway before them, plays what gets through and what\n" +
			"does not, and goes on serving until Ctrl-C, which leaves nothing behind.",
		Example: "  dpopgate demo --listen 127.0.0.1:9090",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if printConfig {
				_, err := e.stdout.Write(demoConfig)
				return err
			}
			return runDemo(cmd.Context(), e, listen, once)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8080", "the `HOST:PORT` of the gateway, on this machine; port 0: any that is free")
	cmd.Flags().BoolVar(&once, "once", false, "play the story and end")
	cmd.Flags().BoolVar(&printConfig, "print-config", false, "print the gateway's config and end")
	return cmd
}

// runDemo starts everything, plays the story, and serves until it is told to stop. All that it makes is gone when it
// returns.
func runDemo(ctx context.Context, e *env, listen string, once bool) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// A closed terminal or pipe ends the demo as Ctrl-C does, or else it would leave its files behind.
	signals, release := e.signals(slices.Concat(stopping, []os.Signal{syscall.SIGHUP, syscall.SIGPIPE})...)
	defer release()
	go func() {
		select {
		case <-signals:
			stop()
		case <-ctx.Done():
		}
	}()
	d, err := startDemo(ctx, e, listen)
	defer d.close()
	if err == nil {
		err = d.play(ctx)
	}
	if err == nil && !once {
		d.invite()
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// demo is a running demo.
type demo struct {
	out     io.Writer
	ink     ink
	command string // how this program is called

	url     string
	api     *orderAPI
	apiURL  string
	keyFile string
	key     *dpop.Key
	token   tokenstore.Token
	record  *tokenstore.Record

	live   live
	closes []func() // last first
}

// startDemo starts all parts. The demo it returns has to be closed also when there is an error.
func startDemo(ctx context.Context, e *env, listen string) (*demo, error) {
	d := &demo{out: e.stdout, ink: newInk(e), command: invocation(e), api: newOrderAPI()}
	host, listeners, err := demoListen(listen)
	if err != nil {
		return d, err
	}
	d.url = "http://" + host
	for _, l := range listeners {
		d.onClose(func() { l.Close() })
	}
	_, port, _ := net.SplitHostPort(host)
	folder, err := os.MkdirTemp("", "dpopgate-demo-")
	if err != nil {
		return d, fmt.Errorf("making a temporary folder: %w", err)
	}
	d.onClose(func() { os.RemoveAll(folder) })
	if err := d.startAPI(); err != nil {
		return d, fmt.Errorf("starting the sample API: %w", err)
	}
	s, err := d.startGateway(ctx, map[string]string{"DEMO_PORT": port, "DEMO_FOLDER": folder, "DEMO_ORDERS": d.apiURL})
	if err != nil {
		return d, err
	}
	d.keyFile = filepath.Join(folder, "client.jwk")
	if err := d.leaveCredentials(port); err != nil {
		return d, fmt.Errorf("writing the client's credentials: %w", err)
	}
	for _, l := range listeners {
		d.serve(l, newHTTPServer(s.gateway, s.config.Limits, s.log, httpKey))
	}
	return d, nil
}

// onClose has f done when the demo ends, before all that was started earlier.
func (d *demo) onClose(f func()) { d.closes = append(d.closes, f) }

func (d *demo) close() {
	for _, f := range slices.Backward(d.closes) {
		f()
	}
}

// startAPI serves the sample API, and the page about the demo, on a free port.
func (d *demo) startAPI() error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.apiURL = "http://" + l.Addr().String()
	mux := http.NewServeMux()
	mux.Handle("/orders/", d.api)
	mux.Handle("GET /{$}", demoPage(d.url, d.commands()))
	d.serve(l, newHTTPServer(mux, config.Limits{}, slog.New(slog.DiscardHandler), "demo"))
	return nil
}

// serve serves until the demo ends; requests under way then have a second.
func (d *demo) serve(l net.Listener, server *http.Server) {
	go server.Serve(l)
	d.onClose(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	})
}

// startGateway wires the gateway as `serve` does, and issues a token to a new client.
func (d *demo) startGateway(ctx context.Context, variables map[string]string) (*server, error) {
	c, err := config.Parse("demo.yaml", demoConfig, func(name string) (string, bool) {
		value, ok := variables[name]
		return value, ok
	})
	if err != nil {
		return nil, err
	}
	// started stays zero: the token is as old as this process, so no proof for it was used before a restart.
	s := &server{config: c, log: slog.New(slog.DiscardHandler)}
	if err := s.wire(ctx, d.live.write); err != nil {
		return nil, err
	}
	d.onClose(s.close)
	if err := d.issue(ctx, s.store, digesterOf(c.Store)); err != nil {
		return nil, fmt.Errorf("issuing a token: %w", err)
	}
	return s, nil
}

// The client and the user that the demo's token is for.
var (
	demoClient = uuid.MustParse("c11e4700-0000-4000-8000-000000000001")
	demoUser   = uuid.MustParse("a11ce000-0000-4000-8000-000000000002")
)

// demoLife is how long the demo's token is good: longer than anybody looks at a demo.
const demoLife = 24 * time.Hour

func (d *demo) issue(ctx context.Context, store tokenstore.Store, digester tokenstore.Digester) error {
	key, err := dpop.NewKey(dpop.ES256)
	if err != nil {
		return err
	}
	d.key, d.token = key, tokenstore.NewToken()
	d.record = &tokenstore.Record{
		Digest:    digester.Digest(d.token),
		ClientID:  demoClient,
		UserID:    uuid.NullUUID{UUID: demoUser, Valid: true},
		TokenType: tokenstore.DPoP,
		DPoPJKT:   string(key.Thumbprint()),
		Scopes:    []string{"orders:read"},
		ExpiresAt: time.Now().Add(demoLife),
	}
	return store.Insert(ctx, d.record)
}

// leaveCredentials writes the key for whoever wants to sign with a program of their own, and key and token for `call`.
func (d *demo) leaveCredentials(port string) error {
	if err := createKeyFile(d.keyFile, d.key); err != nil {
		return err
	}
	jwk, err := d.key.JWK()
	if err != nil {
		return err
	}
	remove, err := writeDemoCredentials(port, demoCredentials{Token: string(d.token), Key: jwk})
	if err != nil {
		return err
	}
	d.onClose(remove)
	return nil
}

// demoCommand is a command to paste, and what it does.
type demoCommand struct{ What, Line string }

func (d *demo) commands() []demoCommand {
	return []demoCommand{
		{"The client, let through", d.command + " call " + d.url + "/orders/"},
		{"A thief with the token and another key, refused", d.command + " call --attack stolen-token " + d.url + "/orders/"},
		{"A refund, which the token has no scope for", d.command + " call -X POST " + d.url + "/orders/1001/refund"},
	}
}

// invite says how to go on by hand, and starts to show what the gateway decides.
func (d *demo) invite() {
	in := d.ink
	fmt.Fprintf(d.out, "%sThe demo goes on%s at %s with\n\n  token  %s\n  key    %s\n\nTo paste in another terminal:\n\n",
		in.bold, in.reset, d.url, string(d.token), d.keyFile)
	for _, c := range d.commands() {
		fmt.Fprintf(d.out, "  %s# %s%s\n  %s\n\n", in.dim, c.What, in.reset, c.Line)
	}
	fmt.Fprintf(d.out, "Ctrl-C ends the demo and leaves nothing behind. What the gateway decides:\n\n")
	d.live.start(d.out, in)
}

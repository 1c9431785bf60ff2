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

	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

//go:embed demo.yaml
var demoConfig []byte

func newDemoCommand(e *env) *cobra.Command {
	o := demoOptions{config: demoConfig}
	var printConfig bool
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
			return runDemo(cmd.Context(), e, o)
		},
	}
	cmd.Flags().StringVar(&o.listen, "listen", "127.0.0.1:8080", "the `HOST:PORT` of the gateway, on this machine; port 0: any that is free")
	cmd.Flags().BoolVar(&o.once, "once", false, "play the story and end")
	cmd.Flags().BoolVar(&printConfig, "print-config", false, "print the gateway's config and end")
	return cmd
}

// demoOptions are what a demo is started with.
type demoOptions struct {
	listen string
	once   bool
	config []byte // of the gateway
}

// runDemo starts everything, plays the story, and serves until it is told to stop. All that it makes is gone when it
// returns.
func runDemo(ctx context.Context, e *env, o demoOptions) error {
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
	d, err := startDemo(ctx, e, o)
	defer d.close()
	if err == nil {
		err = d.play(ctx)
	}
	if err == nil && !o.once {
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
	issuer  *demoIssuer
	keyFile string
	key     *dpop.Key
	token   tokenstore.Token

	live   live
	closes []func() // last first
}

// startDemo starts all parts. The demo it returns has to be closed also when there is an error.
func startDemo(ctx context.Context, e *env, o demoOptions) (*demo, error) {
	d := &demo{out: e.stdout, ink: newInk(e), command: invocation(e), api: newOrderAPI()}
	host, listeners, err := demoListen(o.listen)
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
	upstream, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return d, fmt.Errorf("starting the sample API: %w", err)
	}
	d.onClose(func() { upstream.Close() })
	d.apiURL = "http://" + upstream.Addr().String()
	s, err := d.startGateway(ctx, o.config, map[string]string{"DEMO_PORT": port, "DEMO_FOLDER": folder, "DEMO_ORDERS": d.apiURL})
	if err != nil {
		return d, err
	}
	d.serve(upstream, newHTTPServer(d.upstream(), config.Limits{}, slog.New(slog.DiscardHandler), "demo"))
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
func (d *demo) startGateway(ctx context.Context, text []byte, variables map[string]string) (*server, error) {
	c, err := config.Parse("demo.yaml", text, func(name string) (string, bool) {
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
	d.issuer = &demoIssuer{store: s.store, digester: digesterOf(c.Store)}
	if err := d.issue(ctx); err != nil {
		return nil, fmt.Errorf("issuing a token: %w", err)
	}
	return s, nil
}

// issue makes a client's key and has a token issued for it.
func (d *demo) issue(ctx context.Context) (err error) {
	if d.key, err = dpop.NewKey(dpop.ES256); err != nil {
		return err
	}
	d.token, err = d.issuer.issue(ctx, string(d.key.Thumbprint()))
	return err
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
	fmt.Fprintf(d.out, "%[1]sThe demo goes on%[2]s at %[3]s with\n\n  page   %[3]s/ to try it all in a browser\n  token  %[4]s\n  key    %[5]s\n\nTo paste in another terminal:\n\n",
		in.bold, in.reset, d.url, string(d.token), d.keyFile)
	for _, c := range d.commands() {
		fmt.Fprintf(d.out, "  %s# %s%s\n  %s\n\n", in.dim, c.What, in.reset, c.Line)
	}
	fmt.Fprintf(d.out, "Ctrl-C ends the demo and leaves nothing behind. What the gateway decides:\n\n")
	d.live.start(d.out, in)
}

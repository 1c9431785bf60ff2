package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/dpopgate/dpopgate/tokenstore"
)

func newValidateCommand(e *env) *cobra.Command {
	var path string
	var connect, asJSON bool
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Check the config file and print the routes as they will be enforced",
		Long: "Checks the config file as serve does, and prints the routes as they will be enforced, with what deserves a second\n" +
			"look. All errors are printed at once. With --connect it also reaches the token store and every upstream, and looks at\n" +
			"what certificates are made from: files, or the CA and where its certificates are kept.",
		Example: "  dpopgate validate --connect",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(path)
			if err != nil {
				return err
			}
			v, err := newValidation(cmd.Context(), path, c)
			if err != nil {
				return err
			}
			if connect {
				v.Connections = tryAll(cmd.Context(), c)
				v.Warnings = append(v.Warnings, tryRevocation(cmd.Context(), c)...)
			}
			if asJSON {
				err = printJSON(e.stdout, v)
			} else {
				err = v.print(e.stdout)
			}
			return errors.Join(err, v.failure())
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&connect, "connect", false, "reach the store and the upstreams, too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// validation is what there is to say about a config that is good.
type validation struct {
	Config      string            `json:"config"`
	Routes      []proxy.RouteInfo `json:"routes"`
	Warnings    []string          `json:"warnings"`
	Connections []connection      `json:"connections,omitempty"`
}

// nowhere stands for the token store while a config is compiled to see whether that works.
type nowhere struct{}

func (nowhere) Lookup(context.Context, tokenstore.Digest) (*tokenstore.Record, error) {
	return nil, tokenstore.ErrNotFound
}

// newValidation compiles a config as serve would, without opening a store or a connection.
func newValidation(ctx context.Context, path string, c *config.Config) (*validation, error) {
	g, err := proxy.New(c, proxy.Options{Tokens: nowhere{}, Replay: cache.NewProofs(0, nil), Offline: true})
	if err != nil {
		return nil, err
	}
	defer g.Close()
	if c.Store.Postgres != "" { // which does not connect, but reads the DSN
		store, err := openStore(ctx, c.Store, nil, nil)
		if err != nil {
			return nil, err
		}
		defer store.Close()
	}
	replay, err := openReplay(c, nil, nil) // likewise
	if err != nil {
		return nil, fmt.Errorf("dpop.replay: %w", err)
	}
	if replay != nil {
		defer replay.Close()
	}
	return &validation{Config: path, Routes: g.Routes(), Warnings: append([]string{}, c.Warnings()...)}, nil
}

func (v *validation) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s is OK\n\n", v.Config)
	fmt.Fprintln(t, "MATCH\tUPSTREAM\tNONCE\tACCESS")
	for _, r := range v.Routes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.Match, r.Upstream, orDash(r.Nonce), r.Access)
	}
	if len(v.Connections) > 0 {
		fmt.Fprintln(t, "\nREACHED\tAT\tRESULT")
	}
	for _, c := range v.Connections {
		result := "ok"
		if c.Error != "" {
			result = "failed: " + c.Error
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", c.What, c.Address, result)
	}
	if len(v.Warnings) > 0 {
		fmt.Fprintln(t)
	}
	for _, warning := range v.Warnings {
		fmt.Fprintf(t, "warning: %s\n", warning)
	}
	return t.Flush()
}

// failure says how many connections failed.
func (v *validation) failure() error {
	failed := 0
	for _, c := range v.Connections {
		if c.Error != "" {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %s failed", failed, plural(len(v.Connections), "connection"))
}

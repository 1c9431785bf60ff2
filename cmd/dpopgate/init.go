package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/config"
)

// defaultConfig is the config file of all commands that take one.
const defaultConfig = "dpopgate.yaml"

// configFlag adds -c to a command.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.PersistentFlags().StringVarP(path, "config", "c", defaultConfig, "the config `FILE`")
}

func newInitCommand(e *env) *cobra.Command {
	var front string
	cmd := &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a commented starter config",
		Long: "Writes a commented starter config to FILE (" + defaultConfig + "). A file that is there is never overwritten.\n" +
			"With --for it writes the config of a proxy that asks the gateway for the decision alone (forward_auth), what\n" +
			"deploys the gateway: units for systemd, a file for Docker Compose or for Kubernetes, with the config for it; or rules\n" +
			"for alerts of Prometheus and a dashboard for Grafana.",
		Example: `  dpopgate init
  dpopgate validate
  dpopgate init --for nginx /etc/nginx/conf.d/api.conf
  dpopgate init --for systemd
  dpopgate help deploy`,
		Args: between(0, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			if front != "" {
				written, err := writeFront(front, strings.Join(args, ""))
				next := map[string]string{"prometheus": "now name it in rule_files of prometheus.yml", "grafana": "now import it as a dashboard"}[front]
				if len(written) > 0 {
					fmt.Fprintf(e.stderr, "wrote %s; %s\n", strings.Join(written, " and "), cmp.Or(next, "now make its names and addresses yours"))
				}
				return err
			}
			path := defaultConfig
			if len(args) == 1 {
				path = args[0]
			}
			if err := writeNew(path, config.Starter(), 0o600); err != nil {
				return err
			}
			next := "dpopgate validate"
			if path != defaultConfig {
				next += " -c " + path
			}
			_, err := fmt.Fprintf(e.stderr, "wrote %s; now fit it to your API and run: %s\n", path, next)
			return err
		},
	}
	cmd.Flags().StringVar(&front, "for", "", "write what is for `WHAT`: "+frontNames())
	return cmd
}

func newSchemaCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "schema",
		Short:   "Print the JSON Schema of the config file, for editors",
		Example: "  dpopgate schema >dpopgate.schema.json",
		Args:    exactly(0),
		RunE: func(*cobra.Command, []string) error {
			_, err := e.stdout.Write(config.SchemaJSON)
			return err
		},
	}
}

// writeNew writes a file that must not be there yet. Where people write passwords into it, only its owner may read it.
func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already and stays as it is: remove it first, or name another file", path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

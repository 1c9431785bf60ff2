package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// healthTimeout is below the three seconds after which container engines give up by themselves.
const healthTimeout = 2 * time.Second

func newHealthcheckCommand(_ *env) *cobra.Command {
	var url string
	cmd := &cobra.Command{
		Use:     "healthcheck",
		Short:   "Ask a running gateway whether it is ready, for images without a shell",
		Example: "  dpopgate healthcheck --url http://127.0.0.1:9180/readyz",
		Args:    exactly(0),
		Hidden:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, url, nil)
			if err != nil {
				return usagef("--url: want an http URL")
			}
			// A transport of its own: no proxy from the environment stands between a container and itself.
			client := &http.Client{Transport: &http.Transport{}, Timeout: healthTimeout}
			res, err := client.Do(r)
			if err != nil {
				return fmt.Errorf("health check: %w", err)
			}
			defer res.Body.Close()
			if res.StatusCode != http.StatusOK {
				return fmt.Errorf("health check: %s", res.Status)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&url, "url", "http://127.0.0.1:9180/readyz", "the `URL` to ask")
	return cmd
}

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newManCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "man FOLDER",
		Short: "Write the manual pages, one for each command",
		Long: "Writes a manual page for each command into a folder, which must be there. The date on them is that of the commit\n" +
			"that the binary was built from, so the same binary writes the same pages.",
		Example: "  dpopgate man /usr/local/share/man/man1",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if info, err := os.Stat(args[0]); err != nil || !info.IsDir() {
				return fmt.Errorf("%s is not a folder: make it first", args[0])
			}
			b := thisBuild()
			root := cmd.Root()
			root.DisableAutoGenTag = true // it holds the day of the run
			if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "dpopgate " + b.Version, Manual: "dpopgate", Date: &b.Time}, args[0]); err != nil {
				return fmt.Errorf("writing manual pages: %w", err)
			}
			fmt.Fprintf(e.stderr, "manual pages are in %s\n", args[0])
			return nil
		},
	}
}

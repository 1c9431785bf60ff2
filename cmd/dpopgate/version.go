package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
)

// build is what the binary knows about itself.
type build struct {
	Version string `json:"version"`          // the module's version; (devel) for a build from a working tree
	Commit  string `json:"commit,omitempty"` // the full hash
	Dirty   bool   `json:"modified"`         // built with changes that no commit has
	Go      string `json:"go"`

	Time time.Time `json:"time,omitzero"` // of the commit
}

func newVersionCommand(e *env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version, the commit and the Go version",
		Example: "  dpopgate version --json",
		Args:    exactly(0),
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return printJSON(e.stdout, thisBuild())
			}
			_, err := fmt.Fprintln(e.stdout, thisBuild())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// thisBuild reads what the Go tool wrote into the binary, so that no build has to pass anything in.
func thisBuild() build {
	b := build{Version: "unknown", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time, _ = time.Parse(time.RFC3339, s.Value)
		case "vcs.modified":
			b.Dirty = s.Value == "true"
		}
	}
	return b
}

// String is the line that `dpopgate version` prints.
func (b build) String() string {
	s := "dpopgate " + b.Version
	if b.Commit != "" {
		s += " commit " + b.Commit
	}
	if b.Dirty {
		s += " (modified)"
	}
	return s + " " + b.Go
}

// printJSON prints one value as indented JSON with a newline at its end.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/config"
)

// The states of a finding.
const (
	findingOK    = "ok"
	findingWarn  = "warn"
	findingWrong = "wrong"
)

// finding is what there is to say of one thing that the gateway stands on.
type finding struct {
	Check string `json:"check"` // of what kind: names, ports, certificates, …
	About string `json:"about"`
	State string `json:"state"` // ok, warn or wrong
	Words string `json:"words"`
	Fix   string `json:"fix,omitempty"` // what to do, unless all is well
}

func newDoctorCommand(e *env) *cobra.Command {
	var path string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong around the gateway, and say what to do",
		Long: "Looks at what the gateway stands on, as the config file names it: names in DNS, ports, certificates, clocks, the token\n" +
			"store and the rights in it, revocation notices, the replay store, upstreams, secrets on disk and the limit of open\n" +
			"files. It asks upstreams for a HEAD, and takes out again what it writes to try. As serve does, it makes an embedded\n" +
			"store or a local CA that is not there yet. The exit code is 1 if something is wrong. It can run beside the gateway.",
		Example: "  dpopgate doctor -c /etc/dpopgate/dpopgate.yaml",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			found := examine(cmd.Context(), path)
			var err error
			if wantJSON(cmd, e, asJSON) {
				err = printJSON(e.stdout, found)
			} else {
				err = printFindings(e.stdout, found)
			}
			return errors.Join(err, failureOf(found))
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, as without a terminal")
	return cmd
}

// examine looks at all that the config file at path names. A file that is not good is all that it finds.
func examine(ctx context.Context, path string) []finding {
	c, err := loadConfig(path)
	var v *validation
	if err == nil {
		v, err = newValidation(ctx, path, c)
	}
	if err != nil {
		return findingsOf(path, err)
	}
	found := []finding{{"config", path, findingOK, plural(len(c.Routes), "route"), ""}}
	for _, warning := range v.Warnings {
		found = append(found, finding{"config", path, findingWarn, warning, "see whether it is meant so"})
	}
	found = append(found, examineNames(ctx, c)...)
	found = append(found, examinePorts(ctx, c)...)
	found = append(found, examineConnections(ctx, c)...)
	found = append(found, examineCertificates(c)...)
	found = append(found, examineClocks(ctx, c)...)
	found = append(found, examineSecrets(path, c)...)
	return append(found, examineLimits(c.Limits.MaxConnections))
}

// findingsOf is a finding for each mistake of a file.
func findingsOf(path string, err error) []finding {
	var all config.Errors
	if !errors.As(err, &all) {
		return []finding{{"config", path, findingWrong, oneLine(err), "dpopgate validate says the same"}}
	}
	var found []finding
	for _, e := range all {
		found = append(found, finding{
			"config", fmt.Sprintf("%s:%d:%d", path, e.Line, e.Column), findingWrong,
			strings.TrimPrefix(e.Key+": ", ": ") + e.Message, cmp.Or(e.Hint, "dpopgate validate shows the line"),
		})
	}
	return found
}

// hints are what to do about a connection that fails, by what it is.
var hints = map[string]string{
	"store":                 "check the DSN and that the server runs; dpopgate migrate --check tells more of the table",
	"replay store":          "check dpop.replay and that the server runs; dpopgate migrate makes the table in Postgres",
	"misuse: revoke":        "grant DELETE on the token table to the gateway's role, or set misuse: log",
	"certificate":           "give files that belong together, are good now and are for all hosts of public_urls",
	"local CA":              "let the gateway's user write to tls.internal_storage",
	"certificate authority": "check tls.acme.directory and ca_root, and that this machine reaches it",
	"certificate storage":   "let the gateway's user write to tls.acme.storage; dpopgate migrate makes the tables of storage: store",
}

// examineConnections reaches what `validate --connect` reaches, and asks whether revocations are announced.
func examineConnections(ctx context.Context, c *config.Config) []finding {
	var found []finding
	for _, t := range tryAll(ctx, c) {
		f := finding{"connections", strings.TrimSpace(t.What + " " + t.Address), findingOK, "reached", ""}
		if t.Error != "" {
			f.State, f.Words = findingWrong, t.Error
			f.Fix = cmp.Or(hints[t.What], "start the upstream, or correct its address and tls in the config")
		}
		found = append(found, f)
	}
	for _, note := range tryRevocation(ctx, c) {
		found = append(found, finding{"connections", "revocation notices", findingWarn, note, "dpopgate migrate --revocation; --print shows the SQL for the owner of the table"})
	}
	return found
}

// printFindings prints a line for each, and how many are not well.
func printFindings(w io.Writer, found []finding) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range found {
		words := f.Words
		if f.Fix != "" {
			words += "; to do: " + f.Fix
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", f.State, f.Check, visible(f.About), visible(words))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s, %s, %d wrong\n", plural(len(found), "check"),
		plural(countFindings(found, findingWarn), "warning"), countFindings(found, findingWrong))
	return err
}

func countFindings(found []finding, state string) (n int) {
	for _, f := range found {
		if f.State == state {
			n++
		}
	}
	return n
}

// failureOf says how much is wrong.
func failureOf(found []finding) error {
	if n := countFindings(found, findingWrong); n > 0 {
		return fmt.Errorf("%d of %s found something wrong", n, plural(len(found), "check"))
	}
	return nil
}

// lookTimeout bounds one look at what is asked over the network.
const lookTimeout = 5 * time.Second

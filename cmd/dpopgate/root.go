package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/config"
)

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// run runs one command line and returns the exit code: 0, 1 for a failure, 2 for a command line that makes no sense.
// What went wrong is then on stderr, in one line unless a config file has several mistakes.
//
// The context's end stops what the command does. Signals do not end it: a command that runs until it is stopped takes
// them from env.
func run(ctx context.Context, args []string, e *env) int {
	root := newRootCommand(e)
	root.SetArgs(args)
	running := false
	eachCommand(root, func(cmd *cobra.Command) {
		if work := cmd.RunE; work != nil {
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				running = true
				return work(cmd, args)
			}
		}
	})
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return exitOK
	case running && !errors.As(err, new(usageError)):
		text := oneLine(err)
		if errors.As(err, new(config.Errors)) {
			text = err.Error()
		}
		fmt.Fprintf(e.stderr, "dpopgate: %s\n", text)
		return exitFailure
	default: // Whatever keeps cobra from running a command is about flags and arguments.
		fmt.Fprintf(e.stderr, "dpopgate: %s (see %s --help)\n", err, cmd.CommandPath())
		return exitUsage
	}
}

// newRootCommand is the whole command tree.
func newRootCommand(e *env) *cobra.Command {
	root := group(&cobra.Command{
		Use:   "dpopgate",
		Short: "A gateway that lets a request through only with a live token and a proof of its key (DPoP, RFC 9449)",
		Example: `  dpopgate init
  dpopgate validate
  dpopgate serve`,
		SilenceUsage:  true,
		SilenceErrors: true,
	})
	root.AddCommand(
		newBenchCommand(e),
		newCallCommand(e),
		newDemoCommand(e),
		newKeyCommand(e),
		newProofCommand(e),
		newExplainCommand(e),
		newInitCommand(e),
		newValidateCommand(e),
		newServeCommand(e),
		newMigrateCommand(e),
		newTokenCommand(e),
		newReportCommand(e),
		newDoctorCommand(e),
		newTrustCommand(e),
		newSchemaCommand(e),
		newHealthcheckCommand(e),
		newManCommand(e),
		newVersionCommand(e),
	)
	root.SetHelpCommand(newHelpCommand(e))
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		group(completion)
	}
	return root
}

// group is a command that only holds others: alone it prints its help.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.SuggestionsMinimumDistance = 2
	cmd.DisableFlagsInUseLine = true
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return usagef("unknown command %q: did you mean %s?", args[0], strings.Join(near, " or "))
		}
		return usagef("no such command")
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

// eachCommand calls f for a command and all below it.
func eachCommand(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, c := range cmd.Commands() {
		eachCommand(c, f)
	}
}

// completeWith has shells offer these words for a flag.
func completeWith(cmd *cobra.Command, flag string, words func() []string) {
	offer := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words(), cobra.ShellCompDirectiveNoFileComp
	}
	if err := cmd.RegisterFlagCompletionFunc(flag, offer); err != nil {
		panic(err) // the flag is not there
	}
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

// Unwrap gives the reason.
func (e usageError) Unwrap() error { return e.error }

// usagef makes a usageError. The way to the command's help is added when it is printed.
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exactly takes n arguments.
func exactly(n int) cobra.PositionalArgs { return between(n, n) }

// between takes at least low and at most high arguments. It does not repeat what was given, which may be a token.
func between(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) > high:
			return usagef("%s takes %s, not %d", cmd.CommandPath(), plural(high, "argument"), len(args))
		case len(args) < low:
			return usagef("%s wants %s, not %d", cmd.CommandPath(), plural(low, "argument"), len(args))
		default:
			return nil
		}
	}
}

// oneLine is an error's text on one line. Those that hold several errors have one on each.
func oneLine(err error) string {
	var b strings.Builder
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimSpace(line)
		switch text := b.String(); {
		case line == "" || text == "":
		case strings.HasSuffix(text, ":"):
			b.WriteString(" ")
		default:
			b.WriteString("; ")
		}
		b.WriteString(line)
	}
	return b.String()
}

// plural is a count with its noun.
func plural(n int, noun string) string {
	switch n {
	case 0:
		return "no " + noun
	case 1:
		return "1 " + noun
	default:
		return fmt.Sprintf("%d %ss", n, noun)
	}
}

package main

import (
	"errors"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/tokenstore"
)

func newTokenCommand(e *env) *cobra.Command {
	var path string
	cmd := group(&cobra.Command{
		Use:   "token",
		Short: "Issue, look at, revoke, list and purge tokens",
		Long: "Works on the token store of the config file. A token given as - is read from stdin, so that it never stands in a\n" +
			"process list or in a shell's history.",
		Example: "  dpopgate token list --client 7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11",
	})
	configFlag(cmd, &path)
	// A token of another issuer may begin with a dash. What pflag says about it would repeat it.
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if strings.Contains(err.Error(), "unknown shorthand") {
			return usagef("unknown flag; a token that begins with - goes on stdin, or after --")
		}
		return err
	})
	cmd.AddCommand(
		newTokenIssueCommand(e, &path),
		newTokenShowCommand(e, &path),
		newTokenListCommand(e, &path),
		newTokenRevokeCommand(e, &path),
		newTokenPurgeCommand(e, &path),
	)
	return cmd
}

// selection is which tokens a command is about, as its flags have it.
type selection struct{ jti, user, client string }

func (s *selection) addFlags(cmd *cobra.Command, jti bool) {
	if jti {
		cmd.Flags().StringVar(&s.jti, "jti", "", "the token with this `UUID`, as logs have it")
	}
	cmd.Flags().StringVar(&s.user, "user", "", "the tokens of this user (`UUID`)")
	cmd.Flags().StringVar(&s.client, "client", "", "the tokens of this client (`UUID`)")
}

// selector is the selection as the store takes it. Either a token or flags must be given, and not both.
func (s *selection) selector(e *env, args []string, digester tokenstore.Digester) (tokenstore.Selector, error) {
	sel, err := s.fromFlags()
	if err != nil {
		return sel, err
	}
	switch flags := sel != (tokenstore.Selector{}); {
	case len(args) == 0 && !flags:
		return sel, usagef("which tokens? Give one (- reads it from stdin), --jti, --user or --client")
	case len(args) > 0 && flags:
		return sel, usagef("a token says which one it is: leave out --jti, --user and --client")
	case flags:
		return sel, nil
	}
	token, err := readToken(e, args[0])
	if err != nil {
		return sel, err
	}
	d := digester.Digest(tokenstore.Token(token))
	sel.Digest = &d
	return sel, nil
}

// fromFlags is the selector that the flags alone make; empty when none is set.
func (s *selection) fromFlags() (sel tokenstore.Selector, err error) {
	for _, f := range []struct {
		name, text string
		to         **uuid.UUID
	}{{"jti", s.jti, &sel.JTI}, {"user", s.user, &sel.User}, {"client", s.client, &sel.Client}} {
		if f.text == "" {
			continue
		}
		id, err := parseUUID(f.name, f.text)
		if err != nil {
			return sel, err
		}
		*f.to = &id
	}
	return sel, nil
}

// parseUUID reads the value of a flag. The error does not repeat it: a token may have been pasted there.
func parseUUID(flag, text string) (uuid.UUID, error) {
	id, err := uuid.Parse(text)
	if err != nil || len(text) != 36 || id == uuid.Nil {
		return uuid.Nil, usagef("--%s: want a UUID such as 7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11", flag)
	}
	return id, nil
}

// words splits what was given in one flag or several, with spaces or commas between.
func words(given []string) []string {
	var all []string
	for _, g := range given {
		all = append(all, strings.FieldsFunc(g, func(r rune) bool { return r == ' ' || r == ',' })...)
	}
	return all
}

// errNoToken is that nothing matches.
var errNoToken = errors.New("no token matches")

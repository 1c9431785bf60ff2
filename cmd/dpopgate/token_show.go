package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// pageSize is how many records are read at a time.
const pageSize = 500

func newTokenShowCommand(e *env, path *string) *cobra.Command {
	var s selection
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show (TOKEN|- | --jti UUID | --user UUID | --client UUID)",
		Short: "Show all that is stored about tokens",
		Long:  "Shows every column of the tokens that match. The exit code is 1 if there are none.",
		Example: `  dpopgate token show - <token
  dpopgate token show --jti 0c7a2b1e-52a5-4f0e-8a3a-1f1f5f7c9e10 --json`,
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withTokens(cmd.Context(), *path, func(ctx context.Context, c *config.Config, store tokenstore.Store) error {
				sel, err := s.selector(e, args, digesterOf(c.Store))
				if err != nil {
					return err
				}
				found := 0
				err = eachRecord(ctx, store, sel, func(r *tokenstore.Record) error {
					found++
					switch {
					case wantJSON(cmd, e, asJSON):
						return printLine(e.stdout, r)
					case found > 1:
						fmt.Fprintln(e.stdout)
					}
					return printRecord(e.stdout, r, time.Now())
				})
				if err == nil && found == 0 {
					err = errNoToken
				}
				return err
			})
		},
	}
	s.addFlags(cmd, true)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one token a line, as without a terminal")
	return cmd
}

func newTokenListCommand(e *env, path *string) *cobra.Command {
	var s selection
	var only tokenFilter
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list [--user UUID] [--client UUID] [--scope SCOPE] [--type DPoP|Bearer] [--expired | --live]",
		Short: "List tokens, one a line",
		Long: "Lists all tokens, or those that match all that is given, one a line in no particular order, the expired ones too.\n" +
			"At a terminal it is a table, else JSON; --json=false makes it a table all the same.",
		Example: `  dpopgate token list --client 7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11 --live
  dpopgate token list | jq -r .jti`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			sel, err := s.fromFlags()
			if err == nil {
				err = only.check()
			}
			if err != nil {
				return err
			}
			return withTokens(cmd.Context(), *path, func(ctx context.Context, _ *config.Config, store tokenstore.Store) error {
				print := func(r *tokenstore.Record) error { return printRow(e.stdout, r, time.Now()) }
				if wantJSON(cmd, e, asJSON) {
					print = func(r *tokenstore.Record) error { return printLine(e.stdout, r) }
				} else if e.terminal {
					fmt.Fprintf(e.stdout, rowFormat, "JTI", "TYPE", "CLIENT", "USER", "EXPIRES", "SCOPES")
				}
				return eachRecord(ctx, store, sel, func(r *tokenstore.Record) error {
					if !only.takes(r, time.Now()) {
						return nil
					}
					return print(r)
				})
			})
		},
	}
	s.addFlags(cmd, false)
	only.addFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one token a line, as without a terminal")
	return cmd
}

// tokenFilter picks out of the tokens that the store has listed.
type tokenFilter struct {
	scope, kind   string
	expired, live bool
}

func (f *tokenFilter) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.scope, "scope", "", "those with this `SCOPE`")
	flags.StringVar(&f.kind, "type", "", "those of this `TYPE`, DPoP or Bearer")
	flags.BoolVar(&f.expired, "expired", false, "those that have expired")
	flags.BoolVar(&f.live, "live", false, "those that have not")
	cmd.MarkFlagsMutuallyExclusive("expired", "live")
	completeWith(cmd, "type", func() []string { return []string{string(tokenstore.DPoP), string(tokenstore.Bearer)} })
}

func (f *tokenFilter) check() error {
	if f.kind != "" && f.kind != string(tokenstore.DPoP) && f.kind != string(tokenstore.Bearer) {
		return usagef("--type %s: want DPoP or Bearer", visible(f.kind))
	}
	return nil
}

func (f *tokenFilter) takes(r *tokenstore.Record, now time.Time) bool {
	expired := r.Expired(now)
	return (f.scope == "" || slices.Contains(r.Scopes, f.scope)) && (f.kind == "" || f.kind == string(r.TokenType)) &&
		!(f.expired && !expired) && !(f.live && expired)
}

// eachRecord calls f for all records that match, a page at a time, until f fails.
func eachRecord(ctx context.Context, store tokenstore.Store, sel tokenstore.Selector, f func(*tokenstore.Record) error) error {
	var after tokenstore.Digest
	for {
		page, err := store.List(ctx, sel, after, pageSize)
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := f(r); err != nil {
				return err
			}
		}
		if len(page) < pageSize {
			return nil
		}
		after = page[len(page)-1].Digest
	}
}

// rowFormat needs no look at other rows: a UUID has 36 characters, a time in UTC has 20.
const rowFormat = "%-36s  %-6s  %-36s  %-36s  %-20s  %s\n"

func printRow(w io.Writer, r *tokenstore.Record, now time.Time) error {
	expires := r.ExpiresAt.Format(time.RFC3339)
	if r.Expired(now) {
		expires = "expired"
	}
	_, err := fmt.Fprintf(w, rowFormat, r.JTI, r.TokenType, r.ClientID, userOf(r), expires, strings.Join(r.Scopes, " "))
	return err
}

// printRecord prints one column of the table a line, by its name there.
func printRecord(w io.Writer, r *tokenstore.Record, now time.Time) error {
	expires := "in " + r.ExpiresAt.Sub(now).Round(time.Second).String()
	if r.Expired(now) {
		expires = "expired"
	}
	for _, column := range [][2]string{
		{"jti", r.JTI.String()},
		{"token_type", string(r.TokenType)},
		{"dpop_jkt", orDash(r.DPoPJKT)},
		{"client_id", r.ClientID.String()},
		{"user_id", userOf(r)},
		{"scopes", orDash(strings.Join(r.Scopes, " "))},
		{"audience", audienceOf(r)},
		{"metadata", string(r.Metadata)},
		{"created_at", r.CreatedAt.Format(time.RFC3339)},
		{"updated_at", r.UpdatedAt.Format(time.RFC3339)},
		{"expires_at", r.ExpiresAt.Format(time.RFC3339) + " (" + expires + ")"},
		{"digest", r.Digest.String()},
	} {
		if _, err := fmt.Fprintf(w, "%-11s %s\n", column[0], column[1]); err != nil {
			return err
		}
	}
	return nil
}

// printLine prints a value as JSON on one line.
func printLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func userOf(r *tokenstore.Record) string {
	if !r.UserID.Valid {
		return "-"
	}
	return r.UserID.UUID.String()
}

func audienceOf(r *tokenstore.Record) string {
	switch {
	case r.Audience == nil:
		return "- (any)"
	case len(r.Audience) == 0:
		return "nobody"
	default:
		return strings.Join(r.Audience, " ")
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// issueFlags are the flags of `token issue`.
type issueFlags struct {
	client, user, jkt, key, metadata string
	scopes, audience                 []string
	ttl                              time.Duration
	bearer, asJSON                   bool
}

func newTokenIssueCommand(e *env, path *string) *cobra.Command {
	var f issueFlags
	cmd := &cobra.Command{
		Use:   "issue --client UUID --scope SCOPE (--key FILE | --jkt THUMBPRINT | --bearer)",
		Short: "Insert a token and print it, once",
		Long: "Inserts a token and prints it on stdout, alone on its line. It cannot be shown again: the store has only its digest.\n" +
			"With --key or --jkt it is bound to that key (DPoP); a Bearer token, good for whoever has it, needs --bearer.",
		Example: `  dpopgate key new -o client.jwk
  dpopgate token issue --client 7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11 --scope orders:read --key client.jwk`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			record, err := f.record(e, time.Now())
			if err != nil {
				return err
			}
			return withStore(cmd.Context(), *path, func(ctx context.Context, c *config.Config, store tokenstore.Store) error {
				return issue(ctx, e, c, store, record, f.asJSON)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.client, "client", "", "the client that the token belongs to (`UUID`)")
	flags.StringVar(&f.user, "user", "", "the user on whose behalf it is (`UUID`); none: a client-only token")
	flags.StringArrayVar(&f.scopes, "scope", nil, "a `SCOPE` it grants; several with spaces or commas, or the flag again")
	flags.StringArrayVar(&f.audience, "audience", nil, "a `URI` it is for; again for several; none: for any")
	flags.StringVar(&f.jkt, "jkt", "", "bind it to the key with this RFC 7638 `THUMBPRINT`")
	flags.StringVar(&f.key, "key", "", "bind it to the key in this `FILE`, JWK or PEM, private or public")
	flags.DurationVar(&f.ttl, "ttl", 10*time.Minute, "how long it lives")
	flags.StringVar(&f.metadata, "metadata", "", "a `JSON` object kept with it")
	flags.BoolVar(&f.bearer, "bearer", false, "bind it to no key")
	flags.BoolVar(&f.asJSON, "json", false, "print all fields as JSON")
	cmd.MarkFlagsMutuallyExclusive("jkt", "key", "bearer")
	return cmd
}

// record is what the flags ask for, but for the digest.
func (f *issueFlags) record(e *env, now time.Time) (*tokenstore.Record, error) {
	r := &tokenstore.Record{
		TokenType: tokenstore.DPoP,
		Scopes:    words(f.scopes),
		Audience:  f.audience,
		ExpiresAt: now.Add(f.ttl),
	}
	var err error
	switch {
	case f.client == "":
		return nil, usagef("--client is missing")
	case f.ttl <= 0:
		return nil, usagef("--ttl %s: want more than 0", f.ttl)
	}
	if r.ClientID, err = parseUUID("client", f.client); err != nil {
		return nil, err
	}
	if f.user != "" {
		user, err := parseUUID("user", f.user)
		if err != nil {
			return nil, err
		}
		r.UserID = uuid.NullUUID{UUID: user, Valid: true}
	}
	if f.metadata != "" {
		var object map[string]json.RawMessage
		if err := json.Unmarshal([]byte(f.metadata), &object); err != nil || object == nil {
			return nil, usagef(`--metadata: want a JSON object such as {"device":"phone"}`)
		}
		r.Metadata = json.RawMessage(f.metadata)
	}
	if f.bearer {
		r.TokenType = tokenstore.Bearer
		return r, nil
	}
	r.DPoPJKT, err = f.thumbprint(e)
	return r, err
}

// thumbprint is that of the key that the token is to be bound to.
func (f *issueFlags) thumbprint(e *env) (string, error) {
	switch {
	case f.jkt != "":
		if !isThumbprint(f.jkt) {
			return "", usagef("--jkt: want an RFC 7638 thumbprint, 43 characters of base64url, as `dpopgate key thumbprint` prints it")
		}
		return f.jkt, nil
	case f.key != "":
		data, err := readSmall(e, f.key)
		if err != nil {
			return "", fmt.Errorf("reading the key: %w", err)
		}
		thumbprint, err := dpop.ReadThumbprint(data)
		if err != nil {
			return "", fmt.Errorf("reading the key in %s: %w", inputName(f.key), err)
		}
		return string(thumbprint), nil
	default:
		return "", usagef("without --key or --jkt this would be a Bearer token, good for whoever has it: add --bearer if that is meant")
	}
}

// issue inserts the record under a new token and prints that.
func issue(ctx context.Context, e *env, c *config.Config, store tokenstore.Store, r *tokenstore.Record, asJSON bool) error {
	token := tokenstore.NewToken()
	for token[0] == '-' { // a command line would take it for flags
		token = tokenstore.NewToken()
	}
	r.Digest = digesterOf(c.Store).Digest(token)
	if err := store.Insert(ctx, r); err != nil {
		return err
	}
	logged := auditIssued(c, r)
	if asJSON {
		return errors.Join(logged, printJSON(e.stdout, struct {
			AccessToken string `json:"access_token"`
			*tokenstore.Record
		}{string(token), r}))
	}
	if _, err := fmt.Fprintln(e.stdout, string(token)); err != nil {
		return err
	}
	bound := ""
	if r.Bound() {
		bound = " bound to " + r.DPoPJKT
	}
	_, err := fmt.Fprintf(e.stderr, "issued %s token %s%s, good until %s; it is not shown again\n",
		r.TokenType, r.JTI, bound, r.ExpiresAt.Format(time.RFC3339))
	return errors.Join(err, logged)
}

// auditIssued tells the audit stream of a new token.
func auditIssued(c *config.Config, r *tokenstore.Record) error {
	attrs := auditIDs(tokenstore.Selector{JTI: &r.JTI, Client: &r.ClientID})
	if r.UserID.Valid {
		attrs = append(attrs, slog.String("user_id", r.UserID.UUID.String()))
	}
	if r.DPoPJKT != "" {
		attrs = append(attrs, slog.String("bound_jkt", r.DPoPJKT))
	}
	return auditCommand(c, auditTokenIssued, append(attrs, slog.String("token_type", string(r.TokenType)),
		slog.String("scope", strings.Join(r.Scopes, " ")), slog.Time("expires", r.ExpiresAt))...)
}

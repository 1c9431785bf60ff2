package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/tokenstore"
)

func newMigrateCommand(e *env) *cobra.Command {
	var path string
	var onlyPrint, onlyCheck, revocation bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Create the token table in an empty database, or check one that is there",
		Long: "Creates the token table, its checks and its indexes in an empty database, with dpop.replay: postgres the table of\n" +
			"used proofs, and with tls.acme.storage: store those of certificates. A table that is there is not changed.\n" +
			"With --revocation it also has the table announce changed and deleted tokens, so that every gateway forgets them at\n" +
			"once: by triggers, on a table of others as well, for whose owner --print shows the SQL.\n" +
			"Afterwards, or with --check alone, every way in which the table differs from the documented one is printed;\n" +
			"the exit code is 1 if the gateway cannot serve from it.",
		Example: `  dpopgate migrate --revocation --print | less
  dpopgate migrate --check`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch ctx := cmd.Context(); {
			case onlyPrint:
				return printSQL(ctx, e.stdout, path, revocation)
			case onlyCheck:
				return withTokens(ctx, path, func(ctx context.Context, c *config.Config, store tokenstore.Store) error {
					return checkTable(ctx, e.stdout, c, store)
				})
			default:
				return withStore(ctx, path, func(ctx context.Context, c *config.Config, store tokenstore.Store) error {
					if err := store.Migrate(ctx); err != nil {
						return err
					}
					if err := migrateProofs(ctx, c); err != nil {
						return err
					}
					if err := migrateCertificates(ctx, c); err != nil {
						return err
					}
					if revocation {
						if err := migrateRevocation(ctx, store); err != nil {
							return err
						}
					}
					return checkTable(ctx, e.stdout, c, store)
				})
			}
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&onlyPrint, "print", false, "print the SQL and do nothing")
	cmd.Flags().BoolVar(&onlyCheck, "check", false, "only say whether the table fits")
	cmd.Flags().BoolVar(&revocation, "revocation", false, "have the table announce revocations, too")
	cmd.MarkFlagsMutuallyExclusive("print", "check")
	cmd.MarkFlagsMutuallyExclusive("revocation", "check")
	return cmd
}

// printSQL prints what migrate would run. Nothing is opened for it: an embedded store would be created.
func printSQL(ctx context.Context, w io.Writer, path string, revocation bool) error {
	c, err := loadConfig(path)
	if err != nil {
		return err
	}
	if c.Store.SQLite != "" {
		_, err := io.WriteString(w, new(tokenstore.SQLite).SQL())
		return err
	}
	store, err := openStore(ctx, c.Store, nil, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	sql := []string{store.SQL()}
	if c.DPoP.Replay == "postgres" {
		proofs, err := openPostgresProofs(c, nil, nil)
		if err != nil {
			return err
		}
		defer proofs.Close()
		sql = append(sql, proofs.SQL())
	}
	if certificatesInStore(c) {
		sql = append(sql, new(certStore).SQL())
	}
	if revocation {
		sql = append(sql, revocationSQL(store))
	}
	_, err = io.WriteString(w, strings.Join(sql, "\n"))
	return err
}

// certificatesInStore says whether the config keeps certificates in Postgres.
func certificatesInStore(c *config.Config) bool {
	return c.TLS != nil && c.TLS.ACME != nil && c.TLS.ACME.Storage == "store"
}

// migrateCertificates creates the tables of certificates where the config keeps them in Postgres.
func migrateCertificates(ctx context.Context, c *config.Config) error {
	if !certificatesInStore(c) {
		return nil
	}
	store, err := openCertStore(ctx, string(c.Store.Postgres), certStoreOptions{Key: c.TLS.ACME.StorageKey, Timeout: storeTimeout})
	if err != nil {
		return err
	}
	defer store.Close()
	return store.Migrate(ctx)
}

// migrateProofs creates the table of used proofs where the config keeps them in Postgres.
func migrateProofs(ctx context.Context, c *config.Config) error {
	if c.DPoP.Replay != "postgres" {
		return nil
	}
	proofs, err := openPostgresProofs(c, nil, nil)
	if err != nil {
		return err
	}
	defer proofs.Close()
	return proofs.Migrate(ctx)
}

// errTableUnfit is the end of a check whose findings have been printed.
var errTableUnfit = errors.New("the gateway cannot serve from this token table as it is")

// checkTable prints how the table differs from the documented one, and whether it announces revocations. It fails when
// serving is impossible.
func checkTable(ctx context.Context, w io.Writer, c *config.Config, store tokenstore.Store) error {
	differences, err := store.Check(ctx)
	if err != nil {
		return err
	}
	fatal := false
	for _, d := range differences {
		word := "note"
		if d.Fatal {
			word, fatal = "unfit", true
		}
		if _, err := fmt.Fprintf(w, "%s: %s\n", word, d); err != nil {
			return err
		}
	}
	if fatal {
		return errTableUnfit
	}
	if err := checkRevocation(ctx, w, c, store); err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, "the token table fits")
	return err
}

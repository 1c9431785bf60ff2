package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/tokenstore"
)

func newTokenRevokeCommand(e *env, path *string) *cobra.Command {
	var s selection
	var sure confirmation
	cmd := &cobra.Command{
		Use:   "revoke (TOKEN|- | --jti UUID | --user UUID | --client UUID)",
		Short: "Delete tokens",
		Long: "Deletes the tokens that match all that is given, and says how many. The exit code is 1 if there are none. At a\n" +
			"terminal, --user and --client first say how many there are, and ask.",
		Example: `  dpopgate token revoke - <token
  dpopgate token revoke --user 3f0a5a39-91d0-4d5b-9c0e-1b1f0b5ad0c4`,
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withTokens(cmd.Context(), *path, func(ctx context.Context, c *config.Config, store tokenstore.Store) error {
				sel, err := s.selector(e, args, digesterOf(c.Store))
				if err != nil {
					return err
				}
				if sel.User != nil || sel.Client != nil {
					if err := sureOf(ctx, e, &sure, store, sel); err != nil {
						return err
					}
				}
				ctx, cancel := context.WithTimeout(cmd.Context(), storeTimeout) // anew: somebody may have thought for long
				defer cancel()
				revoked, err := store.Revoke(ctx, sel)
				switch {
				case err != nil:
					return err
				case len(revoked) == 0:
					return errNoToken
				}
				logged := auditCommand(c, auditTokensRevoked, append(auditIDs(sel), slog.Int("tokens", len(revoked)))...)
				_, err = fmt.Fprintf(e.stdout, "revoked %s; gateways that hear of it refuse them now, others within %s (cache.ttl)\n",
					plural(len(revoked), "token"), c.Cache.TTL)
				return errors.Join(err, logged)
			})
		},
	}
	s.addFlags(cmd, true)
	sure.addFlag(cmd)
	return cmd
}

// sureOf asks a person whether to revoke what matches, with the count of it.
func sureOf(ctx context.Context, e *env, sure *confirmation, store tokenstore.Store, sel tokenstore.Selector) error {
	if sure.yes || !e.terminal {
		return nil
	}
	matching := 0
	err := eachRecord(ctx, store, sel, func(*tokenstore.Record) error { matching++; return nil })
	switch {
	case err != nil:
		return err
	case matching == 0:
		return errNoToken
	}
	return sure.ask(e, "This revokes %s.", plural(matching, "token"))
}

func newTokenPurgeCommand(e *env, path *string) *cobra.Command {
	var batch int
	var sure confirmation
	cmd := &cobra.Command{
		Use:     "purge",
		Short:   "Delete the tokens that have expired",
		Long:    "Deletes the tokens that have expired, a batch at a time so that nobody waits long for a lock, and says how many.",
		Example: "  dpopgate token purge",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if batch < 1 {
				return usagef("--batch %d: want 1 or more", batch)
			}
			return withTokens(cmd.Context(), *path, func(_ context.Context, c *config.Config, store tokenstore.Store) error {
				if err := sure.ask(e, "This deletes all tokens that have expired."); err != nil {
					return err
				}
				bar := newProgress(e)
				purged, err := purge(cmd.Context(), store, time.Now(), batch, func(n int) { bar.so("purged " + plural(n, "token") + " so far") })
				bar.clear()
				if err != nil {
					return fmt.Errorf("after %s: %w", plural(purged, "token"), err)
				}
				logged := auditCommand(c, auditTokensPurged, slog.Int("tokens", purged))
				_, err = fmt.Fprintf(e.stdout, "purged %s\n", plural(purged, "expired token"))
				return errors.Join(err, logged)
			})
		},
	}
	sure.addFlag(cmd)
	cmd.Flags().IntVar(&batch, "batch", 1000, "delete this `NUMBER` at a time")
	return cmd
}

// purge deletes what expired before now. There may be millions, so the time limit is a batch's and not that of all.
func purge(ctx context.Context, store tokenstore.Store, now time.Time, batch int, show func(int)) (purged int, err error) {
	for {
		n, err := purgeBatch(ctx, store, now, batch)
		purged += n
		show(purged)
		if err != nil || n < batch {
			return purged, err
		}
	}
}

func purgeBatch(ctx context.Context, store tokenstore.Store, now time.Time, batch int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return store.Purge(ctx, now, batch)
}

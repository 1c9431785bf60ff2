package main

import (
	"context"
	"fmt"
	"io"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// announcer is a token store that tells of revocations once it has been set up to.
type announcer interface {
	RevocationSQL() string
	MigrateRevocation(context.Context) error
	CheckRevocation(context.Context) error
}

var _ announcer = (*tokenstore.Postgres)(nil)

// migrateRevocation has the store announce revocations. An embedded one does so by itself.
func migrateRevocation(ctx context.Context, store tokenstore.Store) error {
	if a, ok := store.(announcer); ok {
		return a.MigrateRevocation(ctx)
	}
	return nil
}

// revocationSQL is what migrateRevocation runs.
func revocationSQL(store tokenstore.Store) string {
	if a, ok := store.(announcer); ok {
		return a.RevocationSQL()
	}
	return ""
}

// revocationNote says what bounds the time that a revocation goes unseen when it is not announced. It is empty when it is.
func revocationNote(ctx context.Context, c *config.Config, store tokenstore.Store) string {
	a, ok := store.(announcer)
	if !ok {
		return ""
	}
	err := a.CheckRevocation(ctx)
	if err == nil {
		return ""
	}
	return fmt.Sprintf("%s. Without that, revocations are seen within %s (cache.ttl)", oneLine(err), c.Cache.TTL)
}

// checkRevocation prints the note, if there is one.
func checkRevocation(ctx context.Context, w io.Writer, c *config.Config, store tokenstore.Store) error {
	note := revocationNote(ctx, c, store)
	if note == "" {
		return nil
	}
	_, err := fmt.Fprintf(w, "note: %s\n", note)
	return err
}

// tryRevocation is the note about the store of a config, for validate. A store that cannot be reached has none: that has
// been said.
func tryRevocation(ctx context.Context, c *config.Config) []string {
	store, err := openStore(ctx, c.Store, nil, nil)
	if err != nil {
		return nil
	}
	defer store.Close()
	if store.Ping(ctx) != nil {
		return nil
	}
	if note := revocationNote(ctx, c, store); note != "" {
		return []string{note}
	}
	return nil
}

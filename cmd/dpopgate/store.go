package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// storeTimeout bounds one operation of an operator on the store. Those of requests have store.timeout.
const storeTimeout = time.Minute

// again reads the file once more that a process was started with, where a password may be another by now. It is nil for
// commands that end soon.
type again func() (*config.Config, error)

// postgres is store.postgres as it reads by now; nil for nil.
func (read again) postgres() func() (string, error) {
	if read == nil {
		return nil
	}
	return func() (string, error) {
		c, err := read()
		if err != nil {
			return "", err
		}
		return string(c.Store.Postgres), nil
	}
}

// both are store.postgres and store.listen as they read by now; nil for nil.
func (read again) both() func() (dsn, listen string, err error) {
	if read == nil {
		return nil
	}
	return func() (string, string, error) {
		c, err := read()
		if err != nil {
			return "", "", err
		}
		return string(c.Store.Postgres), string(c.Store.Listen), nil
	}
}

// openStore is the store that a config names. A Postgres may be down: it is only reached when it is asked something.
func openStore(ctx context.Context, c config.Store, log *slog.Logger, read again) (tokenstore.Store, error) {
	if c.SQLite != "" {
		return tokenstore.OpenSQLite(ctx, c.SQLite, tokenstore.SQLiteOptions{Timeout: c.Timeout.Std()})
	}
	return tokenstore.OpenPostgres(ctx, string(c.Postgres), tokenstore.PostgresOptions{
		Table:   c.Table,
		Listen:  string(c.Listen),
		Timeout: c.Timeout.Std(),
		Log:     log,
		Again:   read.both(),
	})
}

// storeName is the kind of a store, for people.
func storeName(c config.Store) string {
	if c.SQLite != "" {
		return "sqlite"
	}
	return "postgres"
}

// digesterOf makes digests as the store's column has them.
func digesterOf(c config.Store) tokenstore.Digester {
	if c.Digest == "hmac-sha256" {
		return tokenstore.NewHMAC([]byte(c.DigestKey))
	}
	return tokenstore.Digester{}
}

// loadConfig reads the config file at path.
func loadConfig(path string) (*config.Config, error) {
	c, err := config.Load(path)
	if errors.Is(err, fs.ErrNotExist) && !errors.As(err, new(config.Errors)) {
		return nil, fmt.Errorf("%w; dpopgate init writes one to start from, -c names another", err)
	}
	return c, err
}

// withStore runs f on the store that the config file at path names, and closes it. f's context ends after
// storeTimeout.
func withStore(ctx context.Context, path string, f func(context.Context, *config.Config, tokenstore.Store) error) error {
	c, err := loadConfig(path)
	if err != nil {
		return err
	}
	store, err := openStore(ctx, c.Store, nil, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return f(ctx, c, store)
}

// withTokens is withStore for commands about tokens that are there: opening an embedded store would create it, and then
// find nothing in it, when it is another folder that was meant.
func withTokens(ctx context.Context, path string, f func(context.Context, *config.Config, tokenstore.Store) error) error {
	c, err := loadConfig(path)
	if err != nil {
		return err
	}
	if file := c.Store.SQLite; file != "" {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("store.sqlite: %s is not there; dpopgate migrate creates it, and so do token issue and serve", file)
		}
	}
	return withStore(ctx, path, f)
}

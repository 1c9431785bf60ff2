package main

import (
	"context"
	_ "embed"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed certstore.sql
var certStoreSchema string

// SQL is what creates the schema and its tables: one script with its own transaction, for psql as well.
func (s *certStore) SQL() string { return certStoreSchema }

// Migrate creates the schema and its tables where they are missing, which needs the right to create in the database, and
// with a key encrypts the values that were stored without one. Several instances may do it at once.
func (s *certStore) Migrate(ctx context.Context) error {
	return s.pool.Once(ctx, "creating the certificate tables", func(ctx context.Context, c *pgxpool.Conn) error {
		var there bool
		const thereSQL = "SELECT to_regclass('dpopgate.certificates') IS NOT NULL AND to_regclass('dpopgate.locks') IS NOT NULL"
		if err := c.QueryRow(ctx, thereSQL).Scan(&there); err != nil {
			return err
		}
		if !there { // a role that may not create may still find that there is nothing to do
			if _, err := c.Conn().PgConn().Exec(ctx, s.SQL()).ReadAll(); err != nil {
				return err
			}
		}
		if s.seal == nil {
			return nil
		}
		return explainCert(pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error { return s.sealAll(ctx, tx) }))
	})
}

// sealAll encrypts what is not.
func (s *certStore) sealAll(ctx context.Context, tx pgx.Tx) error {
	type row struct {
		Key   string
		Value []byte
	}
	rows, _ := tx.Query(ctx, "SELECT key, value FROM dpopgate.certificates WHERE NOT sealed ORDER BY key FOR UPDATE")
	unsealed, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil {
		return err
	}
	for _, r := range unsealed {
		_, err := tx.Exec(ctx, "UPDATE dpopgate.certificates SET value = $2::bytea, sealed = true WHERE key = $1::text",
			r.Key, s.seal.seal(r.Key, r.Value))
		if err != nil {
			return err
		}
	}
	return nil
}

package tokenstore

import (
	"context"
	_ "embed"
	"strings"
	"text/template"

	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed schema/postgres.sql
var postgresSchema string

var postgresTemplate = template.Must(template.New("postgres.sql").Parse(postgresSchema))

// schemaNames fills postgres.sql with the names of a table, quoted for the place where each stands.
type schemaNames struct{ table tableName }

// Schema is empty when the search path is to find the table.
func (n schemaNames) Schema() string {
	if n.table.schema == "" {
		return ""
	}
	return quoteIdentifier(n.table.schema)
}

func (n schemaNames) Table() string { return n.table.quoted() }

// Name is that of an object which belongs to the table.
func (n schemaNames) Name(prefix, suffix string) string { return n.table.derived(prefix, suffix) }

// The literals hold quoted names, as the functions to_regclass and to_regnamespace read them.
func (n schemaNames) TableLiteral() string  { return quoteLiteral(n.Table()) }
func (n schemaNames) SchemaLiteral() string { return quoteLiteral(n.Schema()) }

// Tag is that of the dollar quotes around the script: one that no name in it can end.
func (n schemaNames) Tag() string {
	tag := "migrate"
	for strings.Contains(n.Table(), "$"+tag) {
		tag += "_"
	}
	return tag
}

// SQL implements Store. It is one script with its own transaction, for psql as well.
func (p *Postgres) SQL() string {
	var b strings.Builder
	if err := postgresTemplate.Execute(&b, schemaNames{p.table}); err != nil {
		panic("tokenstore: schema/postgres.sql: " + err.Error()) // it is part of the program
	}
	return b.String()
}

// Migrate implements Store. It needs the right to create in the schema, and takes a lock of its own, so that several
// instances may do it at once.
func (p *Postgres) Migrate(ctx context.Context) error {
	return p.pool.Once(ctx, "creating the token table", func(ctx context.Context, c *pgxpool.Conn) error {
		_, err := c.Conn().PgConn().Exec(ctx, p.SQL()).ReadAll()
		return err
	})
}

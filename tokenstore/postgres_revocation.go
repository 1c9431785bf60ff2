package tokenstore

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"text/template"

	"github.com/jackc/pgx/v5"
)

//go:embed schema/revocation.sql
var revocationSchema string

var revocationTemplate = template.Must(template.New("revocation.sql").Parse(revocationSchema))

// RevocationSQL is what MigrateRevocation runs: one script with its own transaction, for psql as well.
func (p *Postgres) RevocationSQL() string {
	var b strings.Builder
	if err := revocationTemplate.Execute(&b, schemaNames{p.table}); err != nil {
		panic("tokenstore: schema/revocation.sql: " + err.Error()) // it is part of the program
	}
	return b.String()
}

// MigrateRevocation has the database announce changed and deleted tokens, which Watch listens for, by triggers on the
// table. It does so on the server that Watch listens to. Where that is so already, nothing is changed. It needs the right
// TRIGGER on the table and CREATE on its schema.
func (p *Postgres) MigrateRevocation(ctx context.Context) error {
	const doing = "installing the revocation trigger"
	conn, err := p.notices.connect(ctx)
	if err != nil {
		return because(ctx, doing, err)
	}
	defer hangUp(conn)
	if _, err := conn.PgConn().Exec(ctx, p.RevocationSQL()).ReadAll(); err != nil {
		return because(ctx, doing, err)
	}
	p.notices.answered(conn)
	return nil
}

// CheckRevocation says why Watch would hear nothing: an error that wraps ErrNoNotices, or that the server could not be
// asked. It is nil when all is well, and needs no more rights than a Lookup.
func (p *Postgres) CheckRevocation(ctx context.Context) error {
	const doing = "checking the revocation trigger"
	conn, err := p.notices.connect(ctx)
	if err != nil {
		return because(ctx, doing, err)
	}
	defer hangUp(conn)
	found, err := p.announcements(ctx, conn)
	if err == nil {
		p.notices.answered(conn)
		err = found.problem(p.table)
	}
	if err != nil && !errors.Is(err, ErrNoNotices) {
		return because(ctx, doing, err)
	}
	return err
}

// announcements is what a server does about a table's changes, as one of its sessions sees it.
type announcements struct {
	Session   uint32   // the server's process behind the connection
	Replica   bool     // the server only repeats another, and so takes no LISTEN
	Channel   string   // where the table's changes are announced; empty: there is no such table
	Silent    []string // the events that no trigger announces
	Listening bool     // the session listens to Channel
}

// announcements asks for them, as a role that may read the table or less.
func (p *Postgres) announcements(ctx context.Context, c *pgx.Conn) (*announcements, error) {
	rows, err := c.Query(ctx, announcementsSQL, pgx.QueryExecModeExec, p.table.name, p.table.schema)
	if err != nil {
		return nil, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByPos[announcements])
}

// 16, 8 and 32 are the bits of tgtype; 1 is that of FOR EACH ROW. A session without the table has one row, too.
const announcementsSQL = `
SELECT pg_backend_pid()::bigint, pg_is_in_recovery(), coalesce(channel, ''),
    ARRAY(SELECT event FROM (VALUES ('UPDATE', 16), ('DELETE', 8), ('TRUNCATE', 32)) AS events (event, bit)
        WHERE NOT EXISTS (
            SELECT FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid
            WHERE t.tgrelid = tokens.oid AND t.tgenabled IN ('O', 'A') AND t.tgtype & bit <> 0 AND t.tgtype & 1 = 0
                AND f.proname = 'dpopgate_announce_revocations')),
    coalesce(channel = ANY (ARRAY(SELECT pg_listening_channels())), false)
FROM (SELECT) AS session LEFT JOIN (
    SELECT c.oid, ('dpopgate:' || n.nspname || '.' || c.relname)::name::text AS channel
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = $1::text AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND CASE WHEN $2::text = '' THEN pg_table_is_visible(c.oid) ELSE n.nspname = $2::text END
) AS tokens ON true`

// problem says why nothing would be heard.
func (a *announcements) problem(table tableName) error {
	switch {
	case a.Replica:
		return fmt.Errorf("%w here: the server is a read replica; store.listen must name the primary", ErrNoNotices)
	case a.Channel == "":
		return fmt.Errorf("%w: there is no table %s", ErrNoNotices, table.quoted())
	case len(a.Silent) > 0:
		return fmt.Errorf("%w: table %s has no trigger of ours on %s; dpopgate migrate --revocation installs it",
			ErrNoNotices, table.quoted(), strings.Join(a.Silent, ", "))
	default:
		return nil
	}
}

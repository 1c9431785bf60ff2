package tokenstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Check implements Store. It reads the system catalogs, which every role may. What has another name, another order or
// another schema is the same to it, and so is what is there in addition.
func (p *Postgres) Check(ctx context.Context) ([]Difference, error) {
	var found *tableShape
	err := p.pool.Once(ctx, "checking the token table", func(ctx context.Context, c *pgxpool.Conn) (err error) {
		found, err = p.shape(ctx, c.Conn())
		return err
	})
	if err != nil {
		return nil, err
	}
	return found.differences(p.table.quoted()), nil
}

// tableShape is what the catalogs say about the table.
type tableShape struct {
	oid         uint32
	kind        string // pg_class.relkind; empty: no such table
	usable      bool   // the schema may be used
	hidden      bool   // row security lets the role see no row at all
	role        string
	columns     map[string]columnShape
	indexes     []indexShape
	constraints []constraintShape
	stamped     bool // a trigger keeps updated_at
}

type columnShape struct {
	Name     string
	Type     string // of a domain: the type below it
	Length   int    // of varchar(n); 0: no limit
	NotNull  bool
	Readable bool
	Labels   []string // of an enum
}

type indexShape struct {
	Unique  bool
	Columns []string
}

type constraintShape struct {
	Check   bool // or else a foreign key
	Cascade bool
	Columns []string
	Action  string
}

// shape reads the catalogs. Statements are not prepared: each is needed once.
func (p *Postgres) shape(ctx context.Context, c *pgx.Conn) (*tableShape, error) {
	t := &tableShape{columns: map[string]columnShape{}}
	err := c.QueryRow(ctx, relationSQL, pgx.QueryExecModeExec, p.table.name, p.table.schema).
		Scan(&t.oid, &t.kind, &t.usable, &t.hidden, &t.role)
	if err == pgx.ErrNoRows {
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	columns, err := collect[columnShape](ctx, c, columnsSQL, t.oid)
	if err != nil {
		return nil, err
	}
	for _, column := range columns {
		t.columns[column.Name] = column
	}
	if t.indexes, err = collect[indexShape](ctx, c, indexesSQL, t.oid); err != nil {
		return nil, err
	}
	if t.constraints, err = collect[constraintShape](ctx, c, constraintsSQL, t.oid); err != nil {
		return nil, err
	}
	return t, c.QueryRow(ctx, stampedSQL, pgx.QueryExecModeExec, pgtype.Uint32{Uint32: t.oid, Valid: true}).Scan(&t.stamped)
}

func collect[T any](ctx context.Context, c *pgx.Conn, query string, table uint32) ([]T, error) {
	rows, err := c.Query(ctx, query, pgx.QueryExecModeExec, pgtype.Uint32{Uint32: table, Valid: true})
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[T])
}

const (
	relationSQL = `
SELECT c.oid, c.relkind::text, has_schema_privilege(n.oid, 'USAGE'),
    row_security_active(c.oid) AND NOT EXISTS (
        SELECT FROM pg_policy WHERE polrelid = c.oid AND polcmd IN ('r', '*') AND polpermissive),
    current_user::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = $1::text AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND CASE WHEN $2::text = '' THEN pg_table_is_visible(c.oid) ELSE n.nspname = $2::text END`

	columnsSQL = `
SELECT a.attname::text,
    format_type(b.oid, NULL),
    CASE WHEN b.oid = 'varchar'::regtype AND a.atttypmod > 4 THEN a.atttypmod - 4 ELSE 0 END,
    a.attnotnull,
    has_column_privilege(a.attrelid, a.attnum, 'SELECT'),
    ARRAY(SELECT enumlabel::text FROM pg_enum WHERE enumtypid = b.oid)
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped`

	// Indexes that serve any row, with their key columns; an expression is an empty name.
	indexesSQL = `
SELECT i.indisunique,
    ARRAY(SELECT coalesce(a.attname::text, '')
          FROM generate_series(0, i.indnkeyatts - 1) AS k
          LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k]
          ORDER BY k)
FROM pg_index i
WHERE i.indrelid = $1::oid AND i.indisvalid AND i.indpred IS NULL`

	constraintsSQL = `
SELECT k.contype = 'c', k.confdeltype = 'c',
    ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)),
    CASE k.confdeltype WHEN 'a' THEN 'NO ACTION' WHEN 'r' THEN 'RESTRICT' WHEN 'n' THEN 'SET NULL'
        WHEN 'd' THEN 'SET DEFAULT' ELSE '' END
FROM pg_constraint k
WHERE k.conrelid = $1::oid AND k.contype IN ('c', 'f')`

	// 19 = FOR EACH ROW, BEFORE, UPDATE. The column's name is in the function's text or among the trigger's arguments.
	stampedSQL = `
SELECT EXISTS (
    SELECT FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid
    WHERE t.tgrelid = $1::oid AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgtype & 19 = 19
        AND (f.prosrc ILIKE '%updated\_at%' OR encode(t.tgargs, 'escape') LIKE '%updated\_at%'))`
)

// differences compares the shape with the documented one. It is pure.
func (t *tableShape) differences(name string) []Difference {
	var list []Difference
	if t.kind == "" {
		return append(list, Difference{"table " + name, "missing", "the table, as `dpopgate migrate` creates it in an empty database", true})
	}
	if !t.usable {
		return append(list, Difference{"schema of " + name, "not usable by role " + t.role, "GRANT USAGE ON SCHEMA … TO " + quoteIdentifier(t.role), true})
	}
	if t.hidden {
		list = append(list, Difference{"table " + name, "row security without a policy for reading", "a policy that shows role " + t.role + " every row", true})
	}
	list = append(list, t.rights(name)...)
	table := t.kind == "r" || t.kind == "p"
	for _, want := range documented {
		for _, d := range want.compare(t.columns) {
			if table || d.Fatal { // a view says nothing about NULL
				list = append(list, d)
			}
		}
	}
	if table {
		list = append(list, t.structure()...)
	}
	return list
}

// rights names the columns that a Lookup may not read, or the table when that is all of them.
func (t *tableShape) rights(table string) []Difference {
	var list []Difference
	there := 0
	grant := "GRANT SELECT ON " + table + " TO " + quoteIdentifier(t.role)
	for _, want := range documented {
		c, ok := t.columns[want.name]
		if !ok {
			continue
		}
		there++
		if !c.Readable {
			list = append(list, Difference{"column " + want.name, "not readable by role " + t.role, grant, true})
		}
	}
	if there > 0 && len(list) == there {
		return []Difference{{"table " + table, "not readable by role " + t.role, grant, true}}
	}
	return list
}

// structure compares what only a table has: keys, checks, references, indexes, triggers.
func (t *tableShape) structure() []Difference {
	var list []Difference
	miss := func(missing bool, object, want string, fatal bool) {
		if missing {
			list = append(list, Difference{object, "missing", want, fatal})
		}
	}
	has := func(name string) bool { _, ok := t.columns[name]; return ok }
	miss(has("digest") && !t.indexed(true, "digest"), "unique index on digest", "PRIMARY KEY (digest)", true)
	miss(has("expires_at") && !t.indexed(false, "expires_at"), "index on expires_at", "an index on (expires_at): purging would read every row", false)
	miss(has("user_id") && !t.indexed(false, "user_id"), "index on user_id, client_id", "an index on (user_id, client_id): revoking by user would read every row", false)
	miss(has("token_type") && has("dpop_jkt") && !t.checked("token_type", "dpop_jkt"), "check on token_type and dpop_jkt",
		"CHECK: dpop_jkt is NULL for Bearer, and 43 to 128 characters for DPoP", false)
	miss(has("scopes") && !t.checked("scopes"), "check on scopes", "CHECK: every scope is a scope-token; a token with any other has no scopes here", false)
	miss(has("audience") && !t.checked("audience"), "check on audience", "CHECK: every audience is an absolute URI without a fragment", false)
	for _, column := range []string{"client_id", "user_id"} {
		if has(column) {
			list = append(list, t.references(column)...)
		}
	}
	miss(has("updated_at") && !t.stamped, "trigger on UPDATE", "a BEFORE UPDATE trigger FOR EACH ROW that sets updated_at", false)
	return list
}

// indexed says whether an index starts with the column; a unique one must be on it alone.
func (t *tableShape) indexed(unique bool, column string) bool {
	for _, i := range t.indexes {
		if i.Columns[0] == column && (!unique || i.Unique && len(i.Columns) == 1) {
			return true
		}
	}
	return false
}

// checked says whether one CHECK speaks of all the columns.
func (t *tableShape) checked(columns ...string) bool {
	for _, c := range t.constraints {
		if c.Check && containsAll(c.Columns, columns) {
			return true
		}
	}
	return false
}

// references compares a column's foreign key: without ON DELETE CASCADE, tokens outlive their owner or keep it alive.
func (t *tableShape) references(column string) []Difference {
	d := Difference{"foreign key of " + column, "missing", "a foreign key with ON DELETE CASCADE", false}
	for _, c := range t.constraints {
		if c.Check || len(c.Columns) != 1 || c.Columns[0] != column {
			continue
		}
		if c.Cascade {
			return nil
		}
		d.Found = "ON DELETE " + c.Action
	}
	return []Difference{d}
}

// columnWant is what a column must be like for us.
type columnWant struct {
	name     string
	types    []string // the first is the documented one
	null     bool     // NULL has a meaning
	harmless bool     // whether it may be NULL makes no difference to us
}

var documented = []columnWant{
	{name: "digest", types: []string{"bytea"}},
	{name: "jti", types: []string{"uuid"}},
	{name: "client_id", types: []string{"uuid"}},
	{name: "user_id", types: []string{"uuid"}, null: true},
	{name: "token_type", types: []string{"token_type", "text", "character varying"}},
	{name: "dpop_jkt", types: []string{"text", "character varying"}, null: true},
	{name: "scopes", types: []string{"text[]", "character varying[]"}},
	{name: "audience", types: []string{"text[]", "character varying[]"}, null: true},
	{name: "metadata", types: []string{"jsonb", "json", "text", "character varying"}, harmless: true},
	{name: "created_at", types: []string{"timestamp with time zone"}, harmless: true},
	{name: "updated_at", types: []string{"timestamp with time zone"}, harmless: true},
	{name: "expires_at", types: []string{"timestamp with time zone"}},
}

// compare says how a column differs. That it is missing or of another type is fatal: every Lookup would fail.
func (w columnWant) compare(columns map[string]columnShape) []Difference {
	object := "column " + w.name
	c, ok := columns[w.name]
	switch {
	case !ok:
		return []Difference{{object, "missing", w.types[0], true}}
	case w.name == "token_type" && len(c.Labels) > 0:
		if !containsAll(c.Labels, []string{string(Bearer), string(DPoP)}) {
			return []Difference{{object, fmt.Sprintf("an enum of %q", c.Labels), "one with Bearer and DPoP", true}}
		}
	case !containsAll(w.types, []string{c.Type}):
		return []Difference{{object, c.Type, w.types[0], true}}
	case w.name == "dpop_jkt" && c.Length > 0 && c.Length < minJKT:
		return []Difference{{object, fmt.Sprintf("%s(%d)", c.Type, c.Length), fmt.Sprintf("room for %d to %d characters", minJKT, maxJKT), true}}
	}
	switch {
	case w.harmless || w.null != c.NotNull:
		return nil
	case w.null:
		return []Difference{{object, "NOT NULL", "nullable", false}}
	default:
		return []Difference{{object, "nullable", "NOT NULL", false}}
	}
}

func containsAll(list, wanted []string) bool {
	for _, w := range wanted {
		found := false
		for _, l := range list {
			found = found || l == w
		}
		if !found {
			return false
		}
	}
	return true
}

// Clock is the time by the clock of the database. It needs no right.
func (p *Postgres) Clock(ctx context.Context) (now time.Time, err error) {
	err = p.pool.Read(ctx, "asking for the time", func(ctx context.Context, c *pgxpool.Conn) error {
		return c.QueryRow(ctx, "SELECT clock_timestamp()", pgx.QueryExecModeExec).Scan(&now)
	})
	return now, err
}

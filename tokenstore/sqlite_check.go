package tokenstore

import (
	"context"
	"database/sql"
	"strings"
)

// sqliteConstraints are the checks and triggers of schema/sqlite.sql whose absence matters.
var sqliteConstraints = []struct{ name, object string }{
	{"access_token_dpop_consistency_chk", "check on token_type and dpop_jkt"},
	{"scopes_token_chars_insert", "check on scopes"},
	{"audience_uris_valid_insert", "check on audience"},
	{"set_timestamp_" + sqliteTable, "trigger on UPDATE"},
}

// Check implements Store. OpenSQLite creates the table as it must be, so that a difference means that the file was
// made by something else or changed by hand.
func (s *SQLite) Check(ctx context.Context) ([]Difference, error) {
	list, err := s.check(ctx)
	if err != nil {
		return nil, because(ctx, "checking the token table", err)
	}
	return list, nil
}

func (s *SQLite) check(ctx context.Context) ([]Difference, error) {
	types, err := s.texts(ctx, `SELECT name, type FROM pragma_table_info(?)`, sqliteTable)
	if err != nil {
		return nil, err
	}
	if len(types) == 0 {
		return []Difference{{"table " + sqliteTable, "missing", "the table, as opening an empty file creates it", true}}, nil
	}
	var list []Difference
	miss := func(there bool, object, want string, fatal bool) {
		if !there {
			list = append(list, Difference{object, "missing", want, fatal})
		}
	}
	for _, column := range strings.Split(sqliteColumns, ", ") {
		want := "TEXT"
		if column == "digest" {
			want = "BLOB"
		}
		found, ok := types[column]
		miss(ok, "column "+column, want, true)
		if ok && !strings.EqualFold(found, want) {
			list = append(list, Difference{"column " + column, found, want, true})
		}
	}
	// The first column of each index, and whether it is a unique one on that column alone.
	indexes, err := s.texts(ctx, `SELECT i.name || ':' || c.name, i."unique" AND NOT i.partial AND
		(SELECT count(*) FROM pragma_index_info(i.name)) = 1
		FROM pragma_index_list(?) AS i JOIN pragma_index_info(i.name) AS c ON c.seqno = 0`, sqliteTable)
	if err != nil {
		return nil, err
	}
	miss(indexed(indexes, "digest", true), "unique index on digest", "PRIMARY KEY (digest)", true)
	miss(indexed(indexes, "expires_at", false), "index on expires_at", "an index on (expires_at)", false)
	miss(indexed(indexes, "user_id", false), "index on user_id, client_id", "an index on (user_id, client_id)", false)

	definitions, err := s.texts(ctx, `SELECT name, sql FROM sqlite_schema WHERE tbl_name = ? AND type IN ('table', 'trigger')`, sqliteTable)
	if err != nil {
		return nil, err
	}
	for _, c := range sqliteConstraints {
		_, trigger := definitions[c.name]
		check := strings.Contains(definitions[sqliteTable], "CONSTRAINT "+c.name+" CHECK")
		miss(trigger || check, c.object, c.name+" of schema/sqlite.sql", false)
	}
	return list, nil
}

func indexed(indexes map[string]string, column string, unique bool) bool {
	for name, alone := range indexes {
		if strings.HasSuffix(name, ":"+column) && (!unique || alone == "1") {
			return true
		}
	}
	return false
}

// texts reads pairs.
func (s *SQLite) texts(ctx context.Context, query string, args ...any) (map[string]string, error) {
	pairs := map[string]string{}
	err := s.each(ctx, query, args, func(rows *sql.Rows) error {
		var name, text string
		err := rows.Scan(&name, &text)
		pairs[name] = text
		return err
	})
	return pairs, err
}

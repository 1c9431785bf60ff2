package tokenstore

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// DefaultTable is the documented place of the token table.
const DefaultTable = "public.oauth_access_tokens"

// maxIdentifier is how many bytes of an identifier Postgres keeps; it cuts off the rest without an error.
const maxIdentifier = 63

// tableName is a table's name, with its schema unless the search path is to find it. Both parts are as the catalogs
// hold them: unquoted and folded.
type tableName struct{ schema, name string }

// parseTable reads a table's name as SQL does: one or two identifiers with a dot between. Those without quotes are
// folded to lower case and may hold letters, digits, _ and $; any other name goes in double quotes, a quote doubled.
func parseTable(s string) (tableName, error) {
	first, rest, err := cutIdentifier(s)
	if err != nil {
		return tableName{}, fmt.Errorf("table %q: %w", s, err)
	}
	if rest == "" {
		return tableName{name: first}, nil
	}
	second, rest, err := cutIdentifier(rest[1:])
	if err == nil && rest != "" {
		err = fmt.Errorf("want a table or schema.table, not more than one dot")
	}
	if err != nil {
		return tableName{}, fmt.Errorf("table %q: %w", s, err)
	}
	return tableName{schema: first, name: second}, nil
}

// Sibling is the name, quoted as SQL takes it, of another table in the schema of the given one, which is spelled as in
// PostgresOptions.
func Sibling(table, name string) (string, error) {
	if table == "" {
		table = DefaultTable
	}
	t, err := parseTable(table)
	if err != nil {
		return "", err
	}
	return tableName{schema: t.schema, name: name}.quoted(), nil
}

// cutIdentifier reads an identifier up to the end or to a dot, which stays in rest.
func cutIdentifier(s string) (id, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		id, rest, err = cutQuoted(s[1:])
	} else {
		id, rest, err = cutPlain(s)
	}
	switch {
	case err != nil:
		return "", "", err
	case id == "":
		return "", "", fmt.Errorf("want a table or schema.table, with neither part empty")
	case len(id) > maxIdentifier:
		return "", "", fmt.Errorf("%q has %d bytes: Postgres keeps %d", id, len(id), maxIdentifier)
	case rest != "" && rest[0] != '.':
		return "", "", fmt.Errorf("unexpected %q after %q: want a dot or the end", rest, id)
	default:
		return id, rest, nil
	}
}

func cutPlain(s string) (id, rest string, err error) {
	id = s
	if i := strings.IndexByte(s, '.'); i >= 0 {
		id, rest = s[:i], s[i:]
	}
	for i := range len(id) {
		c := id[i] | 0x20 // lower case, for a letter
		if letter := c >= 'a' && c <= 'z' || id[i] == '_'; letter {
			continue
		}
		if i > 0 && (id[i] >= '0' && id[i] <= '9' || id[i] == '$') {
			continue
		}
		return "", "", fmt.Errorf(`%q is not a plain identifier: letters, digits, _ and $, or anything in double quotes`, id)
	}
	return strings.ToLower(id), rest, nil
}

func cutQuoted(s string) (id, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '"' {
			if i+1 == len(s) || s[i+1] != '"' {
				return b.String(), s[i+1:], checkBytes(b.String())
			}
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", fmt.Errorf("the closing double quote is missing")
}

func checkBytes(id string) error {
	if !utf8.ValidString(id) || strings.ContainsFunc(id, unicode.IsControl) {
		return fmt.Errorf("%q is not an identifier: want UTF-8 without control characters", id)
	}
	return nil
}

// quoted is the name as SQL takes it anywhere.
func (t tableName) quoted() string {
	if t.schema == "" {
		return quoteIdentifier(t.name)
	}
	return quoteIdentifier(t.schema) + "." + quoteIdentifier(t.name)
}

// derived is the name of an object that belongs to the table, the table's part cut so that all of it fits.
func (t tableName) derived(prefix, suffix string) string {
	name := t.name
	for len(prefix)+len(name)+len(suffix) > maxIdentifier {
		_, n := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-n]
	}
	return quoteIdentifier(prefix + name + suffix)
}

func quoteIdentifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// quoteLiteral is s as a string constant with standard_conforming_strings on, and off as well: E” escapes both.
func quoteLiteral(s string) string {
	return `E'` + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + `'`
}

package tokenstore

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTableNamesAreReadAsSQLDoes(t *testing.T) {
	for name, want := range map[string]string{
		"public.oauth_access_tokens": `"public"."oauth_access_tokens"`,
		"oauth_access_tokens":        `"oauth_access_tokens"`,
		"Public.Tokens":              `"public"."tokens"`,
		"_a1$.b":                     `"_a1$"."b"`,
		`"Auth"."Tokens"`:            `"Auth"."Tokens"`,
		`"a.b".c`:                    `"a.b"."c"`,
		`a."say ""hi"""`:             `"a"."say ""hi"""`,
		`"drop table x; --"`:         `"drop table x; --"`,
		`"Schlüssel"`:                `"Schlüssel"`,
		strings.Repeat("x", 63):      `"` + strings.Repeat("x", 63) + `"`,
	} {
		table, err := parseTable(name)
		require.NoError(t, err, name)
		assert.Equal(t, want, table.quoted(), name)
	}
}

func TestTableNamesThatAreNoneAreRefused(t *testing.T) {
	for name, want := range map[string]string{
		"":                      "neither part empty",
		".tokens":               "neither part empty",
		"public.":               "neither part empty",
		`""`:                    "neither part empty",
		"db.public.tokens":      "not more than one dot",
		"1tokens":               "not a plain identifier",
		"my-tokens":             `"my-tokens" is not a plain identifier`,
		"tokens; DROP TABLE x":  "not a plain identifier",
		"tokens ":               "not a plain identifier",
		"schlüssel":             "not a plain identifier",
		"a\x00b":                "not a plain identifier",
		`"tokens`:               "closing double quote is missing",
		`"a"b`:                  `unexpected "b" after "a"`,
		`a"b"`:                  "not a plain identifier",
		"\"a\nb\"":              "without control characters",
		"\"\xff\"":              "without control characters",
		strings.Repeat("x", 64): "has 64 bytes: Postgres keeps 63",
	} {
		_, err := parseTable(name)
		assert.ErrorContains(t, err, want, name)
	}
}

// Whatever is accepted is two identifiers at most, and its quoted form means the same table.
func FuzzTableName(f *testing.F) {
	for _, seed := range []string{"public.t", `"a""b".c`, `"`, `"";--`, "a.b.c", `"é"."$migrate$"`, `\`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		table, err := parseTable(s)
		if err != nil {
			return
		}
		again, err := parseTable(table.quoted())
		require.NoError(t, err)
		require.Equal(t, table, again)
		// Outside of its quotes nothing is left but the dot.
		outside := strings.ReplaceAll(table.quoted(), `""`, "")
		require.Equal(t, 0, strings.Count(outside, `"`)%2)
		for i, part := range strings.Split(outside, `"`) {
			if i%2 == 0 {
				require.Contains(t, []string{"", "."}, part)
			}
		}
		names := schemaNames{table}
		require.NotContains(t, table.quoted(), "$"+names.Tag()+"$")
		for _, name := range []string{names.Name("idx_", "_expires_at"), names.Name("set_timestamp_", "")} {
			id, rest, err := cutIdentifier(name)
			require.NoError(t, err)
			require.Empty(t, rest)
			require.True(t, utf8.ValidString(id))
		}
	})
}

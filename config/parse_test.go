package config_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/config"
)

// base is a file without routes; with is base and more.
const base = "public_urls: [https://api.example.com]\n"

const (
	sqlite = "store: {sqlite: ./tokens.db}\n"
	route  = "routes:\n  - match: /\n    upstream: http://127.0.0.1:9000\n"
)

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("dpopgate.yaml", []byte(text), env)
	require.NoError(t, err)
	return c
}

func parseErrors(t *testing.T, text string) config.Errors {
	t.Helper()
	_, err := config.Parse("dpopgate.yaml", []byte(text), env)
	var errs config.Errors
	require.True(t, errors.As(err, &errs), "%v", err)
	require.NotEmpty(t, errs)
	return errs
}

func TestAbsentKeysGetTheirDefaults(t *testing.T) {
	c := parse(t, base+sqlite+"upstreams: {orders: {targets: [http://10.0.0.5]}}\n"+route)

	assert.Equal(t, 500*time.Millisecond, c.Store.Timeout.Std())
	assert.Equal(t, "sha256", c.Store.Digest)
	assert.EqualValues(t, 64<<20, c.Cache.MaxSize)
	assert.Equal(t, config.Secret("memory"), c.DPoP.Replay)
	assert.Equal(t, []string{"ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "PS384", "PS512", "RS256"}, c.DPoP.Algorithms)
	assert.True(t, c.Log.Access)
	assert.Equal(t, []string{"DPoP"}, c.Routes[0].TokenTypes, "in list elements")
	assert.Equal(t, 2*time.Second, c.Upstreams["orders"].ConnectTimeout.Std(), "in values of mappings")
	assert.Equal(t, ":80", c.Listen.HTTP)
	assert.Empty(t, c.Listen.HTTPS, "the default is for tls")
	assert.Nil(t, c.TLS)
}

func TestPublicURLsBecomeCanonical(t *testing.T) {
	c := parse(t, "public_urls: [https://API.Example.com:443/, https://b.example.com/v1/, \"http://[0:0::1]:80\"]\n"+sqlite+route)
	assert.Equal(t, []string{"https://api.example.com", "https://b.example.com/v1", "http://[::1]"}, c.PublicURLs)
}

func TestReferencesAreReplacedInValuesOnly(t *testing.T) {
	values := map[string]string{"NAME": "a: [b]", "TTL": "45s", "REFERENCE": "${NAME}", "EMPTY": ""}
	lookup := func(name string) (string, bool) { v, ok := values[name]; return v, ok }
	for _, c := range []struct{ raw, want string }{
		{"${NAME}", "a: [b]"},
		{"'x-${NAME}-y'", "x-a: [b]-y"},
		{"${REFERENCE}", "${NAME}"},
		{"${UNSET:-fallback}", "fallback"},
		{"${EMPTY:-fallback}", "fallback"},
		{"${EMPTY}", ""},
		{"${UNSET:-}", ""},
		{"$$", "$"},
		{"$${NAME}", "${NAME}"},
		{"$NAME", "$NAME"},
		{"a$", "a$"},
		{"$$$${UNSET:-x}", "$$x"[:1] + "${UNSET:-x}"},
	} {
		text := base + sqlite + route + "metadata:\n  resource_name: " + c.raw + "\n"
		got, err := config.Parse("dpopgate.yaml", []byte(text), lookup)
		if assert.NoError(t, err, c.raw) {
			assert.Equal(t, c.want, got.Metadata.ResourceName, c.raw)
		}
	}
	c, err := config.Parse("dpopgate.yaml", []byte(base+sqlite+route+"cache: {ttl: \"${TTL}\"}\n"), lookup)
	require.NoError(t, err)
	assert.Equal(t, 45*time.Second, c.Cache.TTL.Std())
}

func TestFileReferencesStartAtTheConfigsFolder(t *testing.T) {
	folder := t.TempDir()
	write := func(name, content string) {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600))
	}
	text := base + route + "store:\n  sqlite: ./tokens.db\n  digest: hmac-sha256\n  digest_key: ${file:pepper}\n"
	write("dpopgate.yaml", text)
	for content, want := range map[string]string{
		"0123456789abcdef":                    "0123456789abcdef",
		"0123456789abcdef\n":                  "0123456789abcdef",
		"0123456789abcdef\r\n":                "0123456789abcdef",
		"0123456789abcdef\n\n":                "0123456789abcdef\n",
		"0123456789abcdef\r":                  "0123456789abcdef\r",
		"\xff\x00${PASSWORD}\x01\x02\x03\x04": "\xff\x00${PASSWORD}\x01\x02\x03\x04",
	} {
		write("pepper", content)
		c, err := config.Load(filepath.Join(folder, "dpopgate.yaml"))
		if assert.NoError(t, err, "%q", content) {
			assert.Equal(t, want, string(c.Store.DigestKey), "%q", content)
		}
	}

	write("pepper", strings.Repeat("x", 64<<10+1))
	_, err := config.Load(filepath.Join(folder, "dpopgate.yaml"))
	assert.ErrorContains(t, err, "store.digest_key: file pepper is larger than 64KiB")
}

func TestLoadSaysWhatItCouldNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent.yaml")
	_, err := config.Load(path)
	assert.ErrorIs(t, err, fs.ErrNotExist)
	assert.ErrorContains(t, err, "reading config "+path)
}

func TestFilesAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dpopgate.yaml")
	data := append([]byte(base+sqlite+route), bytes.Repeat([]byte("#"), 1<<20)...)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	_, err := config.Load(path)
	assert.ErrorContains(t, err, "larger than 1MiB")
	_, err = config.Parse(path, data, env)
	assert.ErrorContains(t, err, "larger than 1MiB")
}

func TestByteOrderMarkAndCRLFAreTaken(t *testing.T) {
	parse(t, "\ufeff"+strings.ReplaceAll(base+sqlite+route, "\n", "\r\n"))
}

func TestErrorsCarryTheirParts(t *testing.T) {
	errs := parseErrors(t, base+sqlite+route+"log:\n  lvel: info\n  format: xml\n")
	require.Len(t, errs, 2)
	e := errs[0]
	assert.Equal(t, "dpopgate.yaml", e.File)
	assert.Equal(t, 7, e.Line)
	assert.Equal(t, 3, e.Column)
	assert.Equal(t, "log.lvel", e.Key)
	assert.Equal(t, "unknown key", e.Message)
	assert.Equal(t, "did you mean level?", e.Hint)
	assert.Equal(t, "  lvel: info", e.Source)
	assert.Equal(t, "dpopgate.yaml:7:3: log.lvel: unknown key\n    7 |   lvel: info\n      |   ^ did you mean level?", e.Error())

	var single *config.Error
	require.ErrorAs(t, error(errs), &single)
	assert.Same(t, e, single)
}

func TestExcerptOfALongLineIsCutAroundTheCaret(t *testing.T) {
	list := strings.Repeat("a, ", 200)
	list = "[" + list + "'b c', " + list + "]"
	errs := parseErrors(t, base+sqlite+route+"    scopes: "+list+"\n")
	for _, e := range errs {
		if strings.HasPrefix(e.Message, `"b c"`) {
			assert.LessOrEqual(t, len(e.Source), 120)
			assert.Contains(t, e.Error(), "'b c'")
			return
		}
	}
	assert.Fail(t, "no error for the bad scope")
}

func TestColumnsCountCharacters(t *testing.T) {
	errs := parseErrors(t, base+sqlite+route+"metadata: {resource_name: \"Käse 🧀\", documentation: x}\n")
	require.Len(t, errs, 1)
	assert.Equal(t, 52, errs[0].Column)
	assert.True(t, strings.HasPrefix(string([]rune(errs[0].Source)[51:]), "x}"), errs[0].Source)
}

// A secret in a place where it is not expected, or spread over lines, still does not show.
func TestExcerptsHideSecrets(t *testing.T) {
	for _, text := range []string{
		"store: {sqlite: ./a.db, postgres: \"postgres://gate:hunter2@db/a\", tabel: x}\n" + route,
		"store:\n  postgres: >\n    postgres://gate:hunter2@db/\n    hunter2\n  tabel: x\n" + route,
		"store:\n  postgres: \"postgres://gate\n    hunter2\n    hunter2\", tabel: x\n" + route,
		"store: {postgres: 'host=db\n  password=hunter2', tabel: x}\n" + route,
		"store:\n  postgres: ${PASSWORD}hunter2\n" + route,
		"store:\n  postgres: ${UNSET:-hunter2}\n" + route,
		"store:\n  postgres: ${UNSET}hunter2\n" + route,
		"store:\n  postgres:\n    - hunter2\n    - x\n" + route,
		"store:\n  - hunter2\n" + route,
		"store:\n  postgres: hunter2\n  postgres: hunter2\n" + route,
		"store:\n  ? [hunter2]\n  : hunter2\n" + route,
		"store:\n  postgres: !hunter2 hunter2\n" + route,
		"store:\n  postgres: &hunter2 hunter2\n" + route,
		"store:\n  postgres: *hunter2\n" + route,
		"store:\n  postgres: %hunter2\n" + route,
		"store:\n  postgres: @hunter2\n" + route,
		"store:\n  postgres: 'hunter2\n" + route,
		"store:\n  postgres: \"hunter2\\q\"\n" + route,
		"store:\n  postgres: hunter2: x\n" + route,
		"store:\n  postgres: |\n   a\n  hunter2\n" + route,
		"store:\n  postgres:hunter2\n" + route,
		"store:\n  hunter2: postgres\n  : hunter2\n" + route[:0],
		"store: {postgres:hunter2}\n" + route,
		"store: {postgres: hunter2\u0001}\n" + route,
		"store: hunter2\n" + route,
		"dpop: {replay: 'redis://:hunter2@cache', replai: x}\n" + route,
		"upstreams: {a: {targets: ['http://gate:hunter2@10.0.0.5'], x: y}}\n" + route,
		"upstreams: {a: {targets: 'http://gate:hunter2@10.0.0.5'}}\n" + route,
		"upstreams:\n  a:\n    headers:\n      Authorization: Basic hunter2: x\n" + route,
		"upstreams:\n  a:\n    headers: {Authorization: [hunter2]}\n" + route,
		"cache: {ttl: \"${PASSWORD}\"}\n" + route,
		"routes:\n  - match: ${PASSWORD} /\n    upstream: ${PASSWORD}\n    mach: ${PASSWORD}\n",
		"routes: [{match: 'https://gate:hunter2@db/', match: 'http://gate:hunter2@db/', upstream: a}]\n",
	} {
		for _, e := range parseErrors(t, base+text) {
			if text == "store:\n  hunter2: postgres\n  : hunter2\n" && e.Key == "store.hunter2" {
				continue // the name of a key is shown
			}
			assert.NotContains(t, strings.ToLower(e.Error()), hunter2, text)
		}
	}
}

func TestErrorsOfOneFileAreBounded(t *testing.T) {
	errs := parseErrors(t, base+sqlite+route+"    scopes: ["+strings.Repeat("a b,", 100_000)+"]\n")
	assert.LessOrEqual(t, len(errs), 250)
	assert.Less(t, len(errs.Error()), 1<<20)
}

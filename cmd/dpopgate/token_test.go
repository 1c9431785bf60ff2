package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sqliteConfig writes a config with an embedded store and returns its path.
func sqliteConfig(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	path := filepath.Join(folder, "dpopgate.yaml")
	require.NoError(t, os.WriteFile(path, []byte(
		"public_urls: [http://localhost]\nstore: {sqlite: "+filepath.Join(folder, "tokens.db")+"}\nroutes: [{match: /, upstream: http://127.0.0.1:1}]\n"), 0o600))
	return path
}

func TestTokenCommandsSayWhatIsWrong(t *testing.T) {
	path := sqliteConfig(t)
	const token = "kTPV9Wmv3yQv0Hd4Z7sUeGhlJ2cRbn6xAoYqI1wFfDM"
	const id = "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11"
	const jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
	require.Equal(t, exitOK, shell{}.run(t, "migrate", "-c", path).code)
	for _, c := range []struct {
		line string
		code int
		want string
	}{
		{"show", exitUsage, "which tokens?"},
		{"show " + token + " --user " + id, exitUsage, "leave out --jti, --user and --client"},
		{"show " + token + " " + token, exitUsage, "takes 1 argument, not 2"},
		{"show -" + token, exitUsage, "a token that begins with - goes on stdin"},
		{"show " + token, exitFailure, "no token matches"},
		{token, exitUsage, "no such command"},
		{"shwo", exitUsage, "did you mean show?"},
		{"revoke --jti " + token, exitUsage, "--jti: want a UUID such as"},
		{"revoke --jti 00000000-0000-0000-0000-000000000000", exitUsage, "--jti: want a UUID such as"},
		{"revoke --client " + id, exitFailure, "no token matches"},
		{"list --user " + token, exitUsage, "--user: want a UUID such as"},
		{"purge --batch 0", exitUsage, "--batch 0: want 1 or more"},
		{"issue --bearer", exitUsage, "--client is missing"},
		{"issue --client x --bearer", exitUsage, "--client: want a UUID such as"},
		{"issue --client " + id, exitUsage, "add --bearer if that is meant"},
		{"issue --client " + id + " --bearer --jkt " + jkt, exitUsage, "see dpopgate token issue --help"},
		{"issue --client " + id + " --jkt short", exitUsage, "--jkt: want an RFC 7638 thumbprint"},
		{"issue --client " + id + " --jkt " + jkt + "=", exitUsage, "--jkt: want an RFC 7638 thumbprint"},
		{"issue --client " + id + " --key missing.jwk", exitFailure, "reading the key"},
		{"issue --client " + id + " --bearer --ttl -1s", exitUsage, "--ttl -1s: want more than 0"},
		{"issue --client " + id + " --bearer --metadata []", exitUsage, "--metadata: want a JSON object"},
		{"issue --client " + id + " --bearer --metadata null", exitUsage, "--metadata: want a JSON object"},
		{`issue --client ` + id + ` --bearer --scope a"b`, exitFailure, "scope"},
		{"issue --client " + id + " --bearer --audience orders", exitFailure, "audience"},
	} {
		said := shell{}.run(t, append([]string{"token", "-c", path}, strings.Fields(c.line)...)...)
		assert.Equal(t, c.code, said.code, "token %s", c.line)
		assert.Contains(t, said.stderr, c.want, "token %s", c.line)
		assert.Equal(t, 1, strings.Count(said.stderr, "\n"), "token %s: one line, not %q", c.line, said.stderr)
		assert.Empty(t, said.stdout, "token %s", c.line)
		assert.NotContains(t, said.stderr, token, "token %s", c.line)
	}
	assert.Empty(t, shell{}.run(t, "token", "list", "-c", path).stdout, "nothing was issued")
}

func TestTokenListHasATitleOnATerminal(t *testing.T) {
	path := sqliteConfig(t)
	const count = 3
	for range count {
		require.Equal(t, exitOK, shell{}.run(t, "token", "issue", "-c", path, "--client", "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11", "--bearer").code)
	}
	listed := shell{terminal: true}.run(t, "token", "list", "-c", path)
	lines := strings.Split(strings.TrimSpace(listed.stdout), "\n")
	require.Len(t, lines, 1+count)
	assert.Regexp(t, `^JTI +TYPE +CLIENT +USER +EXPIRES +SCOPES$`, lines[0])
}

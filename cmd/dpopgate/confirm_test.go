package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// People are asked before many tokens go, and scripts are not.
func TestDeletingManyTokensIsConfirmedAtATerminal(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	path := filepath.Join(folder, "dpopgate.yaml")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil,
		"public_urls: [http://localhost]\nstore: {sqlite: %q}\nroutes: [{match: /, upstream: \"http://127.0.0.1:9\"}]\n", filepath.Join(folder, "t.db")), 0o600))
	client := tallied.String()
	issue := func(ttl string) {
		require.Equal(t, exitOK, shell{}.run(t, "token", "issue", "-c", path, "--client", client, "--bearer", "--ttl", ttl).code)
	}
	tokens := func() string { return shell{}.run(t, "token", "list", "-c", path).stdout }
	issue("1h")
	issue("1h")
	for _, answer := range []string{"", "n\n", "\n", "yep\n", "no"} {
		got := shell{terminal: true, stdin: answer}.run(t, "token", "revoke", "-c", path, "--client", client)
		assert.Equal(t, exitFailure, got.code, answer)
		assert.Contains(t, got.stderr, "This revokes 2 tokens. Go on? [y/N] ")
		assert.Contains(t, got.stderr, "nothing was deleted; --yes goes on without asking")
	}
	assert.NotEmpty(t, tokens())
	got := shell{terminal: true, stdin: "y\n"}.run(t, "token", "revoke", "-c", path, "--client", client)
	assert.Equal(t, exitOK, got.code, got.stderr)
	assert.Empty(t, tokens())
	got = shell{terminal: true}.run(t, "token", "revoke", "-c", path, "--client", client)
	assert.Contains(t, got.stderr, "no token matches", "there is nothing to ask")

	for _, args := range [][]string{{"token", "revoke", "--client", client}, {"token", "purge"}} {
		for _, by := range []shell{{}, {terminal: true}} {
			issue(map[string]string{"purge": "1ns", "revoke": "1h"}[args[1]])
			more := []string{"-c", path}
			if by.terminal {
				more = append(more, "--yes")
			}
			got := by.run(t, append(args, more...)...)
			assert.Equal(t, exitOK, got.code, got.stderr)
			assert.NotContains(t, got.stderr, "Go on?")
			assert.Empty(t, tokens())
		}
	}
	issue("1ns")
	got = shell{terminal: true, stdin: "n\n"}.run(t, "token", "purge", "-c", path)
	assert.Equal(t, exitFailure, got.code)
	assert.NotEmpty(t, tokens())
	got = shell{terminal: true, stdin: "yes\n"}.run(t, "token", "purge", "-c", path)
	assert.Equal(t, "purged 1 expired token\n", got.stdout)
	assert.Contains(t, got.stderr, "\rpurged 1 token so far")
}

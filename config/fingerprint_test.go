package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/config"
)

func TestFingerprintDiffersWithWhatIsRead(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "dpopgate.yaml")
	seen := map[[32]byte]string{}
	differs := func(what string) {
		t.Helper()
		f := config.Fingerprint(path)
		assert.Equal(t, f, config.Fingerprint(path))
		assert.NotContains(t, seen, f, what)
		seen[f] = what
	}
	write := func(name, text string) {
		t.Helper()
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
	}
	differs("no file")
	write("dpopgate.yaml", "")
	differs("an empty file")
	write("dpopgate.yaml", "key: ${file:secret}")
	differs("a file that is not there")
	write("secret", "")
	differs("an empty one")
	write("secret", "a")
	differs("another secret")
	write("other", "a")
	write("dpopgate.yaml", "key: ${file:other}")
	differs("another name")
	require.NoError(t, os.Remove(filepath.Join(folder, "secret")))
	require.NoError(t, os.Symlink("other", filepath.Join(folder, "secret")))
	write("dpopgate.yaml", "key: ${file:secret}")
	f := config.Fingerprint(path)
	assert.Equal(t, "another secret", seen[f], "a link counts for what it leads to")
}

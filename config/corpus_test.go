package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/config"
)

// hunter2 is the password in the corpus, which no error may show.
const hunter2 = "hunter2"

// env is the environment of the corpus.
func env(name string) (string, bool) {
	value, ok := map[string]string{
		"DATABASE_URL": "postgres://gate:" + hunter2 + "@db/tokens",
		"PASSWORD":     hunter2,
		"EMPTY":        "",
	}[name]
	return value, ok
}

// corpus lists the files of a folder under testdata/config. None at all is a failure, not a pass.
func corpus(t testing.TB, folder string, least int) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "testdata", "config", folder, "*.yaml"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), least, "files in testdata/config/%s", folder)
	return files
}

func TestGoodFilesAreAccepted(t *testing.T) {
	for _, path := range corpus(t, "good", 6) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			_, err = config.Parse(path, data, env)
			assert.NoError(t, err)
		})
	}
}

// Each bad file begins with lines "# want: TEXT": texts that its errors must hold. Those that begin with the file's own
// name are first lines of errors; there must be one for every error.
//
// attack: 10, 53
func TestBadFilesGetTheErrorsTheyName(t *testing.T) {
	for _, path := range corpus(t, "bad", 100) {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			want := wanted(string(data))
			require.NotEmpty(t, want, "no # want: line")

			// The name decides where ${file:} starts; none of these files exist.
			c, err := config.Parse(name, data, env)
			assert.Nil(t, c)
			var errs config.Errors
			require.True(t, errors.As(err, &errs), "%v", err)
			for _, text := range want {
				assert.Contains(t, err.Error(), text)
			}
			for _, e := range errs {
				first, _, _ := strings.Cut(e.Error(), "\n")
				assert.Contains(t, want, first, "an error that the file does not name")
			}
			assert.NotContains(t, err.Error(), hunter2)
		})
	}
}

// wanted is the texts of the "# want:" lines at the beginning of a file.
func wanted(data string) []string {
	var texts []string
	for line := range strings.Lines(data) {
		text, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "# want: ")
		if !ok {
			return texts
		}
		texts = append(texts, text)
	}
	return texts
}

func TestFullExampleNamesEveryKey(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "testdata", "config", "good", "full.yaml"))
	require.NoError(t, err)
	for _, key := range schemaKeys(t) {
		assert.Regexp(t, `(?m)(^|[ {,#-])`+key+`:`, string(data), "a key that the example does not show")
	}
}

func TestStarterIsValidAndShort(t *testing.T) {
	starter := config.Starter()
	c, err := config.Parse("dpopgate.yaml", starter, env)
	require.NoError(t, err)
	assert.Equal(t, []string{"http://localhost:8080"}, c.PublicURLs)
	assert.Equal(t, "127.0.0.1:8080", c.Listen.HTTP)
	assert.Equal(t, "./dpopgate.db", c.Store.SQLite)
	assert.Empty(t, c.Warnings())
	assert.Less(t, strings.Count(string(starter), "\n"), 60)

	starter[0] = 'x'
	assert.NotEqual(t, starter, config.Starter(), "a caller can change what the next one gets")
}

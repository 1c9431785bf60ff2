package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// snippet is a piece of code in a page of help that is marked to be run: ```js run.
var snippet = regexp.MustCompile("(?ms)^```(\\w+) run\n(.*?)^```$")

// needPython fails in CI without a Python that has PyJWT, and skips elsewhere.
func needPython(t *testing.T) string {
	t.Helper()
	python := os.Getenv("DPOPGATE_TEST_PYTHON")
	if python == "" {
		require.Empty(t, os.Getenv("CI"), "DPOPGATE_TEST_PYTHON is not set")
		t.Skip("DPOPGATE_TEST_PYTHON is not set: ./test finds a Python with PyJWT and sets it")
	}
	return python
}

// What the page for client authors shows is what works, in each language, and with a nonce asked for as well.
func TestClientSnippetsWork(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("help/clients.md")
	require.NoError(t, err)
	run := map[string]func(t *testing.T, vars []string, code string) string{
		"js": func(t *testing.T, vars []string, code string) string {
			needNPM(t)
			return outputIn(t, npmFolder, vars, "node", "--input-type=module", "--eval", code)
		},
		"go": func(t *testing.T, vars []string, code string) string {
			file := filepath.Join(t.TempDir(), "main.go")
			require.NoError(t, os.WriteFile(file, []byte(code), 0o600))
			return outputOf(t, vars, "go", "run", file)
		},
		"python": func(t *testing.T, vars []string, code string) string {
			return outputOf(t, vars, needPython(t), "-c", code)
		},
		"sh": func(t *testing.T, vars []string, code string) string {
			needProgram(t, "curl")
			return outputOf(t, vars, "sh", "-euc", code)
		},
	}
	upstream, seen := whoever(t)
	g := startGateway(t, "  - {match: GET /orders/, upstream: "+upstream+"}\n  - {match: GET /strict/, upstream: "+upstream+", nonce: required}", "")
	keyFile := newClientKey(t)
	issued := shell{}.run(t, "token", "issue", "-c", g.path, "--client", "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11", "--key", keyFile)
	require.Equal(t, exitOK, issued.code, issued.stderr)
	vars := []string{
		"KEY=" + keyFile, "TOKEN=" + issued.stdout[:len(issued.stdout)-1], "NODE_NO_WARNINGS=1",
		"CLIENT=7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11", "ISSUER=https://login.example.com",
	}
	played := map[string]int{}
	for _, s := range snippet.FindAllStringSubmatch(string(page), -1) {
		language, code := s[1], s[2]
		played[language]++
		require.Contains(t, run, language)
		t.Run(language, func(t *testing.T) {
			for _, path := range []string{"/orders/", "/strict/"} {
				if language == "sh" && path == "/strict/" {
					continue // it sends one request, and says so
				}
				before := seen.Load()
				said := run[language](t, append(vars, "API="+g.url+path), code)
				assert.Contains(t, said, "GET "+path)
				assert.Equal(t, before+1, seen.Load(), "what the upstream saw")
			}
		})
	}
	assert.Equal(t, map[string]int{"js": 2, "go": 1, "python": 1, "sh": 1}, played)
}

package main

import (
	"bufio"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
)

// declaredReasons are the constants of type Reason in the sources of dpop and proxy.
func declaredReasons(t *testing.T) []dpop.Reason {
	t.Helper()
	var found []dpop.Reason
	files, err := filepath.Glob("../../*/*.go")
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 || !isReason(spec.Type) {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
				word, err := strconv.Unquote(lit.Value)
				require.NoError(t, err)
				found = append(found, dpop.Reason(word))
			}
			return true
		})
	}
	require.Greater(t, len(found), 50, "the reasons were not found in the sources")
	return found
}

func isReason(kind ast.Expr) bool {
	switch kind := kind.(type) {
	case *ast.Ident:
		return kind.Name == "Reason"
	case *ast.SelectorExpr:
		return kind.Sel.Name == "Reason"
	}
	return false
}

func TestEachReasonHasOneLesson(t *testing.T) {
	var taught []dpop.Reason
	for _, l := range allLessons() {
		taught = append(taught, l.Reason)
		for _, text := range []string{l.Answer, l.Cause, l.Fix} {
			assert.NotEmpty(t, text, l.Reason)
		}
		assert.True(t, strings.HasSuffix(l.Cause, ".") && strings.HasSuffix(l.Fix, "."), "%s: whole sentences", l.Reason)
	}
	assert.ElementsMatch(t, declaredReasons(t), taught, "each constant of type Reason in dpop and proxy has a lesson in chapters, and one")
}

// The vectors are played against the gateway, so what they expect is what it answers.
func TestLessonsKnowWhatClientsGet(t *testing.T) {
	codes := map[string]string{
		"E-PROOF": badProof, "E-TOKEN": badToken, "E-NONCE": wantNonce, "E-REQ": badFields, "E-SCOPE": badScope,
		"E-NOAUTH": "401", "E-4XX": "4", "E-FAIL": "503",
	}
	files, err := filepath.Glob("../../testdata/vectors/*.txt")
	require.NoError(t, err)
	seen := map[dpop.Reason]bool{}
	for _, name := range files {
		file, err := os.Open(name)
		require.NoError(t, err)
		for scan := bufio.NewScanner(file); scan.Scan(); {
			words := strings.Fields(scan.Text())
			if len(words) != 3 || words[0] != "send" || codes[words[1]] == "" {
				continue
			}
			l, ok := lessonOf(dpop.Reason(words[2]))
			if assert.True(t, ok, "%s: %s", name, scan.Text()) {
				assert.Contains(t, l.Answer, codes[words[1]], "%s: %s", name, scan.Text())
				seen[l.Reason] = true
			}
		}
		require.NoError(t, file.Close())
	}
	assert.Greater(t, len(seen), 30, "vectors of too few reasons were read")
}

func TestReasonsPageIsMadeFromTheLessons(t *testing.T) {
	const file = "help/reasons.md"
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(reasonsPage()), 0o644))
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, reasonsPage(), string(text), "go test ./cmd/dpopgate -run ReasonsPage -update writes it")
	for _, l := range allLessons() {
		assert.Contains(t, string(text), "\n### "+string(l.Reason)+"\n", "the anchor of a reason is its name")
	}
}

func TestExplainTeachesReasonsWithoutAConfig(t *testing.T) {
	declared := declaredReasons(t)
	t.Chdir(t.TempDir())
	got := shell{}.run(t, "explain", "--reason", "htu_mismatch")
	require.Equal(t, exitOK, got.code, got.stderr)
	assert.Contains(t, got.stdout, "htu_mismatch  (401 invalid_dpop_proof)")
	assert.Contains(t, got.stdout, "Cause: htu is not the URL that the client called")
	assert.Contains(t, got.stdout, "Fix:   Sign the URL as called")

	var one lesson
	require.NoError(t, json.Unmarshal([]byte(shell{}.run(t, "explain", "--reason", "htu_mismatch", "--json").stdout), &one))
	assert.Equal(t, dpop.HTUMismatch, one.Reason)

	list := shell{terminal: true}.run(t, "explain", "--reason", "list")
	require.Equal(t, exitOK, list.code, list.stderr)
	for _, reason := range declared {
		assert.Contains(t, list.stdout, "\n  "+string(reason)+" ")
	}
	var all []lesson
	require.NoError(t, json.Unmarshal([]byte(shell{}.run(t, "explain", "--reason", "list", "--json").stdout), &all))
	assert.Len(t, all, len(declared))
}

func TestExplainKnowsTheReasonThatIsMeant(t *testing.T) {
	got := shell{}.run(t, "explain", "--reason", "htu")
	assert.Equal(t, exitUsage, got.code)
	assert.Contains(t, got.stderr, "is it htu_mismatch?")
	got = shell{}.run(t, "explain", "--reason", "insufficient_scope")
	assert.Equal(t, exitUsage, got.code)
	assert.Contains(t, got.stderr, "is it scope_missing, client_refused, user_missing?")
	got = shell{}.run(t, "explain", "--reason", "zzz")
	assert.Equal(t, exitUsage, got.code)
	assert.Contains(t, got.stderr, "--reason list prints them all")
	got = shell{}.run(t, "explain", "--reason", "htu_mismatch", "--method", "GET")
	assert.Equal(t, exitUsage, got.code, "a reason needs no request")
}

func TestEachRefusalThatExplainShowsIsExplained(t *testing.T) {
	files, err := filepath.Glob("../../testdata/explain/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, name := range files {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		refused := strings.Contains(string(text), "\nrefused: ")
		assert.Equal(t, refused, strings.Contains(string(text), " fix      "), name)
	}
	assert.True(t, slices.ContainsFunc(files, func(name string) bool { return strings.HasSuffix(name, "internal-url.txt") }))
}

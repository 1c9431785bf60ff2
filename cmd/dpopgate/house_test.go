package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	module     = "github.com/dpopgate/dpopgate"
	repository = "../.." // from this folder, where go test runs
)

// mayImport is the house: each top-level folder of Go code, and the folders of ours that it may import. cmd may import all.
var mayImport = map[string][]string{
	"dpop":       {},
	"tokenstore": {},
	"config":     {},
	"cache":      {"dpop", "tokenstore"},
	"proxy":      {"config", "dpop", "tokenstore"},
	"cmd":        {"dpop", "tokenstore", "config", "cache", "proxy"},
}

// onlyInCmd are the dependencies that touch the outside world: certificates, metrics, traces.
var onlyInCmd = []string{"github.com/caddyserver/", "github.com/prometheus/", "go.opentelemetry.io/"}

func TestFoldersAreTheHouseAndTestdata(t *testing.T) {
	entries, err := os.ReadDir(repository)
	require.NoError(t, err)
	for _, entry := range entries {
		name := entry.Name()
		if !entry.IsDir() || strings.HasPrefix(name, ".") || name == "testdata" {
			continue
		}
		assert.Contains(t, mayImport, name, "a top-level folder that ARCHITECTURE.md does not know")
	}
}

func TestImportsRunOneWay(t *testing.T) {
	for _, p := range listPackages(t) {
		folder := topFolder(p.ImportPath)
		allowed, known := mayImport[folder]
		require.True(t, known, "package %s is outside the house", p.ImportPath)
		for _, imported := range p.Imports {
			if imported == module || strings.HasPrefix(imported, module+"/") {
				other := topFolder(imported)
				assert.True(t, other == folder || slices.Contains(allowed, other), "%s must not import %s", p.ImportPath, imported)
				continue
			}
			if folder == "dpop" {
				assert.True(t, isStandard(imported) || strings.HasPrefix(imported, "github.com/go-jose/go-jose/v4"),
					"%s imports %s: dpop stands on go-jose and the standard library alone", p.ImportPath, imported)
			}
			assert.True(t, folder == "cache" || !strings.HasPrefix(imported, "filippo.io/"),
				"%s imports %s: curves are calculated with in cache alone, where crypto/ecdsa checks the result", p.ImportPath, imported)
			if folder != "cmd" {
				for _, prefix := range onlyInCmd {
					assert.False(t, strings.HasPrefix(imported, prefix), "%s imports %s, which only cmd may", p.ImportPath, imported)
				}
			}
		}
	}
}

func TestFilesStayBelow500Lines(t *testing.T) {
	for _, p := range listPackages(t) {
		for _, file := range p.files() {
			source, err := os.ReadFile(file)
			require.NoError(t, err)
			assert.LessOrEqual(t, bytes.Count(source, []byte("\n")), 500, "%s: split it by noun", file)
		}
	}
}

// A doc comment starts with the name it is about, as go doc shows it; inside a group of constants or variables, one
// comment for the group is enough.
func TestExportedNamesAreDocumented(t *testing.T) {
	files := token.NewFileSet()
	for _, p := range listPackages(t) {
		packageDoc := false
		for _, name := range p.files() {
			file, err := parser.ParseFile(files, name, nil, parser.ParseComments|parser.SkipObjectResolution)
			require.NoError(t, err)
			packageDoc = packageDoc || file.Doc.Text() != ""
			for _, decl := range file.Decls {
				for _, complaint := range undocumented(decl) {
					assert.Fail(t, fmt.Sprintf("%s: %s", files.Position(decl.Pos()), complaint))
				}
			}
		}
		assert.True(t, packageDoc, "package %s has no package comment", p.ImportPath)
	}
}

// The image must hold what the tests have built.
func TestDockerfileAndTestScriptBuildTheSameBinary(t *testing.T) {
	build := regexp.MustCompile(`CGO_ENABLED=\d go build [^&#\n]*`)
	output := regexp.MustCompile(`-o \S+`)
	line := func(name string) string {
		text, err := os.ReadFile(filepath.Join(repository, name))
		require.NoError(t, err)
		found := build.FindAllString(string(text), -1)
		require.Len(t, found, 1, "one go build line in %s", name)
		return strings.TrimSpace(output.ReplaceAllString(found[0], "-o FILE"))
	}
	assert.Equal(t, line("Dockerfile"), line("test"))
}

// goPackage is what `go list -json` says of a package.
type goPackage struct {
	Dir        string
	ImportPath string
	GoFiles    []string
	Imports    []string
}

func (p goPackage) files() []string {
	var files []string
	for _, name := range p.GoFiles {
		files = append(files, filepath.Join(p.Dir, name))
	}
	return files
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=Dir,ImportPath,GoFiles,Imports", "./...")
	command.Dir = repository
	out, err := command.Output()
	require.NoError(t, err, "go list")
	var all []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := decoder.Decode(&p)
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		all = append(all, p)
	}
	require.NotEmpty(t, all, "go list found no package")
	return all
}

// topFolder returns the folder of the repository that a package of ours is in.
func topFolder(importPath string) string {
	folder, _, _ := strings.Cut(strings.TrimPrefix(importPath, module+"/"), "/")
	return folder
}

// isStandard reports whether an import path is the standard library's: no other path starts with a word without a dot.
func isStandard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

func undocumented(decl ast.Decl) []string {
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		if decl.Name.IsExported() && (decl.Recv == nil || ast.IsExported(receiver(decl))) {
			return complain(decl.Name.Name, decl.Doc)
		}
	case *ast.GenDecl:
		var complaints []string
		for _, spec := range decl.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() {
					complaints = append(complaints, complain(spec.Name.Name, spec.Doc, decl.Doc)...)
				}
			case *ast.ValueSpec:
				if slices.ContainsFunc(spec.Names, (*ast.Ident).IsExported) &&
					spec.Doc.Text()+spec.Comment.Text()+decl.Doc.Text() == "" {
					complaints = append(complaints, spec.Names[0].Name+" has no comment")
				}
			}
		}
		return complaints
	}
	return nil
}

// complain returns what is wrong with the first of the comments that is there.
func complain(name string, docs ...*ast.CommentGroup) []string {
	for _, doc := range docs {
		if text := doc.Text(); text != "" {
			words := strings.Fields(text)
			if words[0] == "A" || words[0] == "An" || words[0] == "The" {
				words = words[1:]
			}
			if len(words) > 0 && strings.HasPrefix(words[0], name) {
				return nil
			}
			return []string{fmt.Sprintf("the comment of %s does not start with its name", name)}
		}
	}
	return []string{name + " has no comment"}
}

// receiver returns the name of a method's type.
func receiver(method *ast.FuncDecl) string {
	expr := method.Recv.List[0].Type
	for {
		switch e := expr.(type) {
		case *ast.StarExpr:
			expr = e.X
		case *ast.IndexExpr:
			expr = e.X
		case *ast.IndexListExpr:
			expr = e.X
		case *ast.Ident:
			return e.Name
		default:
			return ""
		}
	}
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestManWritesAPageForEachCommand(t *testing.T) {
	folder := t.TempDir()
	got := shell{}.run(t, "man", folder)
	require.Equal(t, exitOK, got.code, got.stderr)
	assert.Empty(t, got.stdout)
	root := newRootCommand(shell{}.env(nil, nil, nil))
	pages := 0
	eachCommand(root, func(c *cobra.Command) {
		if !c.IsAvailableCommand() && c != root || c.Name() == "help" {
			return
		}
		pages++
		text, err := os.ReadFile(filepath.Join(folder, strings.ReplaceAll(c.CommandPath(), " ", "-")+".1"))
		require.NoError(t, err)
		assert.Contains(t, string(text), strings.ReplaceAll(c.CommandPath(), " ", `-`))
	})
	files, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Len(t, files, pages)

	again := t.TempDir()
	require.Equal(t, exitOK, shell{}.run(t, "man", again).code)
	for _, f := range files {
		first, err := os.ReadFile(filepath.Join(folder, f.Name()))
		require.NoError(t, err)
		second, err := os.ReadFile(filepath.Join(again, f.Name()))
		require.NoError(t, err)
		assert.Equal(t, string(first), string(second), "the same binary writes the same pages")
	}
}

func TestManWantsAFolder(t *testing.T) {
	got := shell{}.run(t, "man", filepath.Join(t.TempDir(), "none"))
	assert.Equal(t, exitFailure, got.code)
	assert.Contains(t, got.stderr, "is not a folder: make it first")
}

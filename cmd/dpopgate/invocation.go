package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// invocation is how to call this program again, as a line to paste has it.
func invocation(e *env) string {
	path, err := os.Executable()
	if err != nil {
		return "dpopgate"
	}
	built, _ := e.lookup("GOCACHE")
	return invocationOf(path, os.Args[0], built, exec.LookPath)
}

// invocationOf tells apart the ways to have called the program in the file at path: `go run`, which builds it in a
// temporary folder or in the build cache and leaves it there or not; a name that the shell finds; the path typed.
func invocationOf(path, typed, buildCache string, lookPath func(string) (string, error)) string {
	if strings.Contains(path, string(filepath.Separator)+"go-build") ||
		buildCache != "" && strings.HasPrefix(path, filepath.Clean(buildCache)+string(filepath.Separator)) {
		return "go run ./cmd/dpopgate"
	}
	if found, err := lookPath("dpopgate"); err == nil || errors.Is(err, exec.ErrDot) {
		if same(found, path) {
			return "dpopgate"
		}
	}
	return typed
}

// same says whether two paths lead to one file.
func same(a, b string) bool {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

package main

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed fronts
var frontFiles embed.FS

// fronts are the proxies that can ask for the decision alone, and the files that their configs are.
var fronts = map[string][]string{
	"nginx":   {"nginx.conf"},
	"caddy":   {"Caddyfile"},
	"traefik": {"traefik.yaml"},
	"haproxy": {"haproxy.cfg", "dpopgate.lua"},
}

// frontNames are the names that init --for takes.
func frontNames() string {
	var names []string
	for name := range fronts {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// writeFront writes the config of a proxy to a file, or to its usual name, and what goes with it beside that. It writes
// nothing when one of them is there already.
func writeFront(name, file string) (written []string, err error) {
	files, ok := fronts[name]
	if !ok {
		return nil, usagef("--for takes one of %s, not %q", frontNames(), name)
	}
	for i, source := range files {
		data, err := fs.ReadFile(frontFiles, path.Join("fronts", source))
		if err != nil {
			return written, fmt.Errorf("reading what is built in: %w", err)
		}
		to := source
		switch {
		case file != "" && i == 0:
			to = file
		case file != "":
			to = filepath.Join(filepath.Dir(file), source)
		}
		if err := writeNew(to, data); err != nil {
			return written, err
		}
		written = append(written, to)
	}
	return written, nil
}

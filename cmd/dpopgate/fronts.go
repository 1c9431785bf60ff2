package main

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed fronts
var frontFiles embed.FS

// dashboardFile is not a file that is built in, but made of the instruments.
const dashboardFile = "dpopgate_dashboard.json"

// fronts are what init --for takes, with the files for it: proxies that can ask for the decision alone, what the
// gateway itself can be deployed with, and what shows its metrics.
var fronts = map[string][]string{
	"nginx":      {"nginx.conf"},
	"caddy":      {"Caddyfile"},
	"traefik":    {"traefik.yaml"},
	"haproxy":    {"haproxy.cfg", "dpopgate.lua"},
	"systemd":    {"systemd/dpopgate.service", "systemd/dpopgate.socket", "systemd/dpopgate.yaml"},
	"compose":    {"compose/compose.yaml", "compose/gateway/dpopgate.yaml"},
	"kubernetes": {"kubernetes/kubernetes.yaml"},
	"prometheus": {"dpopgate_alerts.yaml"},
	"grafana":    {dashboardFile},
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

// shippedFile is the text of one of them.
func shippedFile(name string) ([]byte, error) {
	if name == dashboardFile {
		return grafanaDashboard()
	}
	return fs.ReadFile(frontFiles, path.Join("fronts", name))
}

// writeFront writes the first file of a front to file, or to its usual name, and what goes with it beside that. A file that
// is there already stays as it is, and is an error. Users of other numbers read these files, and they hold no secrets.
func writeFront(name, file string) (written []string, err error) {
	files, ok := fronts[name]
	if !ok {
		return nil, usagef("--for takes one of %s, not %q", frontNames(), name)
	}
	for i, source := range files {
		data, err := shippedFile(source)
		if err != nil {
			return written, fmt.Errorf("reading what is built in: %w", err)
		}
		to := filepath.Join(filepath.Dir(file), strings.TrimPrefix(source, name+"/"))
		if file != "" && i == 0 {
			to = file
		}
		if i > 0 {
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return written, fmt.Errorf("writing %s: %w", to, err)
			}
		}
		if err := writeNew(to, data, 0o644); err != nil {
			return written, err
		}
		written = append(written, to)
	}
	return written, nil
}

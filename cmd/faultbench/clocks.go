package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// clockVariable puts the clock of a gateway that was built with another clock forward, by whole seconds.
const clockVariable = "FAULTBENCH_CLOCK"

// clockSource is added to each package of ours in that build.
const clockSource = `package %s

import (
	"os"
	"strconv"
	"time"
)

func faultbenchNow() time.Time {
	seconds, _ := strconv.Atoi(os.Getenv("` + clockVariable + `"))
	return time.Now().Add(time.Duration(seconds) * time.Second)
}
`

// passedClock is where a package takes the system's clock as a value, to judge by: proofs, tokens, what is remembered.
// What times waiting calls it then and there, and that goes on.
var passedClock = regexp.MustCompile(`\btime\.Now\b([^(])`)

// buildWithAnotherClock builds the gateway from sources in which what it judges by is faultbenchNow. The system's own clock
// is everybody's, and a static program reads it without a library that could be replaced.
func buildWithAnotherClock(ctx context.Context, folder, to string) error {
	list := exec.CommandContext(ctx, "go", "list", "-deps", "-f", "{{if .Module}}{{if .Module.Main}}{{.Name}} {{.Dir}}{{end}}{{end}}", program)
	packages, err := list.Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	replace, changed := map[string]string{}, 0
	substitute := func(source, content string) error {
		changed++
		replace[source] = filepath.Join(folder, fmt.Sprintf("%d.go", changed))
		return os.WriteFile(replace[source], []byte(content), 0o600)
	}
	for line := range strings.Lines(strings.TrimSpace(string(packages))) {
		name, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			return err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			other := passedClock.ReplaceAllString(string(text), "faultbenchNow$1")
			if strings.HasSuffix(file, "_test.go") || other == string(text) {
				continue
			}
			if err := substitute(file, other); err != nil {
				return err
			}
		}
		if err := substitute(filepath.Join(dir, "faultbench_clock.go"), fmt.Sprintf(clockSource, name)); err != nil {
			return err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	file := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return err
	}
	return buildGateway(ctx, to, "-overlay", file)
}

// clocks has two instances run with clocks that are eight seconds apart, with the third between them.
func (s *script) clocks(ctx context.Context) error {
	for n, offset := range []string{"4", "-4"} {
		i := s.fleet[n]
		i.binary, i.environment = s.anotherClock, append(os.Environ(), clockVariable+"="+offset)
		if err := i.roll(ctx); err != nil {
			return err
		}
	}
	s.hold(ctx, 15*time.Second, 0)
	for _, i := range s.fleet[:2] {
		i.binary, i.environment = s.binary, nil
		if err := i.roll(ctx); err != nil {
			return err
		}
	}
	return nil
}

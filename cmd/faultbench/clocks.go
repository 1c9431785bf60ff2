package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// clockVariable sets the clock of a gateway that was built with another clock forward, by whole seconds.
const clockVariable = "FAULTBENCH_CLOCK"

// clockSource is added to Go's package time in that build. The sources of the gateway are the same.
const clockSource = `package time

import "syscall"

var clockOffset = func() (seconds int64) {
	text, _ := syscall.Getenv("` + clockVariable + `")
	negative := text != "" && text[0] == '-'
	for _, c := range text {
		if c >= '0' && c <= '9' {
			seconds = 10*seconds + int64(c-'0')
		}
	}
	if negative {
		return -seconds
	}
	return seconds
}()
`

// buildWithAnotherClock builds the gateway on a standard library whose time.Now can be off.
func buildWithAnotherClock(ctx context.Context, folder, to string) error {
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	const reading = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(text), reading) != 1 {
		return fmt.Errorf("%s is not as this bench knows it: it wants %q", source, reading)
	}
	changed := strings.Replace(string(text), reading, reading+"\tsec += clockOffset\n", 1)
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		source: filepath.Join(folder, "time.go"),
		filepath.Join(filepath.Dir(source), "offset.go"): filepath.Join(folder, "offset.go"),
	}})
	if err != nil {
		return err
	}
	for name, content := range map[string]string{"time.go": changed, "offset.go": clockSource, "overlay.json": string(overlay)} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return buildGateway(ctx, to, []string{"-overlay", filepath.Join(folder, "overlay.json")})
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
	s.hold(ctx, 10*time.Second, 0)
	if err := s.stampede(ctx); err != nil {
		return err
	}
	for _, i := range s.fleet[:2] {
		i.binary, i.environment = s.binary, nil
		if err := i.roll(ctx); err != nil {
			return err
		}
	}
	return nil
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"
)

// benchProcess is a process that plays a part.
type benchProcess struct {
	address string
	cmd     *exec.Cmd
	orders  io.WriteCloser
	answers *json.Decoder
	said    *tail
}

// partPatience is how long a part may take to start, and then to end.
const partPatience = time.Minute

// startPart starts a process of the program in that part, on those cores.
func startPart(program string, cores []int, part benchPart) (*benchProcess, error) {
	p := &benchProcess{cmd: exec.Command(program, "bench", "part"), said: &tail{}}
	p.cmd.Stderr = p.said
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if p.orders, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := startOn(p.cmd, cores); err != nil {
		return nil, fmt.Errorf("starting the %s: %w", part.Role, err)
	}
	p.answers = json.NewDecoder(out)
	var started startedPart
	overdue := time.AfterFunc(partPatience, func() { p.cmd.Process.Kill() })
	err = json.NewEncoder(p.orders).Encode(part)
	if err == nil {
		err = p.answers.Decode(&started)
	}
	if err == nil && started.Error != "" {
		err = errors.New(started.Error)
	}
	overdue.Stop()
	if err != nil {
		p.close()
		return nil, fmt.Errorf("starting the %s: %w%s", part.Role, err, p.said.clause())
	}
	p.address = started.Address
	return p, nil
}

// usage is what the process has used so far.
func (p *benchProcess) usage() (usage, error) {
	var used usage
	_, err := io.WriteString(p.orders, "{}\n")
	if err == nil {
		err = p.answers.Decode(&used)
	}
	if err != nil {
		return used, fmt.Errorf("asking a process what it used: %w%s", err, p.said.clause())
	}
	return used, nil
}

// close ends the process.
func (p *benchProcess) close() {
	p.orders.Close()
	overdue := time.AfterFunc(partPatience, func() { p.cmd.Process.Kill() })
	p.cmd.Wait()
	overdue.Stop()
}

// tail keeps the end of what a process says.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - 2000; over > 0 {
		t.b = t.b[over:]
	}
	return len(p), nil
}

// clause is what was said, for the end of an error.
func (t *tail) clause() string {
	if len(bytes.TrimSpace(t.b)) == 0 {
		return ""
	}
	return ": it said: " + string(bytes.TrimSpace(t.b))
}

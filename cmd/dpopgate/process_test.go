package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
)

// process is a `dpopgate serve` in a process of its own, and those that have taken over from it.
type process struct {
	url, admin string
	path       string // of its config
	log        *output
	pid        int
	ended      chan error // of the first process
}

// newProcess writes a config for a gateway at a free address. more is further YAML of it, with the routes.
func newProcess(t *testing.T, scheme, more string) *process {
	t.Helper()
	addresses := freeAddresses(t, 2)
	folder := t.TempDir()
	p := &process{
		url: scheme + "://" + strings.Replace(addresses[0], "127.0.0.1", "localhost", 1), admin: "http://" + addresses[1],
		path: filepath.Join(folder, "dpopgate.yaml"), log: &output{changed: make(chan struct{}, 1)},
		ended: make(chan error, 1),
	}
	listen := fmt.Sprintf("{http: %q, admin: %q}", addresses[0], addresses[1])
	if scheme == "https" {
		listen = fmt.Sprintf("{https: %q, http: '', admin: %q}\ntls: {internal: true, internal_storage: %q}", addresses[0], addresses[1], filepath.Join(folder, "ca"))
	}
	p.write(t, fmt.Sprintf("public_urls: [%q]\nlisten: %s\nstore: {sqlite: %q}\nlog: {access: false}\n%s\n",
		p.url, listen, filepath.Join(folder, "tokens.db"), more))
	return p
}

func (p *process) write(t *testing.T, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(p.path, []byte(text), 0o600))
}

// change replaces something in the config, and returns what it was.
func (p *process) change(t *testing.T, old, is string) (was string) {
	t.Helper()
	text, err := os.ReadFile(p.path)
	require.NoError(t, err)
	require.Contains(t, string(text), old)
	p.write(t, strings.ReplaceAll(string(text), old, is))
	return string(text)
}

// start runs the program, as built with these tests, and waits until it serves. Whatever runs at the end of the test is
// killed.
func (p *process) start(t *testing.T, configure ...func(*exec.Cmd)) {
	t.Helper()
	cmd := exec.Command("dpopgate", "serve", "-c", p.path)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=10")
	r, w, err := os.Pipe() // what takes over has it, too, so the end of this process is not that of the log
	require.NoError(t, err)
	cmd.Stderr = w
	for _, c := range configure {
		c(cmd)
	}
	require.NoError(t, cmd.Start())
	w.Close()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		io.Copy(p.log, r)
		r.Close()
		p.log.Write([]byte("\nended\n"))
	}()
	go func() { p.ended <- cmd.Wait() }()
	t.Cleanup(func() {
		for _, m := range regexp.MustCompile(`"pid":(\d+)`).FindAllStringSubmatch(p.log.String(), -1) {
			pid, _ := strconv.Atoi(m[1])
			syscall.Kill(pid, syscall.SIGKILL)
		}
		cmd.Process.Kill()
		<-copied
	})
	p.pid = cmd.Process.Pid
	p.serving(t)
}

// serving waits until the process with p.pid says that it serves.
func (p *process) serving(t *testing.T) {
	t.Helper()
	p.await(t, fmt.Sprintf(`"msg":"serving".*"pid":%d\b`, p.pid))
	require.NotContains(t, p.log.String(), "\nended\n")
}

func (p *process) await(t *testing.T, pattern string) []string {
	t.Helper()
	late := time.AfterFunc(time.Minute, func() { p.log.Write([]byte("\nended\n")); t.Logf("not there after a minute: %s\n%s", pattern, p.log) })
	defer late.Stop()
	return p.log.await(t, regexp.MustCompile(pattern+`|\nended\n`))
}

func (p *process) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	require.NoError(t, syscall.Kill(p.pid, sig))
}

// handOver has a new process take over, and waits until the old one has ended.
func (p *process) handOver(t *testing.T) {
	t.Helper()
	before := strings.Count(p.log.String(), `"msg":"stopped"`)
	handed := strings.Count(p.log.String(), `"msg":"handed over"`)
	refused := strings.Count(p.log.String(), `not handed over`)
	p.signal(t, syscall.SIGUSR2)
	m := p.await(t, fmt.Sprintf(`(?s)(?:"msg":"handed over","pid":(\d+).*?){%d}|(?:not handed over.*?){%d}`, handed+1, refused+1))
	require.NotEmpty(t, m[1], "%s", p.log)
	p.pid, _ = strconv.Atoi(m[1])
	p.await(t, fmt.Sprintf(`(?s)(?:"msg":"stopped".*?){%d}`, before+1))
}

// credentials are a key, and a token that is bound to it.
func (p *process) credentials(t *testing.T, scope string) (key *dpop.Key, token string) {
	t.Helper()
	key, err := dpop.NewKey(dpop.ES256)
	require.NoError(t, err)
	issued := shell{}.run(t, "token", "issue", "-c", p.path, "--client", "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11",
		"--scope", scope, "--jkt", string(key.Thumbprint()), "--ttl", "1h")
	require.Equal(t, exitOK, issued.code, issued.stderr)
	return key, strings.TrimSpace(issued.stdout)
}

// address is where it listens.
func (p *process) address() string {
	_, host, _ := strings.Cut(p.url, "://")
	_, port, _ := net.SplitHostPort(host)
	return net.JoinHostPort("127.0.0.1", port)
}

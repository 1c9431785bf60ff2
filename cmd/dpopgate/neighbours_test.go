package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// neighbour is a server that the gateway is measured beside, with the same requests and the same upstream.
type neighbour struct {
	name   string
	checks string // what it checks of a request, for people
	proof  bool   // whether that is the proof, and that it is new
	hides  bool   // whether the upstream does not see the credentials
	// start starts it on its cores. Without an address the server is not there, and the words say why.
	start func(testing.TB, *benchRig, benchCores) (to address, used func() (usage, error), absent string)
}

const (
	nothing    = "nothing"
	everything = "token, proof, replay"
)

// neighbours are the servers of the table, the one that all are compared with first.
var neighbours = []neighbour{
	{name: "Go's `ReverseProxy`, tuned", checks: nothing, start: part(func(g *benchRig) benchPart { return g.plainPart() }, "/plain")},
	{name: "**dpopgate**", checks: everything, proof: true, hides: true, start: part(func(g *benchRig) benchPart { return g.gatewayPart() }, "/checked")},
	{name: "dpopgate, `public: true`", checks: nothing, hides: true, start: part(func(g *benchRig) benchPart { return g.gatewayPart() }, "/public")},
	{name: "nginx", checks: nothing, start: startPlainNginx},
	{name: "HAProxy", checks: nothing, start: startHAProxy},
	{name: "Caddy", checks: nothing, start: startCaddy},
	{name: "Go's `ReverseProxy` as it comes", checks: nothing, start: peer("default transport")},
	{name: "a gateway on go-jose", checks: everything, proof: true, hides: true, start: peer("go-jose")},
	{name: "nginx `auth_request` to dpopgate", checks: everything, proof: true, hides: true, start: startNginxAsking},
	{name: "a gateway on Node.js and jose", checks: everything, proof: true, hides: true, start: startNodeGateway},
}

func init() {
	if os.Getenv("DPOPGATE_TEST_TRAEFIK") != "" { // nothing here builds it
		neighbours = append(neighbours, neighbour{name: "Traefik", checks: nothing, start: startTraefik})
	}
}

// benchProgram is the gateway that is measured: the one that ./test has built, or else this test's own.
func benchProgram(t testing.TB) string {
	if path := os.Getenv("DPOPGATE_BENCH_PROGRAM"); path != "" {
		return path
	}
	path, err := exec.LookPath("dpopgate") // where testscript.Main has put it
	require.NoError(t, err)
	return path
}

// part is a neighbour that the program itself plays.
func part(of func(*benchRig) benchPart, path string) func(testing.TB, *benchRig, benchCores) (address, func() (usage, error), string) {
	return func(t testing.TB, g *benchRig, cores benchCores) (address, func() (usage, error), string) {
		p, err := g.start(benchProgram(t), cores.server, of(g))
		require.NoError(t, err)
		return g.at(p, path), p.usage, ""
	}
}

// peer is a neighbour that this test plays, in a process of its own.
func peer(role string) func(testing.TB, *benchRig, benchCores) (address, func() (usage, error), string) {
	return func(t testing.TB, g *benchRig, cores benchCores) (address, func() (usage, error), string) {
		program, err := exec.LookPath("benchpeer")
		require.NoError(t, err)
		p, err := g.start(program, cores.server, benchPart{Role: role, Upstream: "http://" + g.upstream.address, Variables: map[string]string{"TOKENS": g.tokens(t)}})
		require.NoError(t, err)
		return g.at(p, "/orders"), p.usage, ""
	}
}

// peerToken is what a peer knows of a token.
type peerToken struct {
	JKT     string `json:"jkt"`
	Subject string `json:"subject"`
	Client  string `json:"client"`
	Scope   string `json:"scope"`
	Expires int64  `json:"expires"`
}

// tokens are those of all clients, for peers whose table is in their memory.
func (g *benchRig) tokens(t testing.TB) string {
	all := map[string]peerToken{}
	for _, c := range g.clients {
		r := c.record(c.token, benchTokenLife)
		all[c.token] = peerToken{r.DPoPJKT, r.UserID.UUID.String(), r.ClientID.String(), benchScope, r.ExpiresAt.Unix()}
	}
	text, err := json.Marshal(all)
	require.NoError(t, err)
	return string(text)
}

// startProgram starts somebody else's server, which listens at the address.
func startProgram(t testing.TB, cores []int, listens string, cmd *exec.Cmd) (used func() (usage, error)) {
	t.Helper()
	log := &output{changed: make(chan struct{}, 1)}
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, startOn(cmd, cores))
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Log(cmd.Path + ":\n" + log.String())
		}
	})
	awaitListener(t, listens, ended)
	return func() (usage, error) {
		cpu, err := cpuTime(cmd.Process.Pid)
		return usage{CPU: cpu, Memory: residentMemory(cmd.Process.Pid)}, err
	}
}

// startConfigured starts the program that a variable names on a config, in which ADDRESS, PORT and UPSTREAM are replaced.
func startConfigured(t testing.TB, g *benchRig, cores benchCores, variable, file, config string, command func(program string) []string) (address, func() (usage, error), string) {
	program := os.Getenv(variable)
	if program == "" {
		return address{}, nil, variable + " is not set"
	}
	folder, listens := t.TempDir(), freeAddress()
	_, port, err := net.SplitHostPort(listens)
	require.NoError(t, err)
	config = strings.NewReplacer("ADDRESS", listens, "PORT", port, "UPSTREAM", g.upstream.address).Replace(config)
	require.NoError(t, os.WriteFile(filepath.Join(folder, file), []byte(config), 0o600))
	arguments := command(program)
	for i, a := range arguments {
		arguments[i] = strings.ReplaceAll(a, "ADDRESS", listens)
	}
	cmd := exec.Command(program, arguments...)
	cmd.Dir, cmd.Env = folder, append(os.Environ(), "XDG_DATA_HOME="+folder, "XDG_CONFIG_HOME="+folder)
	used := startProgram(t, cores.server, listens, cmd)
	return g.at(&benchProcess{address: listens}, "/orders"), used, ""
}

func startPlainNginx(t testing.TB, g *benchRig, cores benchCores) (address, func() (usage, error), string) {
	return startConfigured(t, g, cores, "DPOPGATE_TEST_NGINX", "nginx.conf", `
daemon off; master_process off; pid nginx.pid; error_log stderr error;
events { worker_connections 4096; }
http {
	access_log off;
	upstream api { server UPSTREAM; keepalive 64; keepalive_requests 1000000000; }
	server {
		listen ADDRESS;
		keepalive_requests 1000000000;
		location / { proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection ""; }
	}
}`, func(string) []string { return []string{"-p", ".", "-c", "nginx.conf", "-e", "stderr"} })
}

func startHAProxy(t testing.TB, g *benchRig, cores benchCores) (address, func() (usage, error), string) {
	return startConfigured(t, g, cores, "DPOPGATE_TEST_HAPROXY", "haproxy.cfg", `
global
	nbthread 1
defaults
	mode http
	timeout connect 5s
	timeout client 60s
	timeout server 60s
	http-reuse always
frontend load
	bind ADDRESS
	default_backend api
backend api
	server api UPSTREAM
`, func(string) []string { return []string{"-db", "-f", "haproxy.cfg"} })
}

func startCaddy(t testing.TB, g *benchRig, cores benchCores) (address, func() (usage, error), string) {
	return startConfigured(t, g, cores, "DPOPGATE_TEST_CADDY", "Caddyfile", `{
	admin off
	auto_https off
}
http://:PORT {
	bind 127.0.0.1
	reverse_proxy UPSTREAM
}
`, func(string) []string { return []string{"run", "--config", "Caddyfile", "--adapter", "caddyfile"} })
}

func startTraefik(t testing.TB, g *benchRig, cores benchCores) (address, func() (usage, error), string) {
	return startConfigured(t, g, cores, "DPOPGATE_TEST_TRAEFIK", "routes.yaml", `
http:
  routers:
    all: {rule: "PathPrefix(`+"`/`"+`)", service: api}
  services:
    api: {loadBalancer: {servers: [{url: "http://UPSTREAM"}]}}
`, func(string) []string {
		return []string{
			"--entrypoints.web.address=ADDRESS", "--providers.file.filename=routes.yaml", "--log.level=ERROR",
			"--global.checknewversion=false", "--global.sendanonymoususage=false",
		}
	})
}

func startNodeGateway(t testing.TB, g *benchRig, cores benchCores) (address, func() (usage, error), string) {
	clients, err := filepath.Abs("../../testdata/clients")
	require.NoError(t, err)
	program, err := exec.LookPath("node")
	if err != nil {
		return address{}, nil, "node is not there"
	}
	if _, err := os.Stat(filepath.Join(clients, "node_modules", "jose")); err != nil {
		return address{}, nil, "the packages of testdata/clients are not installed"
	}
	tokens, listens := filepath.Join(t.TempDir(), "tokens.json"), freeAddress()
	require.NoError(t, os.WriteFile(tokens, []byte(g.tokens(t)), 0o600))
	cmd := exec.Command(program, filepath.Join(clients, "gateway.mjs"), listens, g.upstream.address, tokens)
	used := startProgram(t, cores.server, listens, cmd)
	return g.at(&benchProcess{address: listens}, "/orders"), used, ""
}

// startNginxAsking is nginx on the config that init --for nginx writes, with a gateway that it asks.
func startNginxAsking(t testing.TB, g *benchRig, cores benchCores) (address, func() (usage, error), string) {
	program := os.Getenv("DPOPGATE_TEST_NGINX")
	if program == "" {
		return address{}, nil, "DPOPGATE_TEST_NGINX is not set"
	}
	listens, folder := freeAddress(), t.TempDir()
	to := g.at(&benchProcess{address: listens}, "/checked")
	asked := g.gatewayPart()
	asked.Config = strings.NewReplacer("http://localhost:${BENCH_PORT}", "http://"+to.url.Host, "admin: \"\"}", "admin: \"\", trusted_proxies: [127.0.0.0/8]}").Replace(asked.Config) +
		"forward_auth: {path: /_dpopgate/verify}\n"
	gateway, err := g.start(benchProgram(t), cores.server, asked)
	require.NoError(t, err)
	text := strings.NewReplacer("127.0.0.1:8080", gateway.address, "127.0.0.1:9000", g.upstream.address, "127.0.0.1:8081", listens,
		"keepalive 32;", "keepalive 64; keepalive_requests 1000000000;", "server_name api.example.com;", "keepalive_requests 1000000000;").Replace(frontFile(t, "nginx.conf"))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "api.conf"), []byte(text), 0o600))
	main := "daemon off; master_process off; pid nginx.pid; error_log stderr error; events { worker_connections 4096; } http { access_log off; include api.conf; }"
	require.NoError(t, os.WriteFile(filepath.Join(folder, "main.conf"), []byte(main), 0o600))
	nginx := startProgram(t, cores.server, listens, exec.Command(program, "-p", folder, "-c", filepath.Join(folder, "main.conf"), "-e", "stderr"))
	return to, func() (usage, error) {
		used, err := gateway.usage()
		if err != nil {
			return used, err
		}
		front, err := nginx()
		return usage{CPU: used.CPU + front.CPU, Memory: used.Memory + front.Memory}, err
	}, ""
}

// frontFile is a config that init --for writes.
func frontFile(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("fronts", name))
	require.NoError(t, err)
	return string(text)
}

// startServe is a gateway by another build of the program, which need not know of benches.
func startServe(t testing.TB, g *benchRig, cores benchCores, program string) (address, func() (usage, error), string) {
	listens := freeAddress()
	_, port, _ := strings.Cut(listens, ":")
	p := g.gatewayPart()
	pairs := []string{"${BENCH_PORT}", port}
	for name, value := range p.Variables {
		pairs = append(pairs, "${"+name+"}", value)
	}
	file := filepath.Join(t.TempDir(), "dpopgate.yaml")
	require.NoError(t, os.WriteFile(file, []byte(strings.NewReplacer(pairs...).Replace(p.Config)), 0o600))
	used := startProgram(t, cores.server, listens, exec.Command(program, "serve", "-c", file))
	return g.at(&benchProcess{address: listens}, "/checked"), used, ""
}

// proveChecks says what a server lets through that it must refuse: a proof for the second time, and one by another key
// than the token's. A server that is fast because it does not look is none to be measured beside.
func proveChecks(ctx context.Context, g *benchRig, l *lane) error {
	shots, err := l.load(ctx, 1)
	if err != nil {
		return err
	}
	stolen, err := signShots(ctx, l.to, 1, func() (*benchClient, string) { return g.clients[0], g.clients[1].token },
		func(*benchClient) answered { return answered{status: http.StatusUnauthorized} })
	if err != nil {
		return err
	}
	senders := l.to.senders(1)
	defer senders[0].close()
	before, err := l.seen()
	if err != nil {
		return err
	}
	if _, err := fire(ctx, senders, shots, 0); err != nil {
		return fmt.Errorf("a good request: %w", err)
	}
	shots[0].want = answered{status: http.StatusUnauthorized}
	if _, err := fire(ctx, senders, shots, 0); err != nil {
		return fmt.Errorf("a proof for the second time: %w", err)
	}
	if _, err := fire(ctx, senders, stolen, 0); err != nil {
		return fmt.Errorf("a proof by another key: %w", err)
	}
	after, err := l.seen()
	if err == nil && after != before+1 {
		err = fmt.Errorf("the upstream has seen %d requests of three, want the good one", after-before)
	}
	return err
}

func TestNeighboursCheckWhatTheirRowsSay(t *testing.T) {
	t.Parallel()
	cores := benchCores{}
	load := benchLoad{alg: "ES256", keys: 2, connections: 2, requests: 2 * benchRounds, replay: "memory"}
	g, err := newBenchRig(t.Context(), benchProgram(t), cores, load, &progress{})
	t.Cleanup(g.close)
	require.NoError(t, err)
	for _, n := range neighbours {
		t.Run(n.name, func(t *testing.T) {
			to, used, absent := n.start(t, g, cores)
			if absent != "" {
				require.Empty(t, os.Getenv("CI"), absent)
				t.Skip(absent)
			}
			l := g.lane(n.name, to, used, n.proof, !n.hides)
			if !n.proof { // what shows that the check can fail
				require.ErrorContains(t, proveChecks(t.Context(), g, l), "a proof for the second time")
			} else {
				require.NoError(t, proveChecks(t.Context(), g, l))
			}
			l.senders = l.to.senders(2)
			t.Cleanup(func() {
				for _, s := range l.senders {
					s.close()
				}
			})
			shots, err := l.load(t.Context(), 10)
			require.NoError(t, err)
			r, err := l.shoot(t.Context(), shots)
			require.NoError(t, err)
			require.Positive(t, r.cpu)
		})
	}
}

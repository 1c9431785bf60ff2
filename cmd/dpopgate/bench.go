package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/dpop"
)

// benchOptions are the flags of bench.
type benchOptions struct {
	benchLoad
	duration time.Duration
	asJSON   bool
	alg      string

	url, unchecked, key, token, credentials string
	pid                                     int
}

func newBenchCommand(e *env) *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench [--url URL]",
		Short: "Measure what a checked request costs beside an unchecked one",
		Long: "Starts a gateway, a sample API behind it and a plain reverse proxy beside it, each a process of its own on this\n" +
			"machine, and sends all of them the same requests, in turn and in short rounds. Each has a fresh proof, signed before\n" +
			"its round; each answer is checked, and that the API heard who calls. Where there are two cores, the servers have one\n" +
			"for themselves, so that CPU per request is that of one core, near its limit. Only ratios say something about another\n" +
			"machine.\n\n" +
			"With --url it sends to a gateway that runs already, which it starts nothing beside.",
		Example: `  dpopgate bench --keys 1000 --alg EdDSA
  dpopgate bench --url https://api.example.com/orders/ --key client.jwk --token - --unchecked https://api.example.com/health <token`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd.Flags().Changed); err != nil {
				return err
			}
			return runBench(cmd.Context(), e, &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.alg, "alg", string(dpop.ES256), "the `ALGORITHM` of the keys")
	f.IntVar(&o.keys, "keys", 100, "how many keys, each with a token")
	f.IntVar(&o.connections, "connections", 32, "how many requests are under way at a time, each on its connection; over HTTP/2, 8 share one")
	f.IntVar(&o.requests, "requests", 20000, "how many requests of each kind to measure")
	f.DurationVar(&o.duration, "duration", 2*time.Minute, "stop with fewer, after this time")
	f.BoolVar(&o.tls, "tls", false, "send over TLS")
	f.BoolVar(&o.http2, "http2", false, "send over HTTP/2, and so over TLS")
	f.StringVar(&o.replay, "replay", "memory", "where the gateway remembers used proofs: memory or a redis:// URL, in which ${NAME} is an environment variable")
	f.Float64Var(&o.missRatio, "miss-ratio", 0, "the part of the tokens, from 0 to 1, that the gateway has to look up")
	f.BoolVar(&o.asJSON, "json", false, "print the result as JSON")
	f.StringVar(&o.url, "url", "", "measure the gateway at this `URL`, with GET requests")
	f.StringVar(&o.unchecked, "unchecked", "", "with --url: compare with this `URL`, which asks for no token")
	f.StringVar(&o.key, "key", "", "with --url: the client's private key, JWK or PEM, in this `FILE`")
	f.StringVar(&o.token, "token", "", "with --url: the access `TOKEN`, or - to read it from stdin")
	f.StringVar(&o.credentials, "credentials", "", "with --url, for several clients: a `FILE` with a line {\"token\": …, \"key\": JWK} for each")
	f.IntVar(&o.pid, "pid", 0, "with --url: the process of the gateway, on this machine, whose CPU is counted")
	cmd.MarkFlagsMutuallyExclusive("key", "credentials")
	cmd.MarkFlagsMutuallyExclusive("token", "credentials")
	cmd.AddCommand(newBenchPartCommand(e))
	return cmd
}

// The bounds of a bench.
const (
	maxBenchKeys        = 100_000
	maxBenchConnections = 10_000
	maxBenchRequests    = 10_000_000
	maxBenchDuration    = time.Hour
)

// check says what is wrong with the flags.
func (o *benchOptions) check(given func(flag string) bool) error {
	o.benchLoad.alg = dpop.Algorithm(o.alg)
	o.tls = o.tls || o.http2
	switch {
	case !dpop.Known(o.benchLoad.alg):
		return usagef("--alg %q: want one of ES256, ES384, ES512, EdDSA, Ed25519, PS256, PS384, PS512, RS256, RS384, RS512", o.alg)
	case o.keys < 1 || o.keys > maxBenchKeys:
		return usagef("--keys %d: want 1 to %d", o.keys, maxBenchKeys)
	case o.connections < 1 || o.connections > maxBenchConnections:
		return usagef("--connections %d: want 1 to %d", o.connections, maxBenchConnections)
	case o.requests < benchRounds || o.requests > maxBenchRequests:
		return usagef("--requests %d: want %d to %d", o.requests, benchRounds, maxBenchRequests)
	case o.duration <= 0 || o.duration > maxBenchDuration:
		return usagef("--duration %v: want more than 0 and at most %v", o.duration, maxBenchDuration)
	case !(o.missRatio >= 0 && o.missRatio <= 1):
		return usagef("--miss-ratio %v: want 0 to 1", o.missRatio)
	case o.replay == "postgres":
		return usagef("--replay postgres: the gateway of a bench has the embedded store; want memory or a redis:// URL")
	case o.key == "-" && o.token == "-":
		return usagef("--key and --token cannot both be read from stdin")
	}
	for _, flag := range []string{"unchecked", "key", "token", "credentials", "pid"} {
		if o.url == "" && given(flag) {
			return usagef("--%s goes with --url", flag)
		}
	}
	for _, flag := range []string{"alg", "keys", "tls", "replay", "miss-ratio"} {
		if o.url != "" && given(flag) {
			return usagef("--%s is about the gateway that a bench starts, and --url names another", flag)
		}
	}
	return nil
}

// runBench measures, and prints what it found.
func runBench(ctx context.Context, e *env, o *benchOptions) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	signals, release := e.signals(stopping...)
	defer release()
	go func() {
		select {
		case <-signals:
			stop()
		case <-ctx.Done():
		}
	}()
	bar := newProgress(e)
	defer bar.clear()
	cores := splitCores(allowedCores())
	if o.url != "" {
		cores = benchCores{} // where that server runs is not ours to say
	}
	if cores.load != nil {
		back, err := stayOn(cores.load)
		if err != nil {
			return err
		}
		defer back()
	}
	measure := o.measureOwn
	if o.url != "" {
		measure = o.measureURL
	}
	lanes, end, err := measure(ctx, e, cores, bar)
	defer end()
	if err != nil {
		return err
	}
	show := func(round int, lane string) { bar.at(round, o.rounds(), lane) }
	err = race(ctx, lanes, o.rounds(), o.round(), o.connections, time.Now().Add(o.duration), show)
	bar.clear()
	if err != nil {
		return err
	}
	return printBench(e, o, cores, results(lanes))
}

// measureOwn starts what is measured. All of it ends with end, which is to be called also when there is an error.
func (o *benchOptions) measureOwn(ctx context.Context, _ *env, cores benchCores, bar *progress) (lanes []*lane, end func(), err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, func() {}, err
	}
	g, err := newBenchRig(ctx, program, cores, o.benchLoad, bar)
	if err != nil {
		return nil, g.close, err
	}
	plain, err := g.start(program, cores.server, g.plainPart())
	if err != nil {
		return nil, g.close, err
	}
	gateway, err := g.start(program, cores.server, g.gatewayPart())
	if err != nil {
		return nil, g.close, err
	}
	return []*lane{
		g.lane("plain ReverseProxy, nothing checked", g.at(plain, "/plain"), plain.usage, false, true),
		g.lane("gateway, public route", g.at(gateway, "/public"), gateway.usage, false, false),
		g.lane("gateway, everything checked", g.at(gateway, "/checked"), gateway.usage, true, false),
		g.refusedLane("gateway, unknown token refused", gateway),
	}, g.close, nil
}

// measureURL measures what runs already.
func (o *benchOptions) measureURL(_ context.Context, e *env, _ benchCores, _ *progress) (lanes []*lane, end func(), err error) {
	end = func() {}
	checked, err := benchAddress(o.url, o.http2)
	if err != nil {
		return nil, end, err
	}
	clients, err := o.clients(e, checked.url)
	if err != nil {
		return nil, end, err
	}
	o.benchLoad.alg, o.keys, o.tls = clients[0].key.Algorithm(), len(clients), checked.tls != nil
	turn := 0
	pick := func() (*benchClient, string) {
		turn++
		c := clients[turn%len(clients)]
		return c, c.token
	}
	nobody := func() (*benchClient, string) { return clients[0], "" }
	if o.unchecked != "" {
		to, err := benchAddress(o.unchecked, o.http2)
		if err != nil {
			return nil, end, err
		}
		lanes = append(lanes, o.urlLane("unchecked", to, nobody))
	}
	return append(lanes, o.urlLane("checked", checked, pick)), end, nil
}

func (o *benchOptions) urlLane(name string, to address, pick func() (*benchClient, string)) *lane {
	success := func(*benchClient) answered { return answered{} }
	load := func(ctx context.Context, n int) ([]shot, error) { return signShots(ctx, to, n, pick, success) }
	l := &lane{name: name, to: to, load: load, warm: load, warmUp: o.round()}
	if o.pid > 0 {
		l.usage = func() (usage, error) {
			cpu, err := cpuTime(o.pid)
			return usage{CPU: cpu, Memory: residentMemory(o.pid)}, err
		}
	}
	return l
}

func benchAddress(text string, http2 bool) (address, error) {
	u, err := callURL(text)
	if err != nil {
		return address{}, err
	}
	a := address{url: u, http2: http2}
	if u.Scheme == "https" {
		a.tls = &tls.Config{}
	} else if http2 {
		return a, usagef("--http2 wants an https URL")
	}
	return a, nil
}

// clients are those of the flags, or without any that of a demo at the URL.
func (o *benchOptions) clients(e *env, u *url.URL) ([]*benchClient, error) {
	if o.credentials == "" {
		one := call{keyFile: o.key, token: o.token}
		key, token, err := one.credentials(e, u, func(flag string) bool { return flag == "key" && o.key != "" || flag == "token" && o.token != "" })
		return []*benchClient{{key: key, token: token}}, err
	}
	f, err := os.Open(o.credentials)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var clients []*benchClient
	for lines := json.NewDecoder(f); ; {
		var c demoCredentials
		err := lines.Decode(&c)
		if err == io.EOF && len(clients) > 0 {
			return clients, nil
		}
		if err != nil || len(clients) == maxBenchKeys {
			return nil, fmt.Errorf(`%s: want 1 to %d lines {"token": "…", "key": JWK}; line %d is none`, o.credentials, maxBenchKeys, len(clients)+1)
		}
		key, err := dpop.ReadKey(c.Key)
		if err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", o.credentials, len(clients)+1, err)
		}
		clients = append(clients, &benchClient{key: key, token: c.Token})
	}
}

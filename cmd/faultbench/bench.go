package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
)

// bench is a fleet with all that it stands on, and those who call it.
type bench struct {
	folder       string
	say          io.Writer // progress
	binary       string    // the gateway
	anotherClock string    // the gateway with another clock; empty: it is not built
	bounds       bounds

	postgres      *postgres
	valkey        *valkey
	upstream      *upstream
	fleet         []*instance
	balancer      *process
	turns, kept   string                 // addresses of the balancer
	front         atomic.Pointer[string] // the one of them that clients call
	onReplayError string                 // dpop.replay_on_error
	issuer        *issuer

	ledger  *ledger
	windows windows
	crowd   *crowd
	thieves []*thief
	revoker *revoker
}

// size is how much of everything there is.
type size struct {
	clients, thieves, fresh int
	think                   time.Duration // of a client
	revocations             time.Duration // the pause between two
	access                  bool          // whether gateways log each request
}

// programs are the servers of the rig.
type programs struct{ postgres, valkey, haproxy string }

// newBench starts everything, in a folder of its own that close removes.
func newBench(ctx context.Context, p programs, binary string, bounds bounds, size size, say io.Writer) (b *bench, err error) {
	b = &bench{say: say, binary: binary, bounds: bounds, onReplayError: "refuse"}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.folder, err = os.MkdirTemp("", "faultbench."); err != nil {
		return b, err
	}
	if err = os.Chmod(b.folder, 0o711); err != nil { // so that the user of Postgres reaches its own folder
		return b, err
	}
	if b.binary == "" {
		b.binary = filepath.Join(b.folder, "dpopgate")
		if err = buildGateway(ctx, b.binary); err != nil {
			return b, err
		}
	}
	if b.upstream, err = newUpstream(); err != nil {
		return b, err
	}
	if b.postgres, err = newPostgres(ctx, b.folder, p.postgres); err != nil {
		return b, err
	}
	if b.valkey, err = newValkey(ctx, b.folder, p.valkey); err != nil {
		return b, err
	}
	b.turns, b.kept = freeAddress(), freeAddress()
	b.front.Store(&b.turns)
	b.ledger = &ledger{url: "http://" + b.turns}
	for _, name := range []string{"a", "b", "c"} {
		i := &instance{
			name: name, binary: b.binary, folder: b.folder, config: filepath.Join(b.folder, name+".yaml"),
			address: freeAddress(), admin: freeAddress(),
		}
		if i.relay, err = newRelay(b.postgres.address); err != nil {
			return b, err
		}
		b.fleet = append(b.fleet, i)
		if err = i.configure(b.config(i, size.access)); err != nil {
			return b, err
		}
	}
	if err = b.migrate(ctx); err != nil {
		return b, err
	}
	for _, i := range b.fleet {
		if _, err = i.start(ctx); err != nil {
			return b, err
		}
		if i.idle, err = i.footprint(); err != nil {
			return b, err
		}
	}
	if b.balancer, err = newBalancer(ctx, b.folder, p.haproxy, b.turns, b.kept, b.fleet); err != nil {
		return b, err
	}
	return b, b.populate(ctx, size)
}

// program is the gateway's package.
const program = "github.com/dpopgate/dpopgate/cmd/dpopgate"

// buildGateway builds the program as the Dockerfile does; flags come besides.
func buildGateway(ctx context.Context, to string, flags ...string) error {
	build := exec.CommandContext(ctx, "go", append(append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", to}, flags...), program)...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the gateway: %w\n%s", err, said)
	}
	return nil
}

// config is that of an instance.
func (b *bench) config(i *instance, access bool) string {
	return fmt.Sprintf(`
public_urls: [%q]
listen: {http: %q, admin: %q, trusted_proxies: [127.0.0.0/8]}
store: {postgres: %q, timeout: %s}
cache: {ttl: %s, stale_on_error: %s}
dpop: {replay: "redis://%s", replay_on_error: %s}
limits: {drain_delay: %s, drain_timeout: 10s}
log: {access: %t}
routes:
  - {match: /orders/, upstream: "http://%[12]s", scopes: [orders]}
  - {match: /admin/, upstream: "http://%[12]s", scopes: [admin]}
`, b.ledger.url, i.address, i.admin, b.postgres.dsn(i.relay.address()), b.bounds.timeout, b.bounds.ttl, b.bounds.stale, b.valkey.address, b.onReplayError, drainDelay, access, b.upstream.address)
}

// migrate makes the table and its triggers, and the one client that tokens are issued to.
func (b *bench) migrate(ctx context.Context) error {
	migrate := exec.CommandContext(ctx, b.binary, "migrate", "--revocation", "-c", b.fleet[0].config)
	if said, err := migrate.CombinedOutput(); err != nil {
		return fmt.Errorf("migrate: %w\n%s", err, said)
	}
	b.issuer = &issuer{postgres: b.postgres, client: uuid.New()}
	return b.postgres.exec(ctx, "INSERT INTO oauth_clients (id) VALUES ('"+b.issuer.client.String()+"')")
}

// populate makes those who call the fleet.
func (b *bench) populate(ctx context.Context, size size) (err error) {
	if b.crowd, err = newCrowd(ctx, b, size.clients, size.fresh, size.think); err != nil {
		return err
	}
	for range size.thieves {
		t, err := newThief(ctx, b)
		if err != nil {
			return err
		}
		b.thieves = append(b.thieves, t)
	}
	b.revoker = &revoker{bench: b, pause: size.revocations}
	return nil
}

// door is where a client calls: every fourth at an instance itself.
func (b *bench) door(n int) (*instance, *wire) {
	if n%4 != 0 {
		return nil, &wire{address: *b.front.Load()}
	}
	at := b.fleet[n/4%len(b.fleet)]
	return at, &wire{address: at.address}
}

// work has everybody call until ctx ends, and returns when the last has hung up.
func (b *bench) work(ctx context.Context) {
	var all sync.WaitGroup
	for n := range b.crowd.hot {
		all.Go(func() { b.crowd.work(ctx, n) })
	}
	for _, t := range b.thieves {
		all.Go(func() { t.work(ctx) })
	}
	all.Go(func() { b.revoker.work(ctx) })
	all.Go(func() { b.crowd.refill(ctx) })
	all.Wait()
}

// tell says how far the bench is.
func (b *bench) tell(format string, args ...any) {
	fmt.Fprintf(b.say, "%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

// close ends everything that was started, by what it was started as.
func (b *bench) close() {
	if b.balancer != nil {
		b.balancer.kill()
	}
	for _, i := range b.fleet {
		if i.process != nil {
			i.process.stop(syscall.SIGINT)
		}
		i.relay.close()
	}
	if b.valkey != nil && b.valkey.process != nil {
		b.valkey.process.kill()
	}
	if b.postgres != nil && b.postgres.process != nil {
		b.postgres.process.kill()
	}
	if b.upstream != nil {
		b.upstream.server.Close()
	}
	os.RemoveAll(b.folder)
}

// Faultbench is the referee of a fleet: three gateways as they are shipped, on Postgres and Valkey, behind HAProxy, under a
// load of honest and of illegal requests, while all of these are killed, frozen, cut off and restarted. Afterwards each
// request is reconciled with what the upstream saw. It exits with 1 unless no illegal request has passed, no proof was
// accepted twice, and no honest request was refused or lost outside the declared windows.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := start(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// errFaults says that the bench has found something, which it has printed.
var errFaults = errors.New("a fleet is to do better than that")

func start(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	var o options
	flags := flag.NewFlagSet("faultbench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.short, "short", false, "about a minute instead of up to ten")
	flags.StringVar(&o.only, "only", "", "only faults with this in their name")
	flags.StringVar(&o.gateway, "gateway", "", "a `binary` to test instead of building one")
	flags.StringVar(&o.write, "write", "", "put the table into this `file`, if all is well")
	flags.DurationVar(&o.soak, "soak", 0, "no faults, but so long at about 70 % of what the machine can do")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintln(stderr, "faultbench: it takes no arguments, only flags")
		return 2
	}
	if err := o.run(ctx, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "faultbench:", err)
		return 1
	}
	return 0
}

// options are the flags.
type options struct {
	short                bool
	only, gateway, write string
	soak                 time.Duration
}

// servers finds the programs of the rig, which ./test names.
func servers() (p programs, err error) {
	p = programs{os.Getenv(postgresVariable), os.Getenv(valkeyVariable), os.Getenv(haproxyVariable)}
	if p.postgres == "" || p.valkey == "" || p.haproxy == "" {
		err = fmt.Errorf("%s, %s and %s have to name the programs: ./test faults does that", postgresVariable, valkeyVariable, haproxyVariable)
	}
	return p, err
}

// The variables that name the programs: the folder of Postgres's, and the two servers.
const (
	postgresVariable = "DPOPGATE_TEST_POSTGRES_PROGRAMS"
	valkeyVariable   = "DPOPGATE_TEST_VALKEY"
	haproxyVariable  = "DPOPGATE_TEST_HAPROXY"
)

func (o options) run(ctx context.Context, stdout, stderr io.Writer) error {
	p, err := servers()
	if err != nil {
		return err
	}
	size := size{clients: 48, thieves: 6, fresh: 6000, think: 120 * time.Millisecond, revocations: 250 * time.Millisecond, access: true}
	bounds := bounds{timeout: 2 * time.Second, ttl: 4 * time.Second, stale: 15 * time.Second, notice: time.Second, recovery: 2 * time.Second}
	if o.short { // as a test among others, on a machine that is busy: what is late is no fault there
		size.clients, size.think, size.fresh = 24, 150*time.Millisecond, 2000
		bounds.ttl, bounds.notice = 2*time.Second, 3*time.Second
	}
	if o.soak > 0 {
		size.clients, size.access = 64, false
	}
	b, err := newBench(ctx, p, o.gateway, bounds, size, stderr)
	if err != nil {
		return err
	}
	defer b.close()
	if o.soak > 0 {
		return b.soak(ctx, o.soak, stdout)
	}
	faults := o.faults()
	if len(faults) == 0 {
		return fmt.Errorf("no fault has %q in its name", o.only)
	}
	if slices.ContainsFunc(faults, func(f fault) bool { return f.name == clocksApart }) {
		b.anotherClock = filepath.Join(b.folder, "dpopgate-another-clock")
		if err := buildWithAnotherClock(ctx, b.folder, b.anotherClock); err != nil {
			return err
		}
	}
	s := &script{bench: b, long: !o.short}
	if err := s.play(ctx, faults); err != nil {
		return err
	}
	r := s.report()
	fmt.Fprint(stdout, r.table(), "\n", r.figures(), r.failures())
	if r.failures() != "" {
		return errFaults
	}
	if o.write != "" {
		return writeBetweenMarkers(o.write, r.table())
	}
	return nil
}

// faults are those that are to strike.
func (o options) faults() (chosen []fault) {
	for _, f := range allFaults {
		if (f.short || !o.short) && strings.Contains(f.name, cmp.Or(o.only, f.name)) {
			chosen = append(chosen, f)
		}
	}
	return chosen
}

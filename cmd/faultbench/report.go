package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// report is what a run came to.
type report struct {
	script   *script
	total    tally
	findings []*finding
	wrong    []string // what is wrong besides
	facts    []string
}

// report reconciles, once nobody calls any more.
func (s *script) report() *report {
	r := &report{script: s, wrong: s.wrong}
	requests := len(s.ledger.requests)
	r.total, r.findings = s.reconcile()
	if s.upstream.odd > 0 {
		r.fail("the upstream saw %d requests that nobody has sent", s.upstream.odd)
	}
	for _, row := range s.rows {
		if row.tally.passed == 0 || row.tally.refused == 0 {
			r.fail("%s: nobody called", row.fault.name)
		}
		r.tell("%s: lasted %s, felt for another %s, slowest answer to an honest client %s", row.fault.name, round(row.lasted), round(row.recovery), round(row.slowest))
		for _, note := range row.notes {
			r.tell("%s: %s", row.fault.name, note)
		}
	}
	each, slowest := s.revoker.delays(&s.windows)
	r.tell("%d revocations while notices worked: of all instances p50 %s, p99 %s, max %s; of the slowest of three p50 %s, p99 %s, max %s", len(slowest),
		round(quantile(each, .5)), round(quantile(each, .99)), round(quantile(each, 1)),
		round(quantile(slowest, .5)), round(quantile(slowest, .99)), round(quantile(slowest, 1)))
	r.promise("a revocation is seen by an instance within 50 ms at p99", quantile(each, .99) <= 50*time.Millisecond)
	r.promise("a revocation is seen by all three within 250 ms at p99", quantile(slowest, .99) <= 250*time.Millisecond)
	if s.restarted > 0 {
		r.promise(fmt.Sprintf("an instance that was killed is ready within 1 s of its start (%s)", round(s.restarted)), s.restarted <= time.Second)
	}
	for _, i := range s.fleet {
		i.note()
		r.tell("instance %s took at most %d MiB", i.name, i.highest>>20)
		if i.highest > 256<<20 {
			r.fail("instance %s took more than 256 MiB", i.name)
		}
	}
	r.leaks()
	r.secrets()
	r.tell("%d requests, %d of them from clients that nobody may refuse", requests, r.total.passed+r.total.away+r.total.challenged)
	return r
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

func (r *report) tell(format string, args ...any) {
	r.facts = append(r.facts, fmt.Sprintf(format, args...))
}

func (r *report) fail(format string, args ...any) {
	r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
}

// promise tells whether something was kept that depends on the machine, and so fails nothing.
func (r *report) promise(what string, kept bool) {
	word := "kept"
	if !kept {
		word = "NOT KEPT"
	}
	r.tell("%s: %s", what, word)
}

// leaks has everything that calls the instances end, and wants them to hold no more then than when they began.
func (r *report) leaks() {
	s := r.script
	s.balancer.kill()
	s.upstream.server.Close()
	const slack = 14 // connections to the stores, kept for later: ten of a pool, and a few
	for _, i := range s.fleet {
		var now footprint
		err := await(context.Background(), "the instance holds no more than when it began", func() bool {
			f, err := i.footprint()
			now = f
			return err == nil && f.goroutines <= i.idle.goroutines+slack && f.files <= i.idle.files+slack
		})
		r.tell("instance %s: %.0f goroutines and %.0f files when it began, %.0f and %.0f afterwards", i.name, i.idle.goroutines, i.idle.files, now.goroutines, now.files)
		if err != nil {
			r.fail("instance %s keeps goroutines or files", i.name)
		}
	}
}

// secrets looks for tokens and proofs in the logs.
func (r *report) secrets() {
	logs, _ := filepath.Glob(filepath.Join(r.script.folder, "*.log"))
	for _, file := range logs {
		text, err := os.ReadFile(file)
		if err != nil {
			r.fail("%v", err)
		}
		for what, mark := range map[string]string{"token": tokenMark, "proof": `eyJ`, "password": r.script.postgres.password} {
			if bytes.Contains(text, []byte(mark)) {
				r.fail("%s holds a %s", filepath.Base(file), what)
			}
		}
	}
}

// table is what README quotes: counts, and no figure that depends on the machine.
func (r *report) table() string {
	var b strings.Builder
	b.WriteString("| fault | requests | honest, let through | honest, told to come again | illegal, refused | illegal through | proofs twice | lost | wrongly refused | well again |\n")
	b.WriteString("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n")
	line := func(name string, t tally, recovered string) {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d | %d | %d | %s |\n", name, t.requests, t.passed, t.away, t.refused,
			t.through+t.imposter, t.doubled, t.lost, t.denied, recovered)
	}
	for _, row := range r.script.rows {
		line(row.fault.name, row.tally, r.recovered(row))
	}
	line("**all**", r.total, "")
	return b.String()
}

// recovered is a word for how long after its mending a fault was felt: in the long form a request that feels it later than
// is allowed is wrongly refused.
func (r *report) recovered(row *row) string {
	switch {
	case row.recovery == 0:
		return "at once"
	case row.recovery <= r.script.bounds.recovery:
		return "within " + r.script.bounds.recovery.String()
	default:
		return "later"
	}
}

// figures are what else there is to know of this run on this machine.
func (r *report) figures() string { return strings.Join(r.facts, "\n") + "\n" }

// failures are empty if all is as it should be.
func (r *report) failures() string {
	var b strings.Builder
	for _, f := range r.findings {
		fmt.Fprintln(&b, f)
	}
	for _, wrong := range r.wrong {
		fmt.Fprintln(&b, wrong)
	}
	if b.Len() == 0 && !r.total.faultless() {
		b.WriteString("a zero is not zero\n")
	}
	return b.String()
}

const beginMark, endMark = "<!-- faults: ./test faults -write writes this -->\n", "<!-- end of faults -->\n"

// writeBetweenMarkers replaces what stands between the markers in a file.
func writeBetweenMarkers(file, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(old), beginMark)
	_, after, ended := strings.Cut(rest, endMark)
	if !found || !ended {
		return fmt.Errorf("%s: want the lines %q and %q", file, strings.TrimSpace(beginMark), strings.TrimSpace(endMark))
	}
	return os.WriteFile(file, []byte(before+beginMark+text+endMark+after), 0o644)
}

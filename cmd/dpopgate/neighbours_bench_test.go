package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"
)

// benchFlags are what ./test bench was given.
type benchFlags struct {
	write    bool
	growth   bool
	huge     bool
	requests int
	before   string // another build of the gateway, to compare with
}

// readBenchFlags skips what nobody has asked for.
func readBenchFlags(b *testing.B) benchFlags {
	text, asked := os.LookupEnv("DPOPGATE_BENCH")
	if !asked {
		b.Skip("DPOPGATE_BENCH is not set: ./test bench sets it")
	}
	f := benchFlags{requests: 20000}
	words := strings.Fields(text)
	for i := 0; i < len(words); i++ {
		value := func() string {
			i++
			require.Less(b, i, len(words), "%s wants a value", words[i-1])
			return words[i]
		}
		switch words[i] {
		case "--write":
			f.write = true
		case "--growth":
			f.growth = true
		case "--huge":
			f.huge = true
		case "--before":
			f.before = value()
		case "--requests":
			n, err := strconv.Atoi(value())
			require.NoError(b, err)
			f.requests = n
		default:
			require.Fail(b, "./test bench takes --write, --growth, --huge, --before PROGRAM, --requests N, or a package", words[i])
		}
	}
	return f
}

// anotherBuild is the row of --before, which no document gets.
const anotherBuild = "dpopgate before"

// benchTime is how long all rows may race.
const benchTime = 15 * time.Minute

// measured is a neighbour with what it took.
type measured struct {
	neighbour
	laneResult
}

// BenchmarkNeighbours is the table of the README: each neighbour under the same load, in turn.
func BenchmarkNeighbours(b *testing.B) {
	flags := readBenchFlags(b)
	cores := splitCores(allowedCores())
	if cores.load != nil {
		back, err := stayOn(cores.load)
		require.NoError(b, err)
		b.Cleanup(back)
	}
	load := benchLoad{alg: "ES256", keys: 100, connections: 32, requests: flags.requests, replay: "memory"}
	g, err := newBenchRig(b.Context(), benchProgram(b), cores, load, &progress{})
	b.Cleanup(g.close)
	require.NoError(b, err)
	all := slices.Clone(neighbours)
	if flags.before != "" {
		before := neighbours[1]
		before.name = anotherBuild
		before.start = func(t testing.TB, g *benchRig, cores benchCores) (address, func() (usage, error), string) {
			return startServe(t, g, cores, flags.before)
		}
		all = append(all, before)
	}
	var lanes []*lane
	var there []neighbour
	for _, n := range all {
		to, used, absent := n.start(b, g, cores)
		if absent != "" {
			fmt.Printf("without %s: %s\n", n.name, absent)
			continue
		}
		l := g.lane(n.name, to, used, n.proof, !n.hides)
		if n.proof {
			require.NoError(b, proveChecks(b.Context(), g, l), n.name)
		}
		lanes, there = append(lanes, l), append(there, n)
	}
	show := func(round int, lane string) {}
	require.NoError(b, race(b.Context(), lanes, load.rounds(), load.round(), load.connections, time.Now().Add(benchTime), show))
	var rows []measured
	for i, r := range results(lanes) {
		rows = append(rows, measured{there[i], r})
	}
	slices.SortStableFunc(rows, func(a, b measured) int { return int(1000 * (a.Ratio - b.Ratio)) })
	printNeighbours(cores, load, rows)
	if flags.write {
		today := slices.DeleteFunc(rows, func(r measured) bool { return r.Name == anotherBuild })
		writeNeighbours(b, cores, load, today)
	}
}

func printNeighbours(cores benchCores, load benchLoad, rows []measured) {
	fmt.Printf("\n%s, %d keys, %d connections, %s; %s; %d rounds of %d requests\n\n", load.alg, load.keys, load.connections, load.protocol(), cores, rows[0].Rounds, load.round())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, benchHeads)
	for _, r := range rows {
		fmt.Fprintln(w, r.cells())
	}
	w.Flush()
	fmt.Println()
}

// sentence says what the figures are, for documents.
func sentence(cores benchCores, load benchLoad, rounds int) string {
	pinned := "the servers on one core, load and upstream on another"
	if cores.server == nil {
		pinned = "nothing pinned"
	}
	return fmt.Sprintf("CPU time for a request, that of the tuned `ReverseProxy` being 1: the median of %d rounds in turn and,\nin brackets, "+
		"their middle half. %d connections, %d keys, %s, %s, %s,\non %s/%s.", rounds, load.connections, load.keys, load.alg, load.protocol(), pinned, runtime.GOOS, runtime.GOARCH)
}

package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// benchReport is what --json prints.
type benchReport struct {
	Algorithm   string       `json:"alg,omitempty"`
	Keys        int          `json:"keys"`
	Connections int          `json:"connections"`
	Protocol    string       `json:"protocol"`
	Replay      string       `json:"replay,omitempty"`
	MissRatio   float64      `json:"miss_ratio"`
	Cores       string       `json:"cores"`
	Rows        []laneResult `json:"rows"`
}

// newBenchReport describes what was measured.
func newBenchReport(o *benchOptions, cores benchCores, rows []laneResult) benchReport {
	report := benchReport{
		Algorithm:   string(o.benchLoad.alg),
		Keys:        o.keys,
		Connections: o.connections,
		Protocol:    o.protocol(),
		Cores:       cores.String(),
		Rows:        rows,
	}
	if o.url == "" {
		report.MissRatio = o.missRatio
		report.Replay, _, _ = strings.Cut(o.replay, ":") // the rest may hold a password
	}
	return report
}

func printBench(e *env, o *benchOptions, cores benchCores, rows []laneResult) error {
	report := newBenchReport(o, cores, rows)
	if o.asJSON {
		return printJSON(e.stdout, report)
	}
	out, first := e.stdout, rows[0]
	fmt.Fprintf(out, "%s, %s, %s, %s", report.Algorithm, plural(report.Keys, "key"), plural(report.Connections, "connection"), report.Protocol)
	if o.url == "" {
		fmt.Fprintf(out, ", replay: %s, %.0f %% of the tokens looked up", report.Replay, 100*report.MissRatio)
	}
	fmt.Fprintf(out, "\n%s of %s for each row, in turn; medians, and the middle half of the ratios\n", plural(first.Rounds, "round"), plural(first.Requests/first.Rounds, "request"))
	checked := "every answer was checked, and what the API behind was told"
	if o.url != "" {
		checked = "every answer was checked for its status only"
	}
	fmt.Fprintf(out, "%s; %s\n\n", report.Cores, checked)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, benchHeads)
	for _, r := range rows {
		fmt.Fprintln(w, r.cells())
	}
	return w.Flush()
}

// benchHeads are what stands above the cells of a row.
const benchHeads = "CPU/request\tratio\t\trequests/s\tp50\tp99\tallocations\t\tmemory\t"

// cells are a row for a tabwriter.
func (r laneResult) cells() string {
	return fmt.Sprintf("%s\t%s\t%.0f\t%s\t%s\t%s\t%s\t  %s", known(r.CPU > 0, "%.1f µs", float64(r.CPU)/1e3),
		known(r.CPU > 0, "× %.2f\t%.2f–%.2f", r.Ratio, r.Low, r.High), r.PerSecond, brief(r.P50), brief(r.P99),
		known(r.Allocs > 0, "%.0f\t%.1f KiB", r.Allocs, r.Allocated/1024), known(r.Memory > 0, "%.0f MiB", float64(r.Memory)/(1<<20)), r.Name)
}

// known is a figure, or a dash for one that is not known; the tabs of the format are cells all the same.
func known(is bool, format string, figures ...any) string {
	if !is {
		return "–" + strings.Repeat("\t", strings.Count(format, "\t"))
	}
	return fmt.Sprintf(format, figures...)
}

// brief is a duration with three digits.
func brief(d time.Duration) string {
	unit := time.Nanosecond
	for d >= 1000*unit {
		unit *= 10
	}
	return d.Round(unit).String()
}

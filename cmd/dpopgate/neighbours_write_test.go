package main

import (
	"fmt"
	"html"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Where ./test bench --write puts what it found.
const (
	benchPlot   = "testdata/bench/verified.svg"
	benchReadme = "README.md"
)

func writeNeighbours(t testing.TB, cores benchCores, load benchLoad, rows []measured) {
	t.Helper()
	readme := filepath.Join(repositoryRoot, benchReadme)
	text, err := os.ReadFile(readme)
	require.NoError(t, err)
	block := sentence(cores, load, rows[0].Rounds) + "\n\n" + markdownTable(rows)
	changed, err := replaceBetween(string(text), "neighbours", block)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(readme, []byte(changed), 0o644))
	plot := filepath.Join(repositoryRoot, benchPlot)
	require.NoError(t, os.MkdirAll(filepath.Dir(plot), 0o755))
	require.NoError(t, os.WriteFile(plot, []byte(plotRows(rows)), 0o644))
	fmt.Println("written:", benchReadme, benchPlot)
}

// replaceBetween puts a block between the two comments of a name.
func replaceBetween(text, name, block string) (string, error) {
	begin, end := "<!-- bench: "+name+" -->\n", "<!-- end of "+name+" -->"
	before, rest, ok := strings.Cut(text, begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", fmt.Errorf("no %q … %q in the text", strings.TrimSpace(begin), end)
	}
	return before + begin + "\n" + strings.TrimSpace(block) + "\n\n" + end + after, nil
}

func markdownTable(rows []measured) string {
	var b strings.Builder
	b.WriteString("| server | checks | CPU |\n| --- | --- | --- |\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.Name, r.checks, ratioText(r.laneResult))
	}
	return b.String()
}

func ratioText(r laneResult) string {
	if r.Ratio == 1 && r.Low == 1 && r.High == 1 {
		return "1"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", r.Ratio, r.Low, r.High)
}

// plotRows is the table as bars. Its colours follow the reader's light or dark page.
func plotRows(rows []measured) string {
	const width, left, line, bar = 760, 250, 30, 18
	most := 0.0
	for _, r := range rows {
		most = max(most, r.High)
	}
	scale := float64(width-left-60) / most
	height := line*len(rows) + 40
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-labelledby="title">
<title id="title">CPU time for a request through dpopgate and other proxies, that of Go's tuned ReverseProxy being 1</title>
<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 11px; fill: #59636e }
.unchecked { fill: #afb8c1 }
.checked { fill: #d4a72c }
.ours { fill: #1a7f37 }
.half { stroke: #59636e; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.small { fill: #9198a1 }
.unchecked { fill: #656c76 }
.checked { fill: #bb8009 }
.ours { fill: #3fb950 }
.half { stroke: #9198a1 }
}
</style>
`, width, height)
	for i, r := range rows {
		kind := "unchecked"
		switch {
		case r.Name == "**dpopgate**":
			kind = "ours"
		case r.proof:
			kind = "checked"
		}
		y := line * i
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", left-10, y+20, html.EscapeString(plainName(r.Name)))
		fmt.Fprintf(&b, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\"/>\n", kind, left, y+6, r.Ratio*scale, bar)
		fmt.Fprintf(&b, "<line class=\"half\" x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\"/>\n", left+r.Low*scale, y+15, left+r.High*scale, y+15)
		fmt.Fprintf(&b, "<text class=\"small\" x=\"%.1f\" y=\"%d\">%.2f</text>\n", left+max(r.Ratio, r.High)*scale+8, y+19, r.Ratio)
	}
	x := left
	for _, kind := range []struct{ class, words string }{{"unchecked", "checks nothing"}, {"checked", "checks token, proof and replay"}, {"ours", "dpopgate, which does too"}} {
		fmt.Fprintf(&b, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"12\" height=\"12\" rx=\"2\"/>\n", kind.class, x, height-24)
		fmt.Fprintf(&b, "<text class=\"small\" x=\"%d\" y=\"%d\">%s</text>\n", x+18, height-14, kind.words)
		x += 40 + 6*len(kind.words)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// plainName is a name without Markdown.
func plainName(name string) string { return strings.NewReplacer("*", "", "`", "").Replace(name) }

func TestBenchWritesItsTableBetweenItsMarks(t *testing.T) {
	t.Parallel()
	text := "# A\n<!-- bench: x -->\nold\n<!-- end of x -->\nrest\n"
	changed, err := replaceBetween(text, "x", "| new |\n")
	require.NoError(t, err)
	assert.Equal(t, "# A\n<!-- bench: x -->\n\n| new |\n\n<!-- end of x -->\nrest\n", changed)
	again, err := replaceBetween(changed, "x", "| new |\n")
	require.NoError(t, err)
	assert.Equal(t, changed, again)
	for _, text := range []string{"", "<!-- bench: y -->\n<!-- end of y -->", "<!-- bench: x -->\n", "<!-- end of x -->\n<!-- bench: x -->\n"} {
		_, err := replaceBetween(text, "x", "new")
		assert.Error(t, err, text)
	}
}

func TestBenchTableHasRatiosOnly(t *testing.T) {
	t.Parallel()
	rows := []measured{
		{neighbour{checks: nothing}, laneResult{Name: "a `proxy`", CPU: 53000, Ratio: 1, Low: 1, High: 1}},
		{neighbour{checks: everything, proof: true}, laneResult{Name: "**dpopgate**", CPU: 97000, Ratio: 1.834, Low: 1.79, High: 1.951}},
	}
	assert.Equal(t, "| server | checks | CPU |\n| --- | --- | --- |\n| a `proxy` | nothing | 1 |\n"+
		"| **dpopgate** | token, proof, replay | 1.83 (1.79–1.95) |\n", markdownTable(rows))
	plot := plotRows(rows)
	assert.Contains(t, plot, ">a proxy</text>")
	assert.Contains(t, plot, `class="ours"`)
	assert.Contains(t, plot, "prefers-color-scheme: dark")
	assert.NotContains(t, plot, "53")
}

// The README holds what a bench has written, and the plot is the same run's.
func TestReadmeHoldsTheBench(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(repositoryRoot, benchReadme))
	require.NoError(t, err)
	_, err = replaceBetween(string(text), "neighbours", "")
	require.NoError(t, err)
	plot, err := os.ReadFile(filepath.Join(repositoryRoot, benchPlot))
	require.NoError(t, err)
	require.Contains(t, string(text), benchPlot)
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) == 5 && strings.Contains(line, "–") && strings.Contains(line, everything) {
			ratio, _, _ := strings.Cut(strings.TrimSpace(cells[3]), " ")
			assert.Contains(t, string(plot), ">"+ratio+"</text>", line)
		}
	}
}

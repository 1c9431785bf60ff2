package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progress is a bar on one line of a terminal, which is gone when there is nothing left to wait for. The zero progress
// draws nothing.
type progress struct {
	out   io.Writer
	drawn time.Time
	width int // of what stands on the line
}

// newProgress draws on stderr, and only when somebody sits there: results go to stdout alone.
func newProgress(e *env) *progress {
	if !e.terminal {
		return &progress{}
	}
	return &progress{out: e.stderr}
}

const (
	barWidth = 30
	barPause = 100 * time.Millisecond // between two drawings
)

// at shows that done of total are done.
func (p *progress) at(done, total int, what string) {
	if p.out == nil || time.Since(p.drawn) < barPause {
		return
	}
	p.drawn = time.Now()
	full := barWidth * min(done, total) / max(total, 1)
	p.draw(fmt.Sprintf("%s%s %3d%%  %s", strings.Repeat("█", full), strings.Repeat("░", barWidth-full), 100*min(done, total)/max(total, 1), what))
}

// so shows what has been done so far, where nobody knows how much there is.
func (p *progress) so(far string) {
	if p.out == nil || time.Since(p.drawn) < barPause {
		return
	}
	p.drawn = time.Now()
	p.draw(far)
}

func (p *progress) draw(line string) {
	width := len([]rune(line))
	fmt.Fprintf(p.out, "\r%s%s", line, strings.Repeat(" ", max(0, p.width-width)))
	p.width = width
}

// clear empties the line.
func (p *progress) clear() {
	if p.width > 0 {
		fmt.Fprintf(p.out, "\r%s\r", strings.Repeat(" ", p.width))
		p.width = 0
	}
}

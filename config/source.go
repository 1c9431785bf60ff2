package config

import (
	"math"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"
)

// source is the text of a config file and what of it may be shown.
type source struct {
	lines  []string
	nodes  []*yaml.Node // all of them, in the order of the text
	ends   []int        // ends[i] is the index after the last node inside nodes[i]
	index  map[*yaml.Node]int
	hidden map[*yaml.Node]bool
	rest   *yaml.Node // from here on, everything is hidden; nil: nothing is
	last   struct {   // the line that runes was asked for last
		line  int
		runes []rune
	}
}

func newSource(text string) *source {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	return &source{
		lines:  strings.Split(text, "\n"),
		index:  map[*yaml.Node]int{},
		hidden: map[*yaml.Node]bool{},
	}
}

// add takes in a node and all inside it. Aliases are not followed.
func (s *source) add(n *yaml.Node) {
	i := len(s.nodes)
	s.nodes = append(s.nodes, n)
	s.ends = append(s.ends, 0)
	s.index[n] = i
	for _, c := range n.Content {
		s.add(c)
	}
	s.ends[i] = len(s.nodes)
}

// hide keeps a node and all inside it out of every excerpt.
func (s *source) hide(n *yaml.Node) { s.hidden[n] = true }

// hideRest keeps everything from a node on out of every excerpt.
func (s *source) hideRest(n *yaml.Node) {
	if s.rest == nil {
		s.rest = n
	}
}

// runes is a line (from 1) as characters.
func (s *source) runes(line int) []rune {
	if s.last.line != line {
		s.last.line, s.last.runes = line, []rune(s.lines[line-1])
	}
	return s.last.runes
}

// span is a part of one line: columns from 0, counted in characters; to may lie past the end.
type span struct{ from, to int }

// hiddenSpans gives, by line, the parts that must not be shown. The YAML library does not say where a node ends, so a
// hidden part goes on to the start of whatever comes next, over lines if need be.
func (s *source) hiddenSpans() map[int][]span {
	spans := map[int][]span{}
	for n := range s.hidden {
		nextLine, nextColumn := len(s.lines)+1, 1
		if end := s.ends[s.index[n]]; end < len(s.nodes) {
			nextLine, nextColumn = s.nodes[end].Line, s.nodes[end].Column
		}
		for line := n.Line; line <= min(nextLine, len(s.lines)); line++ {
			part := span{0, math.MaxInt}
			if line == n.Line {
				part.from = n.Column - 1
			}
			if line == nextLine {
				part.to = s.trimSeparator(line, part.from, nextColumn-1)
			}
			spans[line] = append(spans[line], part)
		}
	}
	if s.rest != nil {
		spans[s.rest.Line] = append(spans[s.rest.Line], span{s.rest.Column - 1, math.MaxInt})
		for line := s.rest.Line + 1; line <= len(s.lines); line++ {
			spans[line] = []span{{0, math.MaxInt}}
		}
	}
	return spans
}

// trimSeparator gives the end of a hidden part without what separates it from the next node: a comma in a flow
// collection, or on the next node's own line the indentation and dash before it.
func (s *source) trimSeparator(line, from, to int) int {
	runes := s.runes(line)
	if to > len(runes) || from > to {
		return to
	}
	if from == 0 && strings.Trim(string(runes[:to]), " -") == "" {
		return 0
	}
	for to > from && (runes[to-1] == ',' || runes[to-1] == ' ') {
		to--
	}
	return to
}

// maxExcerpt is the longest part of a line that an error shows, in characters.
const maxExcerpt = 120

// excerpt is a line as it may be shown, with the place in it where the given column (from 1) went.
func (s *source) excerpt(line, column int, hidden []span) (text string, caret int) {
	if line < 1 || line > len(s.lines) {
		return "", 0
	}
	// Far from the column nothing would be shown anyhow.
	const reach = 2 * maxExcerpt
	runes := s.runes(line)
	from, to := max(0, min(column, len(runes))-reach), min(len(runes), column+reach)
	covered := make([]bool, to)
	for _, part := range hidden {
		for i := max(part.from, from); i < min(part.to, to); i++ {
			covered[i] = true
		}
	}
	var out []rune
	caret, secretAt, indented := -1, -1, from == 0
	for i := from; i < to; i++ {
		r, start := runes[i], len(out)
		indented = indented && unicode.IsSpace(r)
		switch {
		case !covered[i] || indented: // indentation gives nothing away
			out, secretAt = append(out, printable(r)), -1
		case secretAt < 0:
			out, secretAt = append(out, []rune(redacted)...), start
		}
		if i == column-1 {
			caret = start
			if secretAt >= 0 {
				caret = secretAt
			}
		}
	}
	if caret < 0 {
		caret = len(out)
	}
	return window(out, caret)
}

// printable keeps the caret under its character and the terminal as it was.
func printable(r rune) rune {
	switch {
	case r == '\t':
		return ' '
	case !unicode.IsPrint(r):
		return '?'
	}
	return r
}

// window cuts a long line to the part around the caret.
func window(line []rune, caret int) (string, int) {
	if len(line) <= maxExcerpt {
		return string(line), caret
	}
	from := min(max(0, caret-maxExcerpt/2), len(line)-maxExcerpt)
	return string(line[from : from+maxExcerpt]), caret - from
}

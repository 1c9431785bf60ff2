package config

import (
	"fmt"
	"slices"
	"strings"
)

// Error is one thing that is wrong with a config file. No field ever holds a secret.
type Error struct {
	File    string // as it was named to Load or Parse
	Line    int    // from 1
	Column  int    // from 1, in characters
	Key     string // such as routes[0].match; empty when the file is not YAML at all
	Message string // what is wrong
	Hint    string // what would be right; may be empty
	Source  string // the line, with secrets hidden and long lines cut; may be empty
	caret   int    // where Column stands in Source, from 0
}

// Error is the position, the key and the message on one line; then the source line, a caret and the hint.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", e.File, e.Line, e.Column)
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Message)
	if strings.TrimSpace(e.Source) == "" {
		if e.Hint != "" {
			b.WriteString("; " + e.Hint)
		}
		return b.String()
	}
	number := fmt.Sprintf("%5d", e.Line)
	fmt.Fprintf(&b, "\n%s | %s", number, e.Source)
	fmt.Fprintf(&b, "\n%*s | %*s^", len(number), "", e.caret, "")
	if e.Hint != "" {
		b.WriteString(" " + e.Hint)
	}
	return b.String()
}

// maxErrors bounds the errors of one file.
const maxErrors = 200

// Errors is everything that is wrong with a config file, in the order of the file: all of it, up to some 200 errors.
// It is never empty when returned.
type Errors []*Error

// Error is every error's text, one after the other.
func (es Errors) Error() string {
	texts := make([]string, len(es))
	for i, e := range es {
		texts[i] = e.Error()
	}
	return strings.Join(texts, "\n")
}

// Unwrap gives errors.As and errors.Is the single errors.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}

// sort brings the errors into the order of the file.
func (es Errors) sort() {
	slices.SortStableFunc(es, func(a, b *Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
}

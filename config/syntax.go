package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// parseYAML reads exactly one document. Whatever is wrong is one of our errors.
func (f *file) parseYAML(data []byte) (root *yaml.Node, ok bool) {
	if !f.readable(data) {
		return nil, false
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		f.syntaxError(err)
		return nil, false
	}
	var doc, more yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF), err == nil && isEmpty(&doc):
		f.add(1, 1, "", "the file is empty", "`dpopgate init` writes a starter")
		return nil, false
	case err != nil:
		f.syntaxError(err)
		return nil, false
	}
	f.source.add(&doc)
	switch err := loader.Load(&more); {
	case errors.Is(err, io.EOF):
		return doc.Content[0], true
	case err != nil:
		f.syntaxError(err)
	default:
		f.source.add(&more)
		f.source.hide(&more)
		f.add(more.Line, more.Column, "", "a second document starts here", "a config file is one document; take out this ---")
	}
	return nil, false
}

func isEmpty(doc *yaml.Node) bool {
	return len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].Tag == "!!null"
}

// readable refuses bytes that an editor would not show, before anything reads them: they hide one meaning behind
// another, and the YAML library reports some of them without a position.
func (f *file) readable(data []byte) bool {
	line, column := 1, 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		message := ""
		switch {
		case r == utf8.RuneError && size == 1:
			message = "not UTF-8"
		case r == '\r' && (i+1 == len(data) || data[i+1] != '\n'), r == 0x85, r == 0x2028, r == 0x2029:
			message = fmt.Sprintf("line break %U other than LF or CRLF", r)
		case r == '\n', r == '\t', r == '\r':
		case r < 0x20, r >= 0x7f && r < 0xa0, r == 0xfeff:
			message = fmt.Sprintf("control character %U", r)
		}
		if message != "" {
			f.addSyntax(line, column, message, "the file must be plain UTF-8 text")
			return false
		}
		column++
		if r == '\n' {
			line, column = line+1, 1
		}
		i += size
	}
	return true
}

// syntaxError turns an error of the YAML library into one of ours. The keys are not known here, so the excerpt shows
// a line only as far as it cannot hold a secret.
func (f *file) syntaxError(err error) {
	var le *yaml.LoadError
	if !errors.As(err, &le) {
		f.addSyntax(1, 1, "not YAML", "")
		return
	}
	line, column := le.Mark.Line, le.Mark.Column
	message := le.Message
	switch {
	case strings.Contains(message, "anchor"), strings.Contains(message, "alias"):
		// The library's message repeats the name, which may be a password that begins with * or &.
		f.addSyntax(line, column, "anchors and aliases are not taken", "write the value out; quote a value that begins with * or &")
		return
	case strings.Contains(message, "end of stream") && le.ContextMark.Line > 0:
		line, column = le.ContextMark.Line, le.ContextMark.Column
		message = "opened here and never closed"
	case strings.Contains(message, "tag"), strings.Contains(le.ContextMsg, "tag"):
		message = "tags are not taken"
	case le.ContextMsg != "":
		message += " " + le.ContextMsg
		if le.ContextMark.Line > 0 && le.ContextMark != le.Mark {
			message += fmt.Sprintf(" from %d:%d on", le.ContextMark.Line, le.ContextMark.Column)
		}
	}
	f.addSyntax(line, column, "not YAML: "+message, f.syntaxHint(line, column, message))
}

// syntaxHint names the usual cause of an error of the YAML library.
func (f *file) syntaxHint(line, column int, message string) string {
	var at rune
	if line >= 1 && line <= len(f.source.lines) {
		if runes := []rune(f.source.lines[line-1]); column >= 1 && column <= len(runes) {
			at = runes[column-1]
		}
	}
	switch {
	case at == '\t':
		return "indent with spaces, not tabs"
	case strings.Contains(message, "cannot start any token"):
		return "quote a value that begins with this character"
	case strings.Contains(message, "mapping values"):
		return "check the indentation, and quote a value that has ': ' in it"
	case strings.Contains(message, "incompatible"):
		return "leave out the %YAML line"
	case strings.Contains(message, "expected"):
		return "check the indentation, and that every bracket and quote is closed"
	}
	return ""
}

// addSyntax adds an error whose excerpt stops where a secret might begin.
func (f *file) addSyntax(line, column int, message, hint string) {
	// The library ends a file without a last line break on a line that is not there.
	if last := len(f.source.lines); line > last {
		line, column = last, utf8.RuneCountInString(f.source.lines[last-1])+1
	}
	e := &Error{File: f.name, Line: max(line, 1), Column: max(column, 1), Message: message, Hint: hint}
	text := f.source.lines[e.Line-1]
	cut := span{utf8.RuneCountInString(knownPart(text)), math.MaxInt}
	e.Source, e.caret = f.source.excerpt(e.Line, e.Column, []span{cut})
	f.errs = append(f.errs, e)
}

// knownPart is the beginning of a line that cannot be part of a secret: the whole line when it sets one of our keys
// and names no secret one; up to the colon of its key when it does; nothing when its key is none of ours, for then it
// may be the middle of a value.
func knownPart(line string) string {
	rest := strings.TrimLeft(line, " \t-")
	if strings.Trim(rest, "[]{},") == "" {
		return line
	}
	key, _, found := strings.Cut(rest, ":")
	kinds := keyKinds()
	if _, known := kinds[key]; !found || !known {
		return ""
	}
	for name, secret := range kinds {
		if secret && strings.Contains(line, name) || hasCredentials(line) {
			return line[:len(line)-len(rest)+len(key)+len(":")]
		}
	}
	return line
}

// keyKinds is every key of the file format, and whether its value is secret.
func keyKinds() map[string]bool {
	kinds := map[string]bool{}
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			return
		}
		for i := range t.NumField() {
			name, ft := t.Field(i).Tag.Get("yaml"), t.Field(i).Type
			secret := ft == secretType || ft.Kind() == reflect.Map && ft.Elem() == secretType
			kinds[name] = kinds[name] || secret
			walk(ft)
		}
	}
	walk(reflect.TypeFor[Config]())
	return kinds
}

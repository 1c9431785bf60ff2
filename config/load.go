package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// maxFile bounds a config file.
const maxFile = 1 << 20

// Load reads the config file at path, with references to the environment of this process. A file that is no good gives
// Errors, all of them at once.
//
// Relative ${file:} paths start at the folder of the config file, since they say what to read while reading it. All
// other paths in the file, such as store.sqlite, are left as they are, and so start at the working directory.
func Load(path string) (*Config, error) {
	data, err := readBounded(path, maxFile)
	if err != nil && !errors.Is(err, errTooLarge) {
		return nil, fmt.Errorf("reading config %s: %w", path, cause(err))
	}
	if err != nil {
		return nil, Errors{tooLarge(path)}
	}
	return Parse(path, data, os.LookupEnv)
}

// Parse reads a config file's content. The name stands in errors, and its folder is where relative ${file:} paths
// start; env answers as os.LookupEnv does. The error, if any, is Errors.
func Parse(name string, data []byte, env func(string) (string, bool)) (*Config, error) {
	if len(data) > maxFile {
		return nil, Errors{tooLarge(name)}
	}
	data = []byte(strings.TrimPrefix(string(data), "\ufeff"))
	f := &file{
		name:     name,
		source:   newSource(string(data)),
		expander: expander{env: env, folder: filepath.Dir(name)},
		places:   map[string]*place{},
		expanded: map[*yaml.Node]bool{},
		broken:   map[string]bool{},
	}
	c := &Config{}
	if root, ok := f.parseYAML(data); ok {
		f.decode(root, path{}, reflect.ValueOf(c).Elem(), "")
		if f.places[""] != nil {
			f.validate(c)
		}
	}
	if errs := f.finish(); len(errs) > 0 {
		return nil, errs
	}
	return c, nil
}

func tooLarge(name string) *Error {
	return &Error{File: name, Line: 1, Column: 1, Message: "the file is larger than " + Size(maxFile).String()}
}

// file is a config file while it is being read: its text, where each key stands, and all that is wrong with it.
type file struct {
	name     string
	source   *source
	expander expander
	places   map[string]*place
	expanded map[*yaml.Node]bool
	broken   map[string]bool // keys that could not be read, about which validation has nothing to add
	errs     Errors
}

// path is the way to a value, such as routes[0].match.
type path struct{ key string }

// place is where the value of a path stands in the file.
type place struct {
	path
	name *yaml.Node // its key; nil in lists
	node *yaml.Node // its value
}

// field is the path of a key of the format inside p.
func (p path) field(name string) path {
	if p.key == "" {
		return path{name}
	}
	return path{p.key + "." + name}
}

// index is the path of a list element inside p.
func (p path) index(i int) path {
	return path{p.key + "[" + strconv.Itoa(i) + "]"}
}

// entry is the path of the value that a name of the user's choice has in the mapping p.
func (p path) entry(name string) path {
	if !isPlainName(name) {
		return path{p.key + "[" + strconv.Quote(name) + "]"}
	}
	return p.field(name)
}

// isPlainName says whether a name needs no quotes in a key path.
func isPlainName(s string) bool {
	special := func(r rune) bool {
		return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}
	return s != "" && !strings.ContainsFunc(s, special)
}

// add adds an error at a line and column, both from 1.
func (f *file) add(line, column int, key, message, hint string) {
	f.errs = append(f.errs, &Error{
		File: f.name, Line: max(line, 1), Column: max(column, 1),
		Key: key, Message: message, Hint: hint,
	})
}

// addAt adds an error at a node.
func (f *file) addAt(n *yaml.Node, key, message, hint string) {
	f.add(n.Line, n.Column, key, message, hint)
}

// full says that there are more errors than anyone reads, so that a file of another kind is soon done with.
func (f *file) full() bool { return len(f.errs) >= maxErrors }

// finish sorts the errors and, now that it is known what must stay hidden, cuts their excerpts.
func (f *file) finish() Errors {
	f.errs.sort()
	hidden := f.source.hiddenSpans()
	for _, e := range f.errs {
		if e.Source == "" {
			e.Source, e.caret = f.source.excerpt(e.Line, e.Column, hidden[e.Line])
		}
	}
	return f.errs
}

// quote is how a message names a scalar's value: by its text, unless that is or may hold a secret.
func (f *file) quote(n *yaml.Node, text string) string {
	const longest = 80
	if n == nil || f.expanded[n] || f.source.hidden[n] || hasCredentials(text) {
		return "the value"
	}
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return strconv.Quote(text)
}

// hasCredentials says whether a text may be a URL with a password in it.
func hasCredentials(text string) bool {
	_, rest, found := strings.Cut(text, "//")
	return found && strings.Contains(rest, "@")
}

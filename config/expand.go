package config

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxReferenced bounds a file named by ${file:PATH}.
const maxReferenced = 64 << 10

// expander replaces references inside string values. What it puts in is never read as YAML nor expanded again.
type expander struct {
	env    func(string) (string, bool)
	folder string // that relative ${file:} paths start from
}

// badReference is a reference that cannot be replaced.
type badReference struct {
	offset  int // of its $, in bytes
	message string
	hint    string
}

// expand replaces ${NAME}, ${NAME:-default}, ${file:PATH} and $$ in s. It says whether there was a reference, and
// returns all the bad ones. A $ before anything else stays as it is.
func (x *expander) expand(s string) (out string, found bool, bad []badReference) {
	var b strings.Builder
	for i := 0; i < len(s); {
		switch {
		case strings.HasPrefix(s[i:], "$$"):
			b.WriteByte('$')
			i += 2
		case strings.HasPrefix(s[i:], "${"):
			found = true
			inner, _, closed := strings.Cut(s[i+2:], "}")
			if !closed {
				return "", true, append(bad, badReference{i, "${ is never closed", "close it with }, or write $${ for a literal ${"})
			}
			value, problem := x.resolve(inner)
			if problem != nil {
				problem.offset = i
				bad = append(bad, *problem)
			}
			b.WriteString(value)
			i += len("${") + len(inner) + len("}")
		default:
			b.WriteByte(s[i])
			i++
		}
	}
	return b.String(), found, bad
}

// resolve gives the value of what stands between ${ and }.
func (x *expander) resolve(inner string) (string, *badReference) {
	if path, ok := strings.CutPrefix(inner, "file:"); ok {
		return x.readFile(path)
	}
	name, fallback, hasFallback := strings.Cut(inner, ":-")
	switch {
	case strings.Contains(inner, "${"):
		return "", &badReference{message: "references do not nest", hint: "write $${ for a literal ${"}
	case !isVariableName(name):
		return "", &badReference{
			message: "not a reference",
			hint:    "want ${NAME}, ${NAME:-default} or ${file:PATH}; write $${ for a literal ${",
		}
	}
	// As in a shell, :- also stands in for a variable that is set to nothing.
	value, set := x.env(name)
	if hasFallback && value == "" {
		return fallback, nil
	}
	if !set {
		return "", &badReference{
			message: "environment variable " + name + " is not set",
			hint:    "set it, or give a default: ${" + name + ":-default}",
		}
	}
	return value, nil
}

// readFile is a file's content without its last line break.
func (x *expander) readFile(path string) (string, *badReference) {
	if path == "" {
		return "", &badReference{message: "${file:} names no file", hint: "want ${file:PATH}"}
	}
	full := path
	if !filepath.IsAbs(full) {
		full = filepath.Join(x.folder, full)
	}
	content, err := readBounded(full, maxReferenced)
	if errors.Is(err, errTooLarge) {
		return "", &badReference{message: "file " + path + " is larger than " + Size(maxReferenced).String()}
	}
	if err != nil {
		return "", &badReference{
			message: "file " + path + " cannot be read: " + cause(err).Error(),
			hint:    "a relative path starts at the config file's folder",
		}
	}
	text, ended := strings.CutSuffix(string(content), "\n")
	if ended {
		text = strings.TrimSuffix(text, "\r")
	}
	return text, nil
}

var errTooLarge = errors.New("too large")

// readBounded reads a file of at most limit bytes; a longer one is errTooLarge.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > limit {
		return nil, errTooLarge
	}
	return content, nil
}

// cause is the operating system's part of a file error, without the path.
func cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// isVariableName is the POSIX rule for names of environment variables.
func isVariableName(s string) bool {
	for i, r := range s {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		digit := '0' <= r && r <= '9'
		if !letter && (!digit || i == 0) {
			return false
		}
	}
	return s != ""
}

// onlyReferences says whether s consists of ${NAME} and ${file:PATH} alone, and so may be shown though it is a secret.
func onlyReferences(s string) bool {
	for s != "" {
		inner, rest, closed := strings.Cut(strings.TrimPrefix(s, "${"), "}")
		named := isVariableName(inner) || strings.HasPrefix(inner, "file:")
		if !strings.HasPrefix(s, "${") || !closed || !named {
			return false
		}
		s = rest
	}
	return true
}

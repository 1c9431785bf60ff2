package dpop

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// kind is the type of a JSON value.
type kind uint8

const (
	kindNone kind = iota // no such member
	kindString
	kindNumber
	kindObject
	kindArray
	kindLiteral // true, false, null
)

// member is one member of a JSON object. text is the unescaped string, or the value as it was written.
type member struct {
	name string
	kind kind
	text string
}

// object is the members of a JSON object in the order written. No two have the same name.
type object []member

// get returns the member of that exact name. encoding/json would also take a name of other case.
func (o object) get(name string) member {
	for _, m := range o {
		if m.name == name {
			return m
		}
	}
	return member{}
}

const (
	maxMembers = 64 // of one object
	maxDepth   = 32 // of nesting
)

var errJSON = errors.New("not a JSON object")

// parseObject reads one JSON object and nothing after it (RFC 8259), stricter than encoding/json: it must be UTF-8
// without lone surrogates, names are exact, and a name that occurs twice is an error (RFC 7515 §4, RFC 7519 §4). The
// members are appended to o, which is empty: its room saves an allocation.
func parseObject(s string, o object) (object, error) {
	if !utf8.ValidString(s) {
		return nil, errJSON
	}
	p := scanner{s: s}
	p.space()
	o, ok := p.object(o)
	p.space()
	if !ok || p.i != len(s) {
		return nil, errJSON
	}
	return o, nil
}

// scanner walks over one JSON text.
type scanner struct {
	s string
	i int
}

func (p *scanner) space() {
	for p.i < len(p.s) && (p.s[p.i] == ' ' || p.s[p.i] == '\t' || p.s[p.i] == '\n' || p.s[p.i] == '\r') {
		p.i++
	}
}

// take moves past c if it is next.
func (p *scanner) take(c byte) bool {
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

// object reads an object and appends its members to o.
func (p *scanner) object(o object) (object, bool) {
	if !p.take('{') {
		return nil, false
	}
	p.space()
	if p.take('}') {
		return o, true
	}
	for len(o) < maxMembers {
		p.space()
		name, ok := p.string()
		if !ok || o.get(name).kind != kindNone {
			return nil, false
		}
		p.space()
		if !p.take(':') {
			return nil, false
		}
		p.space()
		kind, text, ok := p.value(1)
		if !ok {
			return nil, false
		}
		o = append(o, member{name, kind, text})
		p.space()
		if p.take('}') {
			return o, true
		}
		if !p.take(',') {
			return nil, false
		}
	}
	return nil, false
}

// value reads any value. Nested ones are checked for their syntax and kept as they were written.
func (p *scanner) value(depth int) (kind, string, bool) {
	if p.i == len(p.s) || depth > maxDepth {
		return kindNone, "", false
	}
	start := p.i
	switch c := p.s[p.i]; {
	case c == '"':
		s, ok := p.string()
		return kindString, s, ok
	case c == '{':
		ok := p.nested('{', '}', depth)
		return kindObject, p.s[start:p.i], ok
	case c == '[':
		ok := p.nested('[', ']', depth)
		return kindArray, p.s[start:p.i], ok
	case c == '-' || '0' <= c && c <= '9':
		ok := p.number()
		return kindNumber, p.s[start:p.i], ok
	}
	for _, literal := range [...]string{"true", "false", "null"} {
		if strings.HasPrefix(p.s[p.i:], literal) {
			p.i += len(literal)
			return kindLiteral, literal, true
		}
	}
	return kindNone, "", false
}

// nested moves past an object or array.
func (p *scanner) nested(open, end byte, depth int) bool {
	p.take(open)
	p.space()
	if p.take(end) {
		return true
	}
	for {
		p.space()
		if open == '{' {
			if _, ok := p.string(); !ok {
				return false
			}
			p.space()
			if !p.take(':') {
				return false
			}
			p.space()
		}
		if _, _, ok := p.value(depth + 1); !ok {
			return false
		}
		p.space()
		if p.take(end) {
			return true
		}
		if !p.take(',') {
			return false
		}
	}
}

// number moves past a number (RFC 8259 §6).
func (p *scanner) number() bool {
	p.take('-')
	if !p.take('0') && !p.digits() {
		return false
	}
	if p.take('.') && !p.digits() {
		return false
	}
	if p.take('e') || p.take('E') {
		if !p.take('+') {
			p.take('-')
		}
		return p.digits()
	}
	return true
}

func (p *scanner) digits() bool {
	start := p.i
	for p.i < len(p.s) && '0' <= p.s[p.i] && p.s[p.i] <= '9' {
		p.i++
	}
	return p.i > start
}

// string reads a string and unescapes it; without escapes it is a part of the input, not a copy.
func (p *scanner) string() (string, bool) {
	if !p.take('"') {
		return "", false
	}
	start := p.i
	for ; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; {
		case c == '"':
			p.i++
			return p.s[start : p.i-1], true
		case c < 0x20:
			return "", false
		case c == '\\':
			return p.escaped(start)
		}
	}
	return "", false
}

// escaped reads on from the first escape of a string that began at start.
func (p *scanner) escaped(start int) (string, bool) {
	b := append(make([]byte, 0, 2*(p.i-start)+16), p.s[start:p.i]...)
	for p.i < len(p.s) {
		c := p.s[p.i]
		p.i++
		switch {
		case c == '"':
			return string(b), true
		case c < 0x20:
			return "", false
		case c != '\\':
			b = append(b, c)
		case p.i == len(p.s):
			return "", false
		case p.s[p.i] == 'u':
			r, ok := p.unicode()
			if !ok {
				return "", false
			}
			b = utf8.AppendRune(b, r)
		default:
			at := strings.IndexByte(`"\/bfnrt`, p.s[p.i])
			if at < 0 {
				return "", false
			}
			b = append(b, "\"\\/\b\f\n\r\t"[at])
			p.i++
		}
	}
	return "", false
}

// unicode reads uXXXX, and its second half when the first is a surrogate.
func (p *scanner) unicode() (rune, bool) {
	r, ok := p.hex4()
	if !ok || !utf16.IsSurrogate(r) {
		return r, ok
	}
	if !p.take('\\') {
		return 0, false
	}
	low, ok := p.hex4()
	r = utf16.DecodeRune(r, low)
	return r, ok && r != utf8.RuneError
}

func (p *scanner) hex4() (rune, bool) {
	if !p.take('u') || len(p.s)-p.i < 4 {
		return 0, false
	}
	digits := p.s[p.i : p.i+4]
	p.i += 4
	if strings.ContainsAny(digits, "+-_xX") { // which ParseUint has its own ideas about
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 16)
	return rune(n), err == nil
}

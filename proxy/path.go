package proxy

import (
	"net/http"
	"strings"
	"unicode/utf8"
)

// rawTarget is the path and query of a request as they stood in the request line. Of an absolute-form target of HTTP/1
// (RFC 9112 §3.2.2) the authority is left out: it is in r.Host by then. HTTP/2 has no such targets (RFC 9113 §8.3.1).
func rawTarget(r *http.Request) (path, query string) {
	target := r.RequestURI
	if target == "" { // made by hand, not by a server
		target = r.URL.RequestURI()
	}
	if !strings.HasPrefix(target, "/") && r.ProtoMajor < 2 {
		if _, rest, ok := strings.Cut(target, "://"); ok {
			i := strings.IndexAny(rest, "/?")
			switch {
			case i < 0:
				target = "/"
			case rest[i] == '?':
				target = "/" + rest[i:]
			default:
				target = rest[i:]
			}
		}
	}
	path, query, _ = strings.Cut(target, "?")
	return path, query
}

// ambiguousQuery says what about a raw query could end the request line, or be left out by whom it is sent to.
func ambiguousQuery(query string) (words string) {
	for i := range len(query) {
		switch c := query[i]; {
		case c <= ' ' || c == 0x7f:
			return "the query holds a control or a space"
		case c == '#':
			return "the query holds a number sign, and a fragment is not sent"
		}
	}
	return ""
}

// twoHosts says whether a request names another host beside its :authority, which net/http leaves in the header
// (RFC 9113 §8.3.1). The upstream would not hear of it.
func twoHosts(r *http.Request) bool {
	named := r.Header["Host"]
	return len(named) > 1 || len(named) == 1 && !strings.EqualFold(named[0], r.Host)
}

// ambiguous says what about a raw path two servers could read differently, or nothing. What passes here means the same
// to the route table, which decodes each segment once, and to an upstream that decodes, merges or collapses: there is
// nothing left to collapse. An encoded slash is told apart, as routes may take it.
func ambiguous(path string) (words string, encodedSlash bool) {
	if path == "" || path[0] != '/' {
		return "the path is not absolute", false
	}
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c <= ' ' || c >= 0x7f:
			return "the path holds a control, a space or a character that must be encoded", false
		case c == '\\':
			return "the path holds a backslash", false
		case c == '#':
			return "the path holds a number sign, and a fragment is not sent", false
		case c == '/' && i > 0 && path[i-1] == '/':
			return "the path holds an empty segment", false
		case c == '%':
			v, ok := unhex(path, i+1)
			switch {
			case !ok:
				return "the path holds a percent sign without two hexadecimal digits", false
			case v < ' ' || v == 0x7f:
				return "the path holds an encoded control", false
			case v == '\\':
				return "the path holds an encoded backslash", false
			case v == '/':
				encodedSlash = true
			}
			i += 2
		}
	}
	for segment := range strings.SplitSeq(path, "/") {
		if dotSegment(segment) {
			return "the path holds a dot segment", false
		}
	}
	if strings.Contains(path, "%") && !utf8.ValidString(decode(path)) {
		return "the path is not UTF-8 once decoded", false
	}
	return "", encodedSlash
}

// dotSegment says whether a server could take segment for "." or "..": plain, encoded, with parameters, or behind an
// encoded slash.
func dotSegment(segment string) bool {
	if !strings.Contains(segment, ".") && !strings.Contains(segment, "%") {
		return false
	}
	for part := range strings.SplitSeq(decode(segment), "/") {
		name, _, _ := strings.Cut(part, ";")
		if name == "." || name == ".." {
			return true
		}
	}
	return false
}

// decode undoes valid escapes once.
func decode(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			if v, ok := unhex(s, i+1); ok {
				b = append(b, v)
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// unhex reads the two hexadecimal digits at s[i:].
func unhex(s string, i int) (byte, bool) {
	if i+2 > len(s) {
		return 0, false
	}
	hi, ok1 := hexDigit(s[i])
	lo, ok2 := hexDigit(s[i+1])
	return hi<<4 | lo, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

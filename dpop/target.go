package dpop

import (
	"errors"
	"net"
	"net/url"
	"strings"
	"unicode/utf8"
)

// Origin is a base URL that clients use, normalised: scheme, host, port and path prefix. It comes from the
// configuration, never from a request.
type Origin struct{ scheme, host, port, prefix string }

// ParseOrigin reads a public URL: http or https, no userinfo, query or fragment.
func ParseOrigin(publicURL string) (Origin, error) {
	if strings.ContainsAny(publicURL, "?#") {
		return Origin{}, errors.New("a query or fragment does not belong in a public URL")
	}
	scheme, host, port, path, part := splitURI(publicURL)
	if part != "" {
		return Origin{}, errors.New("not an absolute http or https URL: its " + part + " is wrong")
	}
	prefix, ok := normalizePath(path)
	if !ok {
		return Origin{}, errors.New("not an absolute http or https URL: its path is wrong")
	}
	return Origin{scheme, host, port, strings.TrimSuffix(prefix, "/")}, nil
}

// Host is the value of a Host header field for the origin, without a default port.
func (o Origin) Host() string {
	host := o.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if o.port == defaultPort(o.scheme) {
		return host
	}
	return host + ":" + o.port
}

// Port is the port as a number, default or not.
func (o Origin) Port() string { return o.port }

// Prefix is the normalised path prefix, without a trailing slash; empty for none.
func (o Origin) Prefix() string { return o.prefix }

// String is the origin as a URL, without a trailing slash.
func (o Origin) String() string { return o.scheme + "://" + o.Host() + o.prefix }

// Target is the URL that a request is for, without query and fragment, to compare an htu with.
type Target struct {
	origin Origin
	path   string // normalised, prefix not included
}

// Target is the target of a request whose path, as it stood in the request line, is rawPath.
func (o Origin) Target(rawPath string) Target {
	path, ok := normalizePath(rawPath)
	if !ok {
		path = "" // equals no htu
	}
	return Target{o, path}
}

// String is the normalised target URI.
func (t Target) String() string { return t.origin.String() + t.path }

// match compares an htu with the target as RFC 9449 §4.3 (9) has it: without query and fragment, after syntax-based
// and scheme-based normalisation (RFC 3986 §6.2.2, §6.2.3) and nothing more: trailing slashes, letter case of the
// path, double slashes and encoded reserved characters all count. It returns the part that differs, or nothing.
func (t Target) match(htu string) (part string) {
	scheme, host, port, path, part := splitURI(htu)
	if part != "" {
		return part
	}
	path, ok := normalizePath(path)
	want := t.origin.prefix + t.path
	switch {
	case !ok:
		return "encoding"
	case scheme != t.origin.scheme:
		return "scheme"
	case host != t.origin.host:
		return "host"
	case port != t.origin.port:
		return "port"
	case t.path == "":
		return "path"
	case path == want:
		return ""
	case t.origin.prefix != "" && (path == t.path || !strings.HasPrefix(path, t.origin.prefix+"/")):
		return "prefix"
	}
	if a, err := url.PathUnescape(path); err == nil {
		if b, err := url.PathUnescape(want); err == nil && a == b {
			return "encoding"
		}
	}
	return "path"
}

// splitURI takes an absolute http or https URI apart: scheme and host in lower case, the port always there, the path
// as it is, query and fragment dropped. What is wrong is named in part. net/url is not used: it lets backslashes,
// userinfo and more pass, and its fields do not say what was written.
func splitURI(s string) (scheme, host, port, path, part string) {
	s, _, _ = strings.Cut(s, "#")
	s, _, _ = strings.Cut(s, "?")
	scheme, rest, ok := strings.Cut(s, "://")
	scheme = lower(scheme)
	if !ok || scheme != "https" && scheme != "http" {
		return "", "", "", "", "scheme"
	}
	authority := rest
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	host, port, ok = splitHost(authority, defaultPort(scheme))
	if !ok {
		return "", "", "", "", "host"
	}
	return scheme, host, port, path, ""
}

// splitHost takes host[:port] apart as RFC 3986 §3.2.2 and §3.2.3 have it, with the scheme's port where none is given.
// The host is in lower case and without the brackets of an IPv6 literal. Userinfo is refused.
func splitHost(s, defaultPort string) (host, port string, ok bool) {
	port = defaultPort
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 || !strings.Contains(s[:end], ":") || net.ParseIP(s[1:end]) == nil {
			return "", "", false
		}
		host, s = s[1:end], s[end+1:]
		if s != "" && s[0] != ':' {
			return "", "", false
		}
	} else {
		end := strings.IndexByte(s, ':')
		if end < 0 {
			end = len(s)
		}
		host, s = s[:end], s[end:]
		if host == "" || strings.ContainsFunc(host, notHost) {
			return "", "", false
		}
	}
	if len(s) > 1 { // ":" alone is the default port too (RFC 3986 §6.2.3)
		port = strings.TrimLeft(s[1:], "0")
		if port == "" || len(port) > 5 || strings.ContainsFunc(port, notDigit) {
			return "", "", false
		}
	}
	return lower(host), port, true
}

func notDigit(r rune) bool { return r < '0' || r > '9' }

// notHost is true of what no DNS name or IPv4 address holds. International names come as A-labels.
func notHost(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.' || r == '_')
}

// lower is strings.ToLower for ASCII alone: no other letter may fold into one of these.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func defaultPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

// normalizePath applies RFC 3986 §6.2.2: upper-case hex digits, unreserved characters decoded, dot segments removed;
// an empty path is "/" (§6.2.3). Characters beyond ASCII are encoded as RFC 3987 §3.1 maps them. Spaces, controls,
// backslashes and broken escapes are refused.
func normalizePath(s string) (string, bool) {
	if s == "" {
		return "/", true
	}
	if s[0] != '/' || !utf8.ValidString(s) {
		return "", false
	}
	if plainPath(s) {
		return s, true
	}
	const hexDigits = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+8)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c <= ' ' || c == '\\' || c == 0x7f || c == '?' || c == '#':
			return "", false
		case c >= 0x80:
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		case c != '%':
			b = append(b, c)
		case len(s)-i < 3 || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0:
			return "", false
		default:
			v := byte(unhex(s[i+1])<<4 | unhex(s[i+2]))
			i += 2
			if unreserved(v) {
				b = append(b, v)
			} else {
				b = append(b, '%', hexDigits[v>>4], hexDigits[v&15])
			}
		}
	}
	return removeDots(string(b)), true
}

// plainPath says whether s is its own normal form, as nearly all are.
func plainPath(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !unreserved(c) && c != '/' || c == '.' && s[i-1] == '/' {
			return false
		}
	}
	return true
}

// removeDots is RFC 3986 §5.2.4 on an absolute path.
func removeDots(s string) string {
	if !strings.Contains(s, "/.") {
		return s
	}
	var out []string
	segments := strings.Split(s[1:], "/")
	for i, seg := range segments {
		last := i == len(segments)-1
		switch seg {
		case ".", "..":
			if seg == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, seg)
		}
	}
	return "/" + strings.Join(out, "/")
}

// unreserved is RFC 3986 §2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// part is what the target has where an htu differs.
func (t Target) part(name string) string {
	o := t.origin
	switch name {
	case "scheme":
		return o.scheme
	case "host":
		return o.host
	case "port":
		return o.port
	case "prefix":
		return o.prefix + "/"
	default:
		return o.prefix + t.path
	}
}

package proxy

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// readings are the paths that servers make of an unambiguous one when they do more than decode it once: decode it
// again, take parameters off its segments, or end it at a delimiter that was encoded, as a URL built of decoded parts
// does. There are none for almost all paths, since hardly any holds what is read so.
func readings(path string) (all []string) {
	if !strings.ContainsAny(path, ";%") {
		return nil
	}
	for some := 1; some < 1<<3; some++ {
		read := path
		if some&1 != 0 {
			read = decodedTwice(read)
		}
		if some&2 != 0 {
			read = withoutParameters(read)
		}
		if some&4 != 0 {
			read = cutDecoded(read, "?#")
		}
		if read != path && !slices.Contains(all, read) {
			all = append(all, read)
		}
	}
	return all
}

// decodedTwice takes what encodes the percent sign of another escape off that escape, however often that was done:
// %2541 and %252541 become %41.
func decodedTwice(path string) string {
	const percent = "%25"
	if !strings.Contains(path, percent) {
		return path
	}
	b := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		b = append(b, path[i])
		if !strings.HasPrefix(path[i:], percent) {
			continue
		}
		for strings.HasPrefix(path[i+1:], "25") {
			if _, ok := unhex(path, i+3); !ok {
				break
			}
			i += 2
		}
	}
	return string(b)
}

// withoutParameters takes everything from a semicolon on off each segment (RFC 3986 §3.3).
func withoutParameters(path string) string {
	if cutDecoded(path, ";") == path {
		return path
	}
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		segments[i] = cutDecoded(segment, ";")
	}
	return strings.Join(segments, "/")
}

// cutDecoded is s up to the first of chars, encoded or not.
func cutDecoded(s, chars string) string {
	for i := range len(s) {
		c := s[i]
		if c == '%' {
			c, _ = unhex(s, i+1)
		}
		if strings.IndexByte(chars, c) >= 0 {
			return s[:i]
		}
	}
	return s
}

// readsAs says whether all servers that read the path of a request in one way or another take it for one of the route.
func (rt *route) readsAs(t *table, r *http.Request, here *origin, path string) bool {
	for _, read := range readings(path) {
		words, encodedSlash := ambiguous(read)
		if words != "" || encodedSlash && !rt.encodedSlashes {
			return false
		}
		probe := *r
		probe.URL = &url.URL{Path: decode(read), RawPath: read}
		if other, _ := t.find(&probe, here); other != rt {
			return false
		}
	}
	return true
}

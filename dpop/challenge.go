package dpop

import "strings"

// Challenge is one challenge of a WWW-Authenticate field (RFC 9449 §7.1, RFC 6750 §3, RFC 9728 §5.1).
type Challenge struct {
	Scheme           string
	Code             Code
	Description      string
	Scope            string
	Algs             string
	ResourceMetadata string
}

// String spells the challenge in the one way that every known client parses: the scheme as RFC 9449 writes it, error
// first, each value quoted, a comma and a space between parameters.
func (c Challenge) String() string {
	var b strings.Builder
	b.WriteString(c.Scheme)
	sep := " "
	for _, p := range [...]struct{ name, value string }{
		{"error", string(c.Code)},
		{"error_description", Plain(c.Description)},
		{"scope", c.Scope},
		{"algs", c.Algs},
		{"resource_metadata", c.ResourceMetadata},
	} {
		if p.value == "" {
			continue
		}
		b.WriteString(sep + p.name + `="` + quotable(p.value) + `"`)
		sep = ", "
	}
	return b.String()
}

// maxDescription bounds a description, in bytes.
const maxDescription = 200

// Plain keeps a description within [A-Za-z0-9 .,:_/-], the characters that every known client's parser takes, and
// within a bound. Others become underscores.
func Plain(s string) string {
	if len(s) > maxDescription {
		s = s[:maxDescription]
	}
	return strings.Map(func(r rune) rune {
		if r < 0x80 && (unreserved(byte(r)) && r != '~' || strings.ContainsRune(" ,:/", r)) {
			return r
		}
		return '_'
	}, s)
}

// quotable replaces what may not stand in a parameter of RFC 6750 §3.
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '_'
		}
		return r
	}, s)
}

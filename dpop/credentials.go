package dpop

import (
	"net/http"
	"net/url"
	"strings"
)

// Credentials are what a request presents: the scheme of its Authorization field, the token, and the proof.
type Credentials struct {
	Scheme string // "DPoP" or "Bearer", spelled so whatever the client's spelling was
	Token  string
	Proof  string // the one DPoP field; empty for Bearer
}

// The two schemes.
const (
	SchemeDPoP   = "DPoP"
	SchemeBearer = "Bearer"
)

// ReadCredentials takes them from a header (RFC 9449 §7.1, RFC 6750 §2.1). Fields in trailers, cookies, the body or
// Proxy-Authorization are never credentials; a token in the query beside them is an error (RFC 6750 §2). taken says
// which schemes are. The error is always an *Error; with it, Scheme and Token are still set when they could be told.
func ReadCredentials(h http.Header, rawQuery string, taken func(scheme string) bool) (Credentials, error) {
	var c Credentials
	fields := h["Authorization"]
	if len(fields) == 0 {
		return c, refuse(CredentialsMissing, "this route needs Authorization: DPoP with a token, and a DPoP header with a proof")
	}
	if len(fields) > 1 {
		return c, refuse(CredentialsRepeated, "Authorization stands more than once")
	}
	scheme, token, _ := strings.Cut(fields[0], " ")
	if token = strings.TrimLeft(token, " "); token68(token) {
		c.Token = token
	}
	proofs := h["Dpop"]
	switch {
	case sameWord(scheme, SchemeDPoP):
		c.Scheme = SchemeDPoP
	case sameWord(scheme, SchemeBearer):
		c.Scheme = SchemeBearer
		if len(proofs) > 0 {
			return c, refuse(BearerWithProof, "the scheme is Bearer although there is a DPoP header")
		}
	}
	switch {
	case strings.ContainsAny(scheme, "\t") || scheme == "":
		return c, refuse(CredentialsMalformed, "Authorization is not a scheme, a space and a token")
	case c.Scheme == "" || !taken(c.Scheme):
		return c, refuse(SchemeUnsupported, "this route does not take that scheme")
	}
	if c.Token == "" {
		return c, refuse(CredentialsMalformed, "Authorization is not a scheme, a space and one token")
	}
	if queryToken(rawQuery) {
		return c, refuse(TokenInQuery, "access_token in the query beside Authorization")
	}
	if c.Scheme == SchemeBearer {
		return c, nil
	}
	switch {
	case len(proofs) == 0:
		return c, refuse(ProofMissing, "the DPoP header with the proof is missing")
	case len(proofs) > 1:
		return c, refuse(ProofRepeated, "there is more than one DPoP header")
	}
	c.Proof = proofs[0]
	return c, nil
}

// sameWord compares with an ASCII word without letter case. What strings.EqualFold takes for a letter of ASCII beyond that,
// such as the Kelvin sign for k, is longer.
func sameWord(s, word string) bool { return len(s) == len(word) && strings.EqualFold(s, word) }

// token68 is RFC 9110 §11.2.
func token68(s string) bool {
	body := strings.TrimRight(s, "=")
	if body == "" {
		return false
	}
	for i := 0; i < len(body); i++ {
		if c := body[i]; !unreserved(c) && c != '+' && c != '/' {
			return false
		}
	}
	return true
}

// queryToken says whether a query has a parameter access_token, in any spelling that a server might decode to that.
func queryToken(raw string) bool {
	if len(raw) < len("access_token") {
		return false
	}
	for pair := range strings.FieldsFuncSeq(raw, func(r rune) bool { return r == '&' || r == ';' }) {
		name, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(name); err == nil {
			name = decoded
		}
		if name == "access_token" {
			return true
		}
	}
	return false
}

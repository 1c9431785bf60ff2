package proxy

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/google/uuid"
)

// identity is the compiled form of config.Identity: what the upstream is told, and what nobody else may tell it.
type identity struct {
	names   config.IdentityNames
	managed map[string]bool // folded names that only we may send, and whether they are about identity
	members []member        // of the stored metadata
	mode    string          // of Authorization: remove, keep or bearer
}

// member is one header made from the stored metadata.
type member struct{ header, name string }

// foreign are the names, folded, that a client must not decide: who it is, where it comes from, what its request
// really is. Upstreams and frameworks believe them.
var foreign = []string{
	"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix",
	"x-forwarded-uri", "x-forwarded-method", "x-forwarded-scheme", "x-forwarded-server", "x-forwarded-ssl", "x-real-ip",
	"true-client-ip", "cf-connecting-ip", "x-client-ip", "x-cluster-client-ip", "x-original-url", "x-original-uri",
	"x-original-method", "x-original-host", "x-rewrite-url", "x-http-method-override", "x-http-method",
	"x-method-override", "proxy", "x-request-id", "transfer-encoding", "content-length", "host", "dpop", "authorization",
}

func compileIdentity(c config.Identity, upstreams map[string]config.Upstream) *identity {
	id := &identity{names: c.Names(), managed: map[string]bool{}, mode: c.Authorization}
	for _, name := range config.PresetHeaders() {
		id.managed[fold(name)] = true
	}
	n := &id.names
	for _, name := range []*string{&n.Subject, &n.Scope, &n.Client, &n.TokenID, &n.TokenType, &n.Expires, &c.Assertion.Header} {
		if *name != "" {
			id.managed[fold(*name)] = true
			*name = http.CanonicalHeaderKey(*name)
		}
	}
	for header, m := range n.Metadata {
		id.managed[fold(header)] = true
		id.members = append(id.members, member{header, m})
	}
	slices.SortFunc(id.members, func(a, b member) int { return strings.Compare(a.header, b.header) })
	for _, name := range foreign {
		id.managed[name] = false
	}
	for _, u := range upstreams {
		for name := range u.Headers {
			id.managed[fold(name)] = false
		}
	}
	return id
}

// fold is how CGI, WSGI, PHP and their like read a header name: case does not count, and whatever is neither a letter
// nor a digit is the same as a hyphen.
func fold(name string) string { return string(appendFolded(nil, name)) }

func appendFolded(b []byte, name string) []byte {
	for i := range len(name) {
		switch c := name[i]; {
		case 'A' <= c && c <= 'Z':
			b = append(b, c+'a'-'A')
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
			b = append(b, c)
		default:
			b = append(b, '-')
		}
	}
	return b
}

// manages says whether a header of that name, in any spelling, is one that only we may send, and whether it is about
// identity.
func (id *identity) manages(name string) (ours, about bool) {
	var room [64]byte
	about, ours = id.managed[string(appendFolded(room[:0], name))]
	return ours, about
}

// clean removes from a client's header what only we may say. Fields in their plain spelling that framing and
// connection handling own (Host, Content-Length, Transfer-Encoding) are not in a server's Header to begin with.
func (id *identity) clean(h http.Header) {
	for name := range h {
		if name == "Content-Length" || id.mode == "keep" && (name == "Authorization" || name == "Dpop") {
			continue
		}
		if ours, _ := id.manages(name); ours {
			delete(h, name)
		}
	}
}

// cleanResponse removes from an upstream's header or trailer what clients would take for ours.
func (id *identity) cleanResponse(h http.Header) {
	for name := range h {
		said := strings.TrimPrefix(name, http.TrailerPrefix)
		if _, about := id.manages(said); about || said == "Www-Authenticate" || said == "Dpop-Nonce" || said == "Alt-Svc" || said == "X-Request-Id" {
			delete(h, name)
		}
	}
}

// set tells the upstream who calls. The values are parts of one text, and put into room.
func (id *identity) set(h http.Header, room *[6]string, rec *tokenstore.Record, token string) {
	var buffer [256]byte
	var ends [len(room)]int
	b := buffer[:0]
	if rec.UserID.Valid {
		b = appendUUID(b, rec.UserID.UUID)
	}
	ends[0] = len(b)
	for i, scope := range rec.Scopes {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, scope...)
	}
	ends[1] = len(b)
	b = appendUUID(b, rec.ClientID)
	ends[2] = len(b)
	b = appendUUID(b, rec.JTI)
	ends[3] = len(b)
	b = append(b, rec.TokenType...)
	ends[4] = len(b)
	b = strconv.AppendInt(b, rec.ExpiresAt.Unix(), 10)
	ends[5] = len(b)
	text, begin := string(b), 0
	n := &id.names
	for i, name := range [...]string{n.Subject, n.Scope, n.Client, n.TokenID, n.TokenType, n.Expires} {
		if room[i] = headerValue(text[begin:ends[i]]); name != "" && (i > 0 || rec.UserID.Valid) {
			h[name] = room[i : i+1 : i+1]
		}
		begin = ends[i]
	}
	if len(id.members) > 0 {
		id.setMembers(h, rec.Metadata)
	}
	if id.mode == "bearer" {
		h.Set("Authorization", "Bearer "+token)
	}
}

// appendUUID is id.String() appended to b.
func appendUUID(b []byte, id uuid.UUID) []byte {
	for i, part := range [...][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return b
}

// setMembers sends members of the metadata: a string as its text, anything else as JSON. null and a member that is
// not there send nothing.
func (id *identity) setMembers(h http.Header, metadata json.RawMessage) {
	var all map[string]json.RawMessage
	if json.Unmarshal(metadata, &all) != nil {
		return
	}
	for _, m := range id.members {
		raw, ok := all[m.name]
		if !ok || string(raw) == "null" {
			continue
		}
		var text string
		if json.Unmarshal(raw, &text) != nil {
			text = string(raw)
		}
		h.Set(m.header, headerValue(text))
	}
}

// headerValue makes any text one header value that cannot be split or trimmed: bytes outside printable ASCII, the
// percent sign, and spaces at either end are percent-encoded as UTF-8 (RFC 3986 §2.1). Upstreams decode with any URL
// library.
func headerValue(s string) string {
	safe := true
	for i := 0; i < len(s); i++ {
		safe = safe && printable(s, i)
	}
	if safe {
		return s
	}
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if printable(s, i) {
			b.WriteByte(s[i])
		} else {
			b.Write([]byte{'%', hexDigits[s[i]>>4], hexDigits[s[i]&15]})
		}
	}
	return b.String()
}

func printable(s string, i int) bool {
	c := s[i]
	return ' ' < c && c < 0x7f && c != '%' || c == ' ' && i > 0 && i < len(s)-1
}

package proxy_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// unquote reads a Go string literal where one stands, for bytes that a line cannot hold.
func unquote(s string) string {
	if strings.HasPrefix(s, `"`) {
		if text, err := strconv.Unquote(s); err == nil {
			return text
		}
	}
	return s
}

// fill replaces ${NAME}. Names: token, proof, h, p, s (its segments), nonce (the latest), nonce1 (the first), jti,
// htu, ath, jwk (of the key), iat, iat+N and iat-N (seconds from the clock), ath:TOKEN, jkt:KEY, x*N (N times x),
// b64:TEXT, upstream (its URL), earlier.proof, earlier.h, earlier.p and earlier.s (of the send before).
func (p *player) fill(text string, more map[string]string) string {
	return placeholder.ReplaceAllStringFunc(text, func(whole string) string {
		name := whole[2 : len(whole)-1]
		if v, ok := more[name]; ok {
			return v
		}
		what, arg, _ := strings.Cut(name, ":")
		switch {
		case name == "token":
			return p.next.token
		case name == "nonce" && len(p.nonces) > 0:
			return p.nonces[len(p.nonces)-1]
		case name == "nonce1" && len(p.nonces) > 0:
			return p.nonces[0]
		case what == "ath":
			return dpop.TokenHash(arg)
		case what == "jkt":
			return string(p.key(arg).Thumbprint())
		case what == "jwk":
			return publicJWK(p.key(arg))
		case name == "upstream":
			return p.g.api
		case strings.HasPrefix(name, "earlier.") && p.earlier != nil:
			return p.earlier[name[len("earlier."):]]
		case what == "b64":
			return encode([]byte(unquote(arg)))
		case strings.HasPrefix(name, "iat"):
			n := 0
			if len(name) > 3 {
				n, _ = strconv.Atoi(name[3:])
			}
			return strconv.FormatInt(p.g.now().Unix()+int64(n), 10)
		case strings.Contains(name, "*"):
			x, times, _ := strings.Cut(name, "*")
			n, _ := strconv.Atoi(times)
			return strings.Repeat(x, n)
		}
		p.fail("unknown placeholder %s", whole)
		return ""
	})
}

var placeholder = regexp.MustCompile(`\$\{[^}]*\}`)

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (p *player) key(name string) *dpop.Key {
	key := p.keys[name]
	if key == nil {
		p.fail("no key %q in keys.json", name)
	}
	return key
}

// publicJWK is the jwk that a key puts into its proofs.
func publicJWK(key *dpop.Key) string {
	raw, err := key.Sign(dpop.Claims{})
	if err != nil {
		panic(err)
	}
	b, _ := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[0])
	var header struct{ JWK json.RawMessage }
	json.Unmarshal(b, &header)
	return string(header.JWK)
}

// token puts a row into the table: NAME member=value…, on top of a live token of K1 with items:read. Members: key
// (a key's name), jkt (text), type, scopes (comma), audience (comma), ttl (a duration), client, user (none); absent.
func (p *player) token(text string) {
	f := strings.Fields(text)
	rec := bound(p.key("K1").Thumbprint(), "items:read")
	for _, change := range f[1:] {
		name, value, _ := strings.Cut(change, "=")
		value = unquote(value)
		switch name {
		case "key":
			rec.DPoPJKT = string(p.key(value).Thumbprint())
		case "jkt":
			rec.DPoPJKT = p.fill(value, nil)
		case "type":
			rec.TokenType = tokenstore.TokenType(value)
		case "scopes":
			rec.Scopes = strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
		case "audience":
			rec.Audience = strings.Split(value, ",")
		case "ttl":
			d, err := time.ParseDuration(value)
			require.NoError(p.t, err)
			rec.ExpiresAt = p.g.now().Add(d)
		case "metadata":
			rec.Metadata = json.RawMessage(value)
		case "user":
			rec.UserID.Valid = false
		case "absent":
			p.g.rows.drop(f[0])
			return
		default:
			p.fail("no member %q of a row", name)
		}
	}
	p.g.rows.put(unquote(f[0]), rec)
}

// build writes the next request and its proof.
func (p *player) build() {
	n := &p.next
	segments := p.segments()
	proof := p.fill(n.proof, segments)
	lines := fields{"Host: " + n.host}
	if n.auth != "" {
		lines = append(lines, "Authorization: "+p.fill(n.auth, nil))
	}
	if n.proof != "" {
		lines = append(lines, "DPoP: "+proof)
	}
	for _, name := range n.drops {
		lines = lines.drop(name)
	}
	more := map[string]string{"proof": proof}
	for _, field := range n.fields {
		lines = append(lines, p.fill(field, more))
	}
	if n.body != "" {
		lines = append(lines, "Content-Length: "+strconv.Itoa(len(n.body)))
	}
	lines = append(lines, "Connection: close")
	p.wire = n.method + " " + p.fill(n.target, more) + " " + n.version + "\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n" + n.body
	if n.raw != "" {
		p.wire = p.fill(n.raw, more)
	}
	p.method, p.earlier = n.method, segments
	p.secrets = append(p.secrets, n.token)
	if strings.Count(proof, ".") == 2 && len(proof) > 100 {
		p.secrets = append(p.secrets, proof)
	}
}

// segments makes the proof and its three parts.
func (p *player) segments() map[string]string {
	n := &p.next
	p.serial++
	key := p.key(n.key)
	path, _, _ := strings.Cut(n.target, "?")
	jwk := apply(publicJWK(key), n.jwk, p)
	header := fmt.Sprintf(`{"typ":"dpop+jwt","alg":%q,"jwk":%s}`, key.Algorithm(), jwk)
	claims := fmt.Sprintf(`{"jti":"%s-%d","htm":%q,"htu":%q,"iat":%d,"ath":%q}`, p.c.id, p.serial, n.method,
		"https://api.example.test"+path, p.g.now().Unix(), dpop.TokenHash(n.token))
	more := map[string]string{
		"jwk": jwk, "jti": fmt.Sprintf("%s-%d", p.c.id, p.serial), "ath": dpop.TokenHash(n.token),
		"htu": "https://api.example.test" + path, "alg": string(key.Algorithm()),
	}
	header = apply(header, n.header, p)
	claims = apply(claims, n.claims, p)
	if n.headerText != "" {
		header = p.fill(n.headerText, more)
	}
	if n.claimsText != "" {
		claims = p.fill(n.claimsText, more)
	}
	h, c := p.spell("h", []byte(header)), p.spell("p", []byte(claims))
	s := p.sign(key, h, c)
	return map[string]string{"h": h, "p": c, "s": s, "proof": h + "." + c + "." + s, "header": header, "claims": claims}
}

// spell encodes a segment as the request spells that one: std (the alphabet with + and /), padded (with = at its end,
// where there is room for any), bits (an unused bit set, where there is one); otherwise as RFC 7515 §2 has it.
func (p *player) spell(segment string, b []byte) string {
	text := encode(b)
	switch p.next.spelling[segment] {
	case "std":
		std := base64.RawStdEncoding.EncodeToString(b)
		require.NotEqual(p.t, text, std, "no character tells the alphabets apart")
		return std
	case "padded":
		padded := base64.URLEncoding.EncodeToString(b)
		require.NotEqual(p.t, text, padded, "no room for padding")
		return padded
	case "bits":
		require.NotZero(p.t, len(b)%3, "no unused bits")
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		last := strings.IndexByte(alphabet, text[len(text)-1])
		return text[:len(text)-1] + string(alphabet[last+1])
	}
	return text
}

// apply changes members of a JSON object by its text, so that values which no encoder would write can stand there.
func apply(object string, changes []pair, p *player) string {
	if len(changes) == 0 {
		return object
	}
	dec := json.NewDecoder(strings.NewReader(object))
	var members []pair
	dec.Token()
	for dec.More() {
		name, _ := dec.Token()
		var value json.RawMessage
		dec.Decode(&value)
		members = append(members, pair{name.(string), string(value)})
	}
	for _, c := range changes {
		i := slices.IndexFunc(members, func(m pair) bool { return m.name == c.name })
		value := p.fill(c.json, nil)
		switch {
		case c.json == "" && i >= 0:
			members = slices.Delete(members, i, i+1)
		case i >= 0:
			members[i].json = value
		case c.json != "":
			members = append(members, pair{c.name, value})
		}
	}
	texts := make([]string, len(members))
	for i, m := range members {
		name, _ := json.Marshal(m.name)
		texts[i] = string(name) + ":" + m.json
	}
	return "{" + strings.Join(texts, ",") + "}"
}

// sign makes the third segment. Words: good, none (empty), flip (its first character), pad (its unused bits), der,
// twin (r and n-s), with KEY (by another key, under the header as it is), decoded (over the decoded text),
// raw TEXT (base64url of a Go string), and those of oddSignatures.
func (p *player) sign(key *dpop.Key, h, c string) string {
	word, arg, _ := strings.Cut(p.next.signature, " ")
	sig := signText(key, h+"."+c)
	switch word {
	case "good":
	case "none":
		return ""
	case "flip":
		text := encode(sig)
		if text[0] == 'A' {
			return "B" + text[1:]
		}
		return "A" + text[1:]
	case "pad":
		p.next.spelling = map[string]string{"s": "bits"}
	case "twin":
		half := new(big.Int).SetBytes(sig[32:])
		new(big.Int).Sub(p256Order, half).FillBytes(sig[32:])
	case "with":
		sig = signText(p.key(arg), h+"."+c)
	case "decoded":
		a, _ := base64.RawURLEncoding.DecodeString(h)
		b, _ := base64.RawURLEncoding.DecodeString(c)
		sig = signText(key, string(a)+"."+string(b))
	case "raw":
		sig = []byte(unquote(arg))
	default:
		odd := oddSignatures[word]
		if odd == nil {
			p.fail("no way to sign called %q", word)
		}
		sig = odd(p, key, h+"."+c, sig)
	}
	return p.spell("s", sig)
}

// expect compares the answer with a result of the catalogue: CODE[|CODE…] [reason].
func (p *player) expect(text string) {
	want, reason, _ := strings.Cut(text, " ")
	e := p.g.eventAfter(p.told)
	got := p.verdict()
	if !slices.Contains(strings.Split(want, "|"), got) && !(strings.Contains(want, "E-4XX") && p.response.StatusCode/100 == 4) {
		p.fail("got %s (%d, %s, %v)\n%s", got, p.response.StatusCode, e.Reason, p.response.Header["Www-Authenticate"], p.body)
	}
	if reason != "" && string(e.Reason) != reason {
		p.fail("refused for %q", e.Reason)
	}
	count := p.g.count() - p.before
	if got == "OWN" {
		return
	}
	if got == "OK" {
		require.Equal(p.t, 1, count, "the upstream must see it once")
		require.Equal(p.t, proxy.Passed, e.Verdict)
		return
	}
	require.Zero(p.t, count, "%s:%d: the upstream saw a refused request", p.c.file, p.line.number)
	p.keepsSecrets()
}

// verdict names the answer as the catalogue does, and checks what every answer of that name must have.
func (p *player) verdict() string {
	res := p.response
	if res.StatusCode < 300 {
		if p.g.count() == p.before {
			return "OWN"
		}
		return "OK"
	}
	if res.StatusCode >= 500 {
		assert.Empty(p.t, res.Header["Www-Authenticate"])
		return "E-FAIL"
	}
	var body struct {
		Error     string `json:"error"`
		RequestID string `json:"request_id"`
	}
	ours := res.Header.Get("X-Request-Id") != "" // without one it is net/http's own refusal
	assert.True(p.t, !ours || res.Header.Get("Cache-Control") == "no-store", "a refusal is not to be stored")
	if p.method != http.MethodHead && ours {
		require.NoError(p.t, json.Unmarshal([]byte(p.body), &body))
		assert.Equal(p.t, res.Header.Get("X-Request-Id"), body.RequestID)
	}
	if len(res.Header["Www-Authenticate"]) == 0 {
		require.NotEqual(p.t, http.StatusUnauthorized, res.StatusCode, "a 401 has a challenge")
		return "E-4XX"
	}
	var errors []string
	nonceAsked := false
	for _, field := range res.Header["Www-Authenticate"] {
		for _, c := range parseChallenges(p.t, field) {
			if c.scheme == "DPoP" {
				require.NotEmpty(p.t, c.params["algs"])
			}
			require.NotEmpty(p.t, c.params["resource_metadata"])
			if code := c.params["error"]; code != "" {
				errors = append(errors, code)
				require.LessOrEqual(p.t, len(c.params["error_description"]), 200)
			}
			nonceAsked = nonceAsked || c.params["error"] == "use_dpop_nonce"
		}
	}
	require.LessOrEqual(p.t, len(errors), 1, "one error")
	require.LessOrEqual(p.t, len(res.Header["Dpop-Nonce"]), 1, "one nonce")
	require.True(p.t, !nonceAsked || len(res.Header["Dpop-Nonce"]) == 1, "a nonce to use")
	if len(errors) == 0 {
		require.Equal(p.t, http.StatusUnauthorized, res.StatusCode)
		return "E-NOAUTH"
	}
	for _, v := range []struct {
		name, code string
		status     int
	}{
		{"E-PROOF", "invalid_dpop_proof", 401},
		{"E-TOKEN", "invalid_token", 401},
		{"E-NONCE", "use_dpop_nonce", 401},
		{"E-REQ", "invalid_request", 400},
		{"E-SCOPE", "insufficient_scope", 403},
	} {
		if v.code == errors[0] {
			require.Equal(p.t, v.status, res.StatusCode)
			return v.name
		}
	}
	p.fail("unknown error %q", errors[0])
	return ""
}

// keepsSecrets looks for tokens and proofs in whatever came back and whatever was logged.
func (p *player) keepsSecrets() {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	for _, secret := range p.secrets {
		if len(secret) < 8 {
			continue // T1 is a part of other words
		}
		assert.NotContains(p.t, p.body, secret)
		assert.NotContains(p.t, fmt.Sprint(p.response.Header), secret)
		assert.NotContains(p.t, p.g.log.String(), secret)
	}
}

// transmit sends the bytes and keeps the answer.
func (p *player) transmit() {
	p.before, p.told = p.g.count(), p.g.told()
	p.response = p.g.raw(p.method, p.wire)
	b, err := io.ReadAll(p.response.Body)
	require.NoError(p.t, err)
	p.body = string(b)
	if nonce := p.response.Header.Get("DPoP-Nonce"); nonce != "" {
		p.nonces = append(p.nonces, nonce)
	}
}

// see checks more of the latest exchange: status N; HEADER ~ REGEXP; no HEADER; upstream HEADER ~ REGEXP; upstream no
// HEADER; body ~ REGEXP; lookups N; claims N (proofs remembered); description ~ REGEXP.
func (p *player) see(text string) {
	header := p.response.Header
	if rest, ok := strings.CutPrefix(text, "upstream "); ok {
		text, header = rest, p.g.last().Header.Clone()
		header.Set("Target", p.g.last().Method+" "+p.g.last().RequestURI)
	}
	if name, ok := strings.CutPrefix(text, "no "); ok {
		assert.Empty(p.t, header.Values(name), "%s:%d: %s", p.c.file, p.line.number, p.line.text)
		return
	}
	name, want, found := strings.Cut(text, " ~ ")
	if !found {
		f := strings.Fields(text)
		n, err := strconv.Atoi(f[1])
		require.NoError(p.t, err)
		switch f[0] {
		case "status":
			assert.Equal(p.t, n, p.response.StatusCode)
		case "lookups":
			assert.Equal(p.t, n, p.g.rows.lookups)
		case "claims":
			assert.Equal(p.t, n, p.g.proofs.Stats().Entries)
		default:
			p.fail("nothing to see called %q", f[0])
		}
		return
	}
	got := strings.Join(header.Values(name), "\n")
	switch name {
	case "target":
		got = header.Get("Target")
	case "body":
		got = p.body
	case "description":
		got = p.response.Header.Get("WWW-Authenticate")
		if _, after, ok := strings.Cut(got, `error_description="`); ok {
			got, _, _ = strings.Cut(after, `"`)
		}
	}
	assert.Regexp(p.t, want, got, "%s:%d", p.c.file, p.line.number)
}

package dpop_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// printings is how a value comes out of whatever prints values.
func printings(v any) []string {
	var out []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		out = append(out, fmt.Sprintf(verb, v))
	}
	if b, err := json.Marshal(v); err == nil {
		out = append(out, string(b))
	}
	return out
}

// FuzzParse states what the parser must do with anything: it never panics; what it takes has one spelling, is inside
// its bounds, and encodes again to a proof that is equal in all that was read from it.
func FuzzParse(f *testing.F) {
	f.Add(rfcProof)
	f.Add(asProof)
	f.Add("a.b.c")
	for _, alg := range []dpop.Algorithm{dpop.EdDSA, dpop.PS256, dpop.ES384} {
		key, err := dpop.NewKey(alg)
		require.NoError(f, err)
		raw, err := key.Sign(dpop.Claims{Method: "POST", URL: "https://a.test/", Token: "t", Nonce: "n", IssuedAt: time.Unix(1, 0)})
		require.NoError(f, err)
		f.Add(raw)
	}
	header := strings.Split(rfcProof, ".")[0]
	for _, claims := range []string{
		`{"jti":"\u00e9\ud83d\ude00","htm":"GET","htu":"x","iat":1.5e9,"exp":-0.25,"nbf":0,"ath":"a","x":[{"y":[null,true,-1e-7]}]}`,
		` { "jti" : "a" , "htm":"b","htu":"c","iat":0 } `,
	} {
		f.Add(header + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".AA")
	}
	f.Fuzz(func(t *testing.T, raw string) {
		checkMemory(t, raw)
		p, err := dpop.Parse(raw, all)
		if err != nil {
			e := dpop.AsError(err)
			require.NotNil(t, e)
			require.Nil(t, p)
			require.Equal(t, dpop.InvalidProof, e.Code)
			return
		}
		parts := strings.Split(raw, ".")
		require.Len(t, parts, 3)
		for _, part := range parts {
			b, err := base64.RawURLEncoding.DecodeString(part)
			require.NoError(t, err)
			require.Equal(t, part, base64.RawURLEncoding.EncodeToString(b), "one spelling")
		}
		require.Len(t, string(p.Thumbprint), 43)
		require.NotEmpty(t, p.JTI)
		require.LessOrEqual(t, len(p.JTI), 512)
		for _, text := range []string{p.JTI, p.HTM, p.HTU, p.ATH, p.Nonce} {
			require.True(t, utf8.ValidString(text))
		}
		// The standard library must read the same values: where it is laxer, it took something else.
		b, _ := base64.RawURLEncoding.DecodeString(parts[1])
		var claims map[string]any
		require.NoError(t, json.Unmarshal(b, &claims))
		require.Equal(t, p.JTI, claims["jti"])
		require.Equal(t, p.HTM, claims["htm"])
		require.Equal(t, p.HTU, claims["htu"])
		require.InDelta(t, claims["iat"], float64(p.IssuedAt.Unix())+float64(p.IssuedAt.Nanosecond())/1e9, 1e-3+1e-9*abs(claims["iat"].(float64)))

		for _, at := range []time.Time{p.IssuedAt, p.Expires, p.NotBefore} {
			if abs(float64(at.Unix())) > 1<<33 && !at.IsZero() {
				return // a float64 no longer holds microseconds there
			}
		}
		again, err := dpop.Parse(parts[0]+"."+encodeClaims(p)+"."+parts[2], all)
		require.NoError(t, err)
		require.Equal(t, summary(p), summary(again))
	})
}

// oneHeader is a memory that knows one header, and nothing about signatures.
type oneHeader struct {
	text string
	read *dpop.Header
	kept int
}

func (m *oneHeader) Recall(text string) dpop.Remembered {
	if text != m.text {
		return nil
	}
	return m
}
func (m *oneHeader) Keep(string, *dpop.Header, string, []byte) { m.kept++ }
func (m *oneHeader) Header() *dpop.Header                      { return m.read }
func (m *oneHeader) Signed(string, []byte) bool                { return false }

// checkMemory states that a memory of headers changes no answer, also when the list of algorithms has changed since.
func checkMemory(t *testing.T, raw string) {
	head, _, _ := strings.Cut(raw, ".")
	read, err := dpop.ReadHeader(head, all)
	if err != nil {
		return // what is not good is not remembered
	}
	memory := &oneHeader{text: head, read: read}
	for _, algorithms := range []dpop.Algorithms{all, {dpop.PS512, dpop.ES256}, {dpop.EdDSA}} {
		without := dpop.Verifier{Algorithms: algorithms, MaxProofSize: 1 << 20}
		with := without
		with.Headers = memory
		p, err := without.Parse(raw)
		q, errWith := with.Parse(raw)
		require.Equal(t, err, errWith)
		if err != nil {
			require.Nil(t, q)
			continue
		}
		require.Equal(t, summary(p), summary(q))
		before := memory.kept
		good := without.VerifySignature(p)
		require.Equal(t, good, with.VerifySignature(q))
		require.Equal(t, good == nil, memory.kept > before, "kept when the signature is good")
	}
}

func abs(f float64) float64 { return max(f, -f) }

// encodeClaims writes the claims of a proof anew.
func encodeClaims(p *dpop.Proof) string {
	claims := map[string]any{"jti": p.JTI, "htm": p.HTM, "htu": p.HTU, "iat": date(p.IssuedAt)}
	for name, text := range map[string]string{"ath": p.ATH, "nonce": p.Nonce} {
		if text != "" {
			claims[name] = text
		}
	}
	for name, at := range map[string]time.Time{"exp": p.Expires, "nbf": p.NotBefore} {
		if !at.IsZero() {
			claims[name] = date(at)
		}
	}
	b, _ := json.Marshal(claims)
	return base64.RawURLEncoding.EncodeToString(b)
}

func date(t time.Time) json.Number {
	return json.Number(fmt.Sprintf("%.6f", float64(t.Unix())+float64(t.Nanosecond())/1e9))
}

func summary(p *dpop.Proof) string {
	return fmt.Sprint(p.Algorithm, p.Thumbprint, p.JTI, p.HTM, p.HTU, p.ATH, p.Nonce, date(p.IssuedAt), date(p.Expires), date(p.NotBefore), p.ReplayKey())
}

// FuzzSign states that what is signed passes, and that no single flipped bit of it does.
func FuzzSign(f *testing.F) {
	keys := map[dpop.Algorithm]*dpop.Key{}
	for _, alg := range []dpop.Algorithm{dpop.ES256, dpop.ES384, dpop.Ed25519, dpop.RS256} {
		key, err := dpop.NewKey(alg)
		require.NoError(f, err)
		keys[alg] = key
	}
	f.Add("j", "GET", "/a", "T1", int64(1_700_000_000), uint(77), uint8(0))
	f.Add("ü😀\x00", "PATCH", "/a%2fb/;c", "x~.-_+/==", int64(0), uint(1), uint8(1))
	f.Fuzz(func(t *testing.T, jti, method, path, token string, at int64, flip uint, pick uint8) {
		at %= 1 << 38
		now := time.Unix(at, 0)
		v := verifier()
		goal := target(t, "https://api.example.test", path)
		key := keys[[]dpop.Algorithm{dpop.ES256, dpop.ES384, dpop.Ed25519, dpop.RS256}[pick%4]]
		raw, err := key.Sign(dpop.Claims{JTI: jti, Method: method, URL: goal.String(), Token: token, IssuedAt: now})
		require.NoError(t, err)
		p, err := v.Parse(raw)
		if method == "" || len(jti) > 512 || len(raw) > v.MaxProofSize || !utf8.ValidString(method+"."+jti) {
			return
		}
		require.NoError(t, err)
		r := dpop.Request{Method: method, Target: goal, Token: token, Nonce: dpop.NonceOff, Now: now}
		if _, err := v.Check(p, r); err != nil {
			reason := dpop.AsError(err).Reason
			unsaid := reason == dpop.HTUMismatch && strings.HasSuffix(goal.String(), "test") // a path that is none
			require.True(t, unsaid || token == "" && reason == dpop.ClaimMissing, "%v", err)
			return
		}
		require.NoError(t, p.VerifySignature())

		flipped := []byte(raw)
		flipped[int(flip/8)%len(flipped)] ^= 1 << (flip % 8)
		q, err := v.Parse(string(flipped))
		if err == nil {
			assert.Error(t, q.VerifySignature(), "bit %d", flip)
		}
	})
}

// FuzzTarget states what a comparison of URLs must be: never a panic; a target equals itself, its own normal form, and
// itself with a query and a fragment; and nothing makes two hosts equal that differ.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/", "/v1/items", "/a%2Fb", "/%c3%a9", "/a/../b", "//x", "/é", "/a|b", "/%zz"} {
		f.Add(s, "https://api.example.test"+s)
	}
	f.Add("/", "https://api.example.test@evil.test/")
	f.Fuzz(func(t *testing.T, path, htu string) {
		goal := target(t, "https://api.example.test", path)
		sent := goal.String()
		if sent == "https://api.example.test" {
			require.NotEmpty(t, dpop.Differs(goal, "https://api.example.test"+path), "no path, so equal to nothing")
			return
		}
		require.Empty(t, dpop.Differs(goal, sent))
		require.Empty(t, dpop.Differs(goal, sent+"?q#f"))
		require.Empty(t, dpop.Differs(goal, "HTTPS://API.example.TEST:443"+strings.TrimPrefix(sent, "https://api.example.test")))
		require.NotEmpty(t, dpop.Differs(goal, sent+"/x"))
		require.NotEmpty(t, dpop.Differs(goal, "http"+strings.TrimPrefix(sent, "https")))
		require.Equal(t, sent, target(t, "https://api.example.test", strings.TrimPrefix(sent, "https://api.example.test")).String(), "normal forms are stable")
		if dpop.Differs(goal, htu) == "" {
			lower := strings.ToLower(htu)
			require.True(t, strings.HasPrefix(lower, "https://api.example.test/") || strings.HasPrefix(lower, "https://api.example.test:") ||
				strings.HasPrefix(lower, "https://api.example.test?") || strings.HasPrefix(lower, "https://api.example.test#") || lower == "https://api.example.test", htu)
		}
	})
}

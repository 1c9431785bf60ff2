package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// proof signs a proof for a request to the rig, at the rig's time.
func (g *rig) proof(key *dpop.Key, method, path, token string) string {
	raw, err := key.Sign(dpop.Claims{Method: method, URL: "https://api.example.test" + path, Token: token, IssuedAt: g.now()})
	require.NoError(g.t, err)
	return raw
}

// request is the text of a request to the rig, with more header lines.
func requestText(method, path string, lines ...string) string {
	lines = append([]string{method + " " + path + " HTTP/1.1", "Host: api.example.test", "Connection: close"}, lines...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// conformance: CHL-13
func TestChallengesParseByTheGrammarAlsoWhenJoined(t *testing.T) {
	g := newRig(t, "mixed")
	g.rows.put("few", bound(vectorKeys(t)["K1"].Thumbprint(), "other"))
	proof := g.proof(vectorKeys(t)["K1"], "GET", "/v1/choice", "few")
	for name, c := range map[string]struct {
		path  string
		lines []string
		want  []string // the schemes, in order; the one with the error is followed by its code
	}{
		"no credentials":  {"/v1/items", nil, []string{"DPoP", "Bearer"}},
		"unknown scheme":  {"/v1/items", []string{"Authorization: Basic YTpi"}, []string{"DPoP", "Bearer"}},
		"two fields":      {"/v1/items", []string{"Authorization: Basic YTpi", "Authorization: DPoP x"}, []string{"DPoP invalid_request", "Bearer invalid_request"}},
		"unknown Bearer":  {"/v1/items", []string{"Authorization: Bearer x"}, []string{"DPoP", "Bearer invalid_token"}},
		"no proof":        {"/v1/items", []string{"Authorization: DPoP x"}, []string{"DPoP invalid_dpop_proof", "Bearer"}},
		"scopes":          {"/v1/choice", []string{"Authorization: DPoP few", "DPoP: " + proof}, []string{"DPoP insufficient_scope", "Bearer"}},
		"DPoP alone":      {"/v1/strict", []string{"Authorization: DPoP x"}, []string{"DPoP invalid_dpop_proof"}},
		"Bearer alone":    {"/v1/bearer", []string{"Authorization: Bearer x"}, []string{"Bearer invalid_token"}},
		"DPoP not taken":  {"/v1/bearer", []string{"Authorization: DPoP x"}, []string{"Bearer"}},
		"Bearer not here": {"/v1/strict", []string{"Authorization: Bearer x"}, []string{"DPoP"}},
	} {
		t.Run(name, func(t *testing.T) {
			res := g.raw("GET", requestText("GET", c.path, c.lines...))
			// RFC 9110 §5.3 lets any hop join fields of one name.
			challenges, ok := parseChallengeList(strings.Join(res.Header.Values("WWW-Authenticate"), ", "))
			require.True(t, ok, res.Header.Values("WWW-Authenticate"))
			var got []string
			for _, c := range challenges {
				got = append(got, strings.TrimSpace(c.scheme+" "+c.params["error"]))
				assert.Equal(t, c.scheme == "DPoP", c.params["algs"] != "")
				assert.Equal(t, "https://api.example.test/.well-known/oauth-protected-resource", c.params["resource_metadata"])
			}
			assert.Equal(t, c.want, got)
		})
	}
	assert.Zero(t, g.count())
}

// conformance: CHL-04
func TestAlgsInAChallengeAreThoseThatPass(t *testing.T) {
	base, err := os.ReadFile("../testdata/vectors/rigs/two-algs.yaml")
	require.NoError(t, err)
	keys := map[string]*dpop.Key{}
	for _, key := range vectorKeys(t) {
		keys[string(key.Algorithm())] = key
	}
	require.Len(t, keys, 11, "a key for each algorithm that there is")
	for _, list := range []string{"PS256, ES256", "RS384, RS512, Ed25519", "EdDSA", "ES512, ES384", "RS256, PS384, PS512"} {
		t.Run(list, func(t *testing.T) {
			g := newRigFrom(t, "algs", []byte(strings.Replace(string(base), "PS256, ES256", list, 1)))
			res := g.raw("GET", requestText("GET", "/v1/items"))
			algs := parseChallenges(t, res.Header.Get("WWW-Authenticate"))[0].params["algs"]
			assert.Equal(t, strings.ReplaceAll(list, ",", ""), algs)
			for alg, key := range keys {
				g.rows.put(alg, bound(key.Thumbprint(), "items:read"))
				res := g.raw("GET", requestText("GET", "/v1/items", "Authorization: DPoP "+alg, "DPoP: "+g.proof(key, "GET", "/v1/items", alg)))
				assert.Equal(t, slices.Contains(strings.Fields(algs), alg), res.StatusCode == http.StatusOK, alg)
			}
		})
	}
}

// conformance: CHL-14
func TestARefusedHEADHasNoBodyOnTheWire(t *testing.T) {
	g := newRig(t, "base")
	conn, err := net.Dial("tcp", g.server.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = io.WriteString(conn, requestText("HEAD", "/v1/items"))
	require.NoError(t, err)
	whole, err := io.ReadAll(conn)
	require.NoError(t, err)
	header, body, found := strings.Cut(string(whole), "\r\n\r\n")
	require.True(t, found)
	assert.Empty(t, body)

	head, err := http.ReadResponse(bufio.NewReader(strings.NewReader(header+"\r\n\r\n")), &http.Request{Method: "HEAD"})
	require.NoError(t, err)
	get := g.raw("GET", requestText("GET", "/v1/items"))
	assert.Equal(t, get.StatusCode, head.StatusCode)
	assert.Equal(t, get.Header["Www-Authenticate"], head.Header["Www-Authenticate"])
}

// conformance: CHL-19
func TestAChallengeOfTheUpstreamNeverLooksLikeOurs(t *testing.T) {
	g := newRig(t, "base")
	key := vectorKeys(t)["K1"]
	g.rows.put("T1", bound(key.Thumbprint(), "items:read"))
	g.reply = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("WWW-Authenticate", `Basic realm="legacy"`)
		w.Header().Add("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
		w.Header().Set("DPoP-Nonce", "of-the-upstream")
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "legacy says no\n")
	}
	res := g.raw("GET", requestText("GET", "/v1/items", "Authorization: DPoP T1", "DPoP: "+g.proof(key, "GET", "/v1/items", "T1")))
	assert.Equal(t, http.StatusUnauthorized, res.StatusCode)
	assert.Empty(t, res.Header["Www-Authenticate"])
	assert.Empty(t, res.Header["Dpop-Nonce"])
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, "legacy says no\n", string(body))
	assert.Equal(t, 1, g.count())
	assert.Equal(t, proxy.Passed, g.event().Verdict)
}

// parseChallengeList reads a list of challenges by RFC 9110 §11.3 and §5.6.1: tokens, quoted-pairs, empty elements.
// The gateway sends no token68 in a challenge, and none is taken.
func parseChallengeList(s string) ([]challenge, bool) {
	var all []challenge
	for s = strings.TrimLeft(s, " \t,"); s != ""; s = strings.TrimLeft(s, " \t,") {
		var scheme string
		if scheme, s = cutToken(s); scheme == "" || s != "" && s[0] != ' ' && s[0] != ',' {
			return nil, false
		}
		c := challenge{scheme, map[string]string{}}
		s = strings.TrimLeft(s, " ")
		for {
			name, value, rest, ok := cutParam(s)
			if !ok {
				break // the next scheme, or nothing that could be read at all
			}
			name = strings.ToLower(name)
			if _, twice := c.params[name]; twice {
				return nil, false
			}
			c.params[name] = value
			if s = rest; s != "" && strings.TrimLeft(s, " \t")[0] != ',' {
				return nil, false
			}
			s = strings.TrimLeft(s, " \t,")
		}
		all = append(all, c)
	}
	return all, len(all) > 0
}

// cutToken takes a token off the front.
func cutToken(s string) (token, rest string) {
	const tchar = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	rest = strings.TrimLeft(s, tchar)
	return s[:len(s)-len(rest)], rest
}

// cutParam takes name=token or name="text" off the front.
func cutParam(s string) (name, value, rest string, ok bool) {
	name, rest = cutToken(s)
	rest, ok = strings.CutPrefix(strings.TrimLeft(rest, " \t"), "=")
	if name == "" || !ok {
		return "", "", "", false
	}
	rest = strings.TrimLeft(rest, " \t")
	if !strings.HasPrefix(rest, `"`) {
		value, rest = cutToken(rest)
		return name, value, rest, value != ""
	}
	var b strings.Builder
	for i := 1; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '"':
			return name, b.String(), rest[i+1:], true
		case c == '\\' && i+1 < len(rest):
			i++
			b.WriteByte(rest[i])
		case c < ' ' && c != '\t' || c == 0x7f:
			return "", "", "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", "", "", false
}

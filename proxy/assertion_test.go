package proxy_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const assertionYAML = `
public_urls: [https://api.example.test]
listen: {http: "127.0.0.1:0"}
store: {sqlite: unused.db}
dpop: {nonce: "off"}
identity: {assertion: {header: X-Auth-Assertion, key_file: "${KEY}"}}
upstreams: {orders: {targets: ["${UPSTREAM}/base"]}}
routes:
  - {match: /v1/, upstream: orders, strip_prefix: /v1, token_types: [DPoP, Bearer]}
  - {match: /named/, upstream: "${UPSTREAM}", mode: report}
  - {match: /public/, upstream: "${UPSTREAM}", public: true}
`

// newAsserting is a rig that signs with a new key for alg in the file it answers.
func newAsserting(t *testing.T, alg dpop.Algorithm) (g *rig, key *dpop.Key, file string) {
	file = filepath.Join(t.TempDir(), "assertion.jwk")
	writeKey(t, file, alg)
	g = newRigFrom(t, "assertion", []byte(strings.ReplaceAll(assertionYAML, "${KEY}", file)))
	key = vectorKeys(t)["K1"]
	g.rows.put("T1", bound(key.Thumbprint(), "items:read", "items:write"))
	return g, key, file
}

func writeKey(t *testing.T, file string, alg dpop.Algorithm) {
	key, err := dpop.NewKey(alg)
	require.NoError(t, err)
	data, err := key.JWK()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, data, 0o600))
}

// published is the keys that anybody can read at the gateway.
func published(t *testing.T, g *rig) (set jose.JSONWebKeySet) {
	res := g.raw("GET", "GET /.well-known/dpopgate/jwks.json HTTP/1.1\r\nHost: api.example.test\r\nConnection: close\r\n\r\n")
	require.Equal(t, http.StatusOK, res.StatusCode)
	assert.Equal(t, "public, max-age=300", res.Header.Get("Cache-Control"))
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NotContains(t, string(body), `"d"`, "the private half")
	require.NoError(t, json.Unmarshal(body, &set))
	return set
}

// claims verifies an assertion with published keys.
func claims(t *testing.T, set jose.JSONWebKeySet, text string) (all map[string]any) {
	token, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA})
	require.NoError(t, err)
	require.NoError(t, token.Claims(set, &all))
	return all
}

func TestUpstreamGetsASignedAssertionOfWhatItIsTold(t *testing.T) {
	for _, alg := range []dpop.Algorithm{dpop.ES256, dpop.EdDSA, dpop.Ed25519} {
		t.Run(string(alg), func(t *testing.T) {
			g, key, _ := newAsserting(t, alg)
			res := g.passes(g.signed(key, dpop.Claims{Method: "PUT", URL: apiURL + "/v1/items/7%20a"}))
			up := g.last()
			assert.Equal(t, map[string]any{
				"iss": apiURL, "aud": "orders",
				"sub": aUser.String(), "client_id": aClient.String(), "scope": "items:read items:write",
				"iat": float64(start.Unix()), "exp": float64(start.Unix() + 30),
				"jti": res.Header.Get("X-Request-Id"), "token_id": up.Header.Get("X-Auth-Token-Id"),
				"cnf":    map[string]any{"jkt": string(key.Thumbprint())},
				"method": "PUT", "path": "/items/7%20a",
			}, claims(t, published(t, g), up.Header.Get("X-Auth-Assertion")))
			assert.Equal(t, "/base/items/7%20a", up.URL.EscapedPath())
		})
	}
}

func TestAssertionSaysWhatATokenIsNot(t *testing.T) {
	g, key, _ := newAsserting(t, dpop.ES256)
	rec := bound(key.Thumbprint())
	rec.UserID, rec.TokenType, rec.DPoPJKT = uuid.NullUUID{}, tokenstore.Bearer, ""
	g.rows.put("T1", rec)
	r := g.signed(key, dpop.Claims{URL: apiURL + "/v1/x"})
	r.Header.Del("DPoP")
	r.Header.Set("Authorization", "Bearer T1")
	g.passes(r)
	all := claims(t, published(t, g), g.last().Header.Get("X-Auth-Assertion"))
	assert.NotContains(t, all, "sub")
	assert.NotContains(t, all, "cnf")
	assert.Empty(t, all["scope"])
}

func TestNobodyElseSendsAnAssertion(t *testing.T) {
	g, key, _ := newAsserting(t, dpop.ES256)
	for _, name := range []string{"X-Auth-Assertion", "x_auth_assertion", "X.Auth.Assertion"} {
		res := g.raw("GET", "GET /public/x HTTP/1.1\r\nHost: api.example.test\r\n"+name+": forged\r\nConnection: close\r\n\r\n")
		require.Equal(t, http.StatusOK, res.StatusCode)
		for sent := range g.last().Header {
			assert.NotContains(t, strings.ToLower(sent), "assertion")
		}
	}
	r := g.signed(key, dpop.Claims{Token: "T9", URL: apiURL + "/named/x"}) // which mode report lets through
	r.Header.Set("X-Auth-Assertion", "forged")
	g.passes(r)
	assert.Empty(t, g.last().Header["X-Auth-Assertion"])
	g.reply = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Auth-Assertion", r.Header.Get("X-Auth-Assertion"))
	}
	res := g.passes(g.signed(key, dpop.Claims{URL: apiURL + "/v1/x"}))
	assert.Empty(t, res.Header["X-Auth-Assertion"], "what the upstream echoes")
}

func TestUpstreamWithoutANameIsTheAudienceByItsURL(t *testing.T) {
	g, key, _ := newAsserting(t, dpop.ES256)
	g.passes(g.signed(key, dpop.Claims{URL: apiURL + "/named/x"}))
	assert.Equal(t, g.api, claims(t, published(t, g), g.last().Header.Get("X-Auth-Assertion"))["aud"])
}

func TestReplacedKeyStaysPublishedForAWhile(t *testing.T) {
	g, key, file := newAsserting(t, dpop.ES256)
	ask := func() string {
		g.passes(g.signed(key, dpop.Claims{URL: apiURL + "/v1/x"}))
		return g.last().Header.Get("X-Auth-Assertion")
	}
	names := func() (ids []string) {
		for _, k := range published(t, g).Keys {
			ids = append(ids, k.KeyID)
		}
		return ids
	}
	before := ask()
	first := names()
	require.NoError(t, g.gateway.Reload(g.config))
	assert.Equal(t, first, names(), "the same key")
	writeKey(t, file, dpop.EdDSA)
	require.NoError(t, g.gateway.Reload(g.config))
	assert.Len(t, names(), 2)
	claims(t, published(t, g), before)
	claims(t, published(t, g), ask())
	require.NoError(t, g.gateway.Reload(g.config))
	g.offset.Add(int64(10*time.Minute - time.Second))
	assert.Len(t, names(), 2)
	g.offset.Add(int64(time.Second))
	assert.Len(t, names(), 1)
	assert.NotEqual(t, first, names())

	require.NoError(t, os.WriteFile(file, []byte("{}"), 0o600))
	require.ErrorContains(t, g.gateway.Reload(g.config), "identity.assertion.key_file: neither a JWK nor a PEM key")
	writeKey(t, file, dpop.PS256)
	require.ErrorContains(t, g.gateway.Reload(g.config), "an assertion is signed with ES256 or EdDSA, and this is a key for PS256")
	require.NoError(t, os.Remove(file))
	require.ErrorIs(t, g.gateway.Reload(g.config), os.ErrNotExist)
	assert.Len(t, names(), 1, "what was in force stays")
}

func TestKeysAreNotServedWhereNoneSigns(t *testing.T) {
	g := newRig(t, "base")
	res := g.raw("GET", "GET /.well-known/dpopgate/jwks.json HTTP/1.1\r\nHost: api.example.test\r\nConnection: close\r\n\r\n")
	assert.Equal(t, http.StatusNotFound, res.StatusCode)
	a, _, _ := newAsserting(t, dpop.ES256)
	res = a.raw("POST", "POST /.well-known/dpopgate/jwks.json HTTP/1.1\r\nHost: api.example.test\r\nConnection: close\r\n\r\n")
	assert.Equal(t, http.StatusNotFound, res.StatusCode)
	assert.Contains(t, config.PresetHeaders(), "X-Auth-Assertion", "removed from requests even so")
}

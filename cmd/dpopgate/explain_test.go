package main

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

var update = flag.Bool("update", false, "write the golden files anew")

const explainConfig = `
public_urls: [https://api.example.com/v2]
store: {sqlite: %q}
routes:
  - {match: GET /orders/, upstream: "http://127.0.0.1:9000", scopes: [orders:read]}
  - {match: "POST /orders/{id}/refund", upstream: "http://127.0.0.1:9000", scopes: [orders:write]}
  - {match: GET /fresh, upstream: "http://127.0.0.1:9000", nonce: required}
  - {match: GET /health, upstream: "http://127.0.0.1:9000", public: true}
`

// What explain says about the mistakes that clients make is kept in testdata/explain, a file each.
func TestExplainTellsTypicalMistakesApart(t *testing.T) {
	at := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	folder := t.TempDir()
	db, conf := filepath.Join(folder, "tokens.db"), filepath.Join(folder, "dpopgate.yaml")
	require.NoError(t, os.WriteFile(conf, fmt.Appendf(nil, explainConfig, db), 0o600))
	clients := vectorKeys(t)
	honest, err := dpop.ReadKey(clients["K1"])
	require.NoError(t, err)
	store, err := tokenstore.OpenSQLite(t.Context(), db, tokenstore.SQLiteOptions{})
	require.NoError(t, err)
	for token, lives := range map[string]time.Duration{"live-token": time.Hour, "expired-token": -time.Minute} {
		require.NoError(t, store.Insert(t.Context(), &tokenstore.Record{
			Digest: tokenstore.Digester{}.Digest(tokenstore.Token(token)), ClientID: uuid.New(), TokenType: tokenstore.DPoP,
			DPoPJKT: string(honest.Thumbprint()), Scopes: []string{"orders:read"}, ExpiresAt: at.Add(lives),
		}))
	}
	require.NoError(t, store.Close())

	const method, url = "GET", "https://api.example.com/v2/orders/7"
	base := func() (header, claims map[string]any) {
		var jwk map[string]any
		require.NoError(t, json.Unmarshal(clients["K1"], &jwk))
		delete(jwk, "d")
		delete(jwk, "alg")
		return map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk},
			map[string]any{"jti": "7Qm3", "htm": method, "htu": url, "iat": at.Unix() - 3, "ath": dpop.TokenHash("live-token")}
	}
	type request struct {
		name          string
		method, url   string
		token         string
		scheme        string
		key           string
		headers       string // instead of token and proof
		header, claim func(m map[string]any)
	}
	set := func(name string, value any) func(map[string]any) {
		return func(m map[string]any) {
			if m[name] = value; value == nil {
				delete(m, name)
			}
		}
	}
	for _, r := range []request{
		{name: "nothing-wrong"},
		{name: "no-proof", headers: "Authorization: DPoP live-token\n"},
		{name: "two-proofs", headers: "Authorization: DPoP live-token\nDPoP: a.b.c\nDPoP: a.b.c\n"},
		{name: "no-token", headers: "Accept: */*\n"},
		{name: "token-in-proof-header", headers: "Authorization: DPoP live-token\nDPoP: live-token\n"},
		{name: "internal-url", claim: set("htu", "http://10.0.0.7:8080/orders/7")},
		{name: "scheme-http", claim: set("htu", "http://api.example.com/v2/orders/7")},
		{name: "prefix-left-out", claim: set("htu", "https://api.example.com/orders/7")},
		{name: "slash-at-the-end", claim: set("htu", url+"/")},
		{name: "method-in-lower-case", claim: set("htm", "get")},
		{name: "no-ath", claim: set("ath", nil)},
		{name: "ath-of-another-token", claim: set("ath", dpop.TokenHash("old-token"))},
		{name: "iat-in-milliseconds", claim: set("iat", at.UnixMilli())},
		{name: "clock-slow", claim: set("iat", at.Add(-10*time.Minute).Unix())},
		{name: "clock-fast", claim: set("iat", at.Add(10*time.Minute).Unix())},
		{name: "typ-jwt", header: set("typ", "JWT")},
		{name: "private-key-in-the-header", header: func(m map[string]any) { m["jwk"].(map[string]any)["d"] = "secret" }},
		{name: "another-key", key: "K2"},
		{name: "signed-by-another-key", key: "K2", header: func(map[string]any) {}},
		{name: "expired-token", token: "expired-token", claim: set("ath", dpop.TokenHash("expired-token"))},
		{name: "sent-as-bearer", scheme: "Bearer"},
		{name: "scope-missing", method: "POST", url: url + "/refund", claim: func(m map[string]any) { m["htm"], m["htu"] = "POST", url+"/refund" }},
		{name: "no-nonce-where-required", url: "https://api.example.com/v2/fresh", claim: set("htu", "https://api.example.com/v2/fresh")},
		{name: "no-such-route", url: "https://api.example.com/v2/invoices"},
		{name: "another-host", url: "https://intern.example.com/v2/orders/7"},
		{name: "public-route", url: "https://api.example.com/v2/health", headers: "Accept: */*\n"},
	} {
		t.Run(r.name, func(t *testing.T) {
			header, claims := base()
			key := clients["K1"]
			if r.key != "" {
				key = clients[r.key]
				if r.header == nil {
					var jwk map[string]any
					require.NoError(t, json.Unmarshal(key, &jwk))
					delete(jwk, "d")
					header["jwk"] = jwk
				}
			}
			for _, change := range []struct {
				f func(map[string]any)
				m map[string]any
			}{{r.header, header}, {r.claim, claims}} {
				if change.f != nil {
					change.f(change.m)
				}
			}
			or := func(text, usual string) string {
				if text == "" {
					return usual
				}
				return text
			}
			lines := or(r.headers, or(r.scheme, "DPoP"))
			if r.headers == "" {
				lines = fmt.Sprintf("Authorization: %s %s\n", or(r.scheme, "DPoP"), or(r.token, "live-token"))
				if r.scheme == "" {
					lines += "DPoP: " + signRaw(t, key, header, claims) + "\n"
				}
			}
			got := shell{stdin: lines}.run(t, "explain", "-c", conf, "--method", or(r.method, method), "--url", or(r.url, url),
				"--at", at.Format(time.RFC3339), "--headers", "-")
			assert.Equal(t, r.name != "nothing-wrong" && r.name != "public-route", got.code == 1, got.stderr)
			golden := "../../testdata/explain/" + r.name + ".txt"
			if *update {
				require.NoError(t, os.MkdirAll(filepath.Dir(golden), 0o755))
				require.NoError(t, os.WriteFile(golden, []byte(got.stdout), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			assert.Equal(t, string(want), got.stdout)
			assert.NotContains(t, got.stdout+got.stderr, "live-token")
		})
	}
}

// vectorKeys are the clients' keys that the vectors use.
func vectorKeys(t *testing.T) map[string]json.RawMessage {
	data, err := os.ReadFile("../../testdata/vectors/keys.json")
	require.NoError(t, err)
	var keys map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(data, &keys))
	return keys
}

// signRaw signs any header and claims with a P-256 key.
func signRaw(t *testing.T, key json.RawMessage, header, claims map[string]any) string {
	var jwk jose.JSONWebKey
	require.NoError(t, json.Unmarshal(key, &jwk))
	var parts [2]string
	for i, part := range []map[string]any{header, claims} {
		b, err := json.Marshal(part)
		require.NoError(t, err)
		parts[i] = base64.RawURLEncoding.EncodeToString(b)
	}
	signed := parts[0] + "." + parts[1]
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, jwk.Key.(*ecdsa.PrivateKey), sum[:])
	require.NoError(t, err)
	sig := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

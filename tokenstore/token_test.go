package tokenstore_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore"
)

// verbs are all that fmt knows but %p, which asks no type, and one that it does not know.
var verbs = []string{"%v", "%+v", "%#v", "%T", "%s", "%q", "%x", "%X", "%d", "%t", "%U", "%c", "%b", "%o", "%O", "%e", "%g", "% x", "%#x", "%020s", "%z"}

func TestTokenNeverPrintsItself(t *testing.T) {
	token := tokenstore.Token("hunter2")
	type holder struct {
		Token tokenstore.Token  `json:"token" xml:"token"`
		Ref   *tokenstore.Token `json:"ref" xml:"ref"`
	}
	var out bytes.Buffer
	for _, value := range []any{token, &token, holder{token, &token}, &holder{token, &token}, []tokenstore.Token{token}, map[string]tokenstore.Token{"a": token}} {
		for _, verb := range verbs {
			fmt.Fprintf(&out, verb+"\n", value)
		}
		require.NoError(t, json.NewEncoder(&out).Encode(value))
		slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "value", value)
		slog.New(slog.NewTextHandler(&out, nil)).Info("text", "value", value)
		fmt.Fprintln(&out, value)
	}
	require.NoError(t, xml.NewEncoder(&out).Encode(holder{token, &token}))
	fmt.Fprintln(&out, fmt.Errorf("token %s: %w", token, assert.AnError))
	for _, form := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%X", "hunter2"), fmt.Sprintf("% x", "hunter2")} {
		assert.NotContains(t, out.String(), form)
	}
	assert.Equal(t, "hunter2", string(token))
}

func TestDigesterNeverPrintsItsKey(t *testing.T) {
	d := tokenstore.NewHMAC([]byte("hunter2"))
	for _, verb := range append(slices.Clone(verbs), "%p") {
		for _, value := range []any{d, &d, struct{ D tokenstore.Digester }{d}} {
			out := fmt.Sprintf(verb, value)
			for _, form := range []string{"hunter2", fmt.Sprint([]byte("hunter2")), fmt.Sprintf("%x", "hunter2")} {
				assert.NotContains(t, out, form)
			}
		}
	}
	assert.Equal(t, "hmac-sha256", fmt.Sprint(d))
	assert.Equal(t, "sha256", fmt.Sprint(tokenstore.Digester{}))
}

func TestNewTokensDiffer(t *testing.T) {
	seen := map[tokenstore.Token]bool{}
	for range 1000 {
		token := tokenstore.NewToken()
		assert.Len(t, string(token), 43)
		assert.False(t, seen[token])
		seen[token] = true
	}
}

// The values are those of sha256sum and of openssl dgst -sha256 -hmac.
func TestDigestsAreTheStandards(t *testing.T) {
	plain := tokenstore.Digester{}.Digest("abc")
	assert.Equal(t, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", plain.String())
	keyed := tokenstore.NewHMAC([]byte("Jefe")).Digest("what do ya want for nothing?") // RFC 4231 section 4.3
	assert.Equal(t, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", keyed.String())
	assert.True(t, plain.Equal(tokenstore.Digester{}.Digest("abc")))
	assert.False(t, plain.Equal(keyed))
}

func TestHMACWithAnEmptyKeyIsNotPlain(t *testing.T) {
	for _, key := range [][]byte{nil, {}} {
		assert.NotEqual(t, tokenstore.Digester{}.Digest("abc"), tokenstore.NewHMAC(key).Digest("abc"))
	}
}

func TestDigesterKeepsACopyOfItsKey(t *testing.T) {
	key := []byte("key")
	d := tokenstore.NewHMAC(key)
	before := d.Digest("abc")
	key[0] = 'x'
	assert.Equal(t, before, d.Digest("abc"))
}

func TestRecordIsJSONByTheTablesNames(t *testing.T) {
	r := newRecord()
	r.JTI, r.ExpiresAt = uuid.MustParse("00000000-0000-4000-8000-000000000001"), time.Unix(0, 0).UTC()
	r.CreatedAt, r.UpdatedAt = r.ExpiresAt, r.ExpiresAt
	r.Digest = tokenstore.Digest{0xab}
	out, err := json.Marshal(r)
	require.NoError(t, err)
	assert.JSONEq(t, `{
		"digest": "ab00000000000000000000000000000000000000000000000000000000000000",
		"jti": "00000000-0000-4000-8000-000000000001",
		"client_id": "00000000-0000-4000-8000-0000000c11e7",
		"user_id": "00000000-0000-4000-8000-00000000a11c",
		"token_type": "DPoP",
		"dpop_jkt": "`+thumbprint+`",
		"scopes": ["orders:write", "orders:read"],
		"audience": ["https://api.example.com"],
		"metadata": {"device": "phone"},
		"created_at": "1970-01-01T00:00:00Z",
		"updated_at": "1970-01-01T00:00:00Z",
		"expires_at": "1970-01-01T00:00:00Z"
	}`, string(out))
}

func TestRecordExpiresAtTheMomentItself(t *testing.T) {
	r := newRecord()
	assert.False(t, r.Expired(r.ExpiresAt.Add(-time.Nanosecond)))
	assert.True(t, r.Expired(r.ExpiresAt))
	assert.True(t, r.Expired(r.ExpiresAt.Add(time.Nanosecond)))
	assert.True(t, (&tokenstore.Record{}).Expired(time.Now()))
}

func TestOnlyAPlainBearerRecordIsNotBound(t *testing.T) {
	for _, c := range []struct {
		kind  tokenstore.TokenType
		jkt   string
		bound bool
	}{
		{tokenstore.Bearer, "", false},
		{tokenstore.Bearer, thumbprint, true},
		{tokenstore.DPoP, thumbprint, true},
		{tokenstore.DPoP, "", true},
		{"", "", true},
		{"bearer", "", true},
	} {
		assert.Equal(t, c.bound, (&tokenstore.Record{TokenType: c.kind, DPoPJKT: c.jkt}).Bound(), c)
	}
}

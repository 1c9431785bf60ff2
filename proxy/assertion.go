package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/go-jose/go-jose/v4"
)

// jwksPath is where the keys of assertions are published, below each public URL, which is the iss of an assertion.
const jwksPath = "/.well-known/dpopgate/jwks.json"

const (
	assertionLife = 30 * time.Second
	keyRetirement = 10 * time.Minute // that a replaced key stays published: twice as long as the document may be cached
)

// asserter signs what an upstream is told, for upstreams that do not trust their network. It is immutable.
type asserter struct {
	header   string
	audience string // empty: the upstream's name
	signer   jose.Signer
	keys     []publishedKey // the one in use first
}

// publishedKey is a public key that upstreams may still need.
type publishedKey struct {
	jwk   jose.JSONWebKey
	until time.Time // zero for the key in use
}

// compileAsserter reads the signing key, and keeps publishing those that the tables before it had. An empty header is
// none: a nil asserter.
func compileAsserter(c config.Assertion, before *table, now time.Time) (*asserter, error) {
	if c.Header == "" {
		return nil, nil
	}
	data, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return nil, err
	}
	key, err := dpop.ReadKey(data)
	if err != nil {
		return nil, err
	}
	a := &asserter{header: c.Header, audience: c.Audience}
	var public jose.JSONWebKey
	if a.signer, public, err = newSigner(key); err != nil {
		return nil, err
	}
	a.keys = []publishedKey{{jwk: public}}
	if before == nil || before.asserter == nil {
		return a, nil
	}
	for _, k := range before.asserter.keys {
		if k.until.IsZero() {
			k.until = now.Add(keyRetirement)
		}
		if k.jwk.KeyID != public.KeyID && now.Before(k.until) {
			a.keys = append(a.keys, k)
		}
	}
	return a, nil
}

// newSigner takes a key of the two kinds that assertions are signed with.
func newSigner(key *dpop.Key) (jose.Signer, jose.JSONWebKey, error) {
	var private jose.JSONWebKey
	text, err := key.JWK()
	if err == nil {
		err = json.Unmarshal(text, &private)
	}
	if err != nil {
		return nil, private, errors.New("this key cannot be used")
	}
	var alg jose.SignatureAlgorithm
	switch key.Algorithm() {
	case dpop.ES256:
		alg = jose.ES256
	case dpop.EdDSA, dpop.Ed25519:
		alg = jose.EdDSA
	default:
		return nil, private, fmt.Errorf("an assertion is signed with ES256 or EdDSA, and this is a key for %s; make one with dpopgate key new", key.Algorithm())
	}
	private.KeyID, private.Algorithm, private.Use = string(key.Thumbprint()), string(alg), "sig"
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: private}, (&jose.SignerOptions{}).WithType("JWT"))
	return signer, private.Public(), err
}

// assertionClaims is what an assertion says.
type assertionClaims struct {
	Issuer   string        `json:"iss"`           // the public URL that was called
	Audience string        `json:"aud"`           //
	Subject  string        `json:"sub,omitempty"` // the user; not there for a token of no user
	ClientID string        `json:"client_id"`     // RFC 8693 §4.3
	Scope    string        `json:"scope"`         // RFC 8693 §4.2
	IssuedAt int64         `json:"iat"`           //
	Expires  int64         `json:"exp"`           //
	ID       string        `json:"jti"`           // the request id
	TokenID  string        `json:"token_id"`      // the stored jti, never the token
	Confirm  *confirmation `json:"cnf,omitempty"` // RFC 9449 §6.1; not there for Bearer tokens
	Method   string        `json:"method"`        // of the request
	Path     string        `json:"path"`          // as sent on, without the query and what the target's URL puts in front
}

type confirmation struct {
	JKT string `json:"jkt"`
}

// assert adds the assertion to a header for the upstream.
func (x *exchange) assert(h http.Header, method, path string) {
	a := x.table.asserter
	if a == nil {
		return
	}
	text, err := x.sign(a, method, path)
	if err != nil { // with a key that newSigner took, signing cannot fail; if it does, the request must not be sent
		panic(fmt.Errorf("signing an assertion: %w", err))
	}
	h.Set(a.header, text)
}

func (x *exchange) sign(a *asserter, method, path string) (string, error) {
	rec := x.record
	claims := assertionClaims{
		Issuer:   x.origin.String(),
		Audience: a.audience,
		ClientID: rec.ClientID.String(),
		Scope:    strings.Join(rec.Scopes, " "),
		IssuedAt: x.now.Unix(),
		Expires:  x.now.Add(assertionLife).Unix(),
		ID:       x.event.RequestID,
		TokenID:  rec.JTI.String(),
		Method:   method,
		Path:     path,
	}
	if claims.Audience == "" {
		claims.Audience = x.route.upstream.name
	}
	if rec.UserID.Valid {
		claims.Subject = rec.UserID.UUID.String()
	}
	if rec.DPoPJKT != "" {
		claims.Confirm = &confirmation{rec.DPoPJKT}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signed, err := a.signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// asksForKeys says whether this is a request for the keys of assertions, which are public.
func (x *exchange) asksForKeys(method string) bool {
	return x.table.asserter != nil && x.path == jwksPath && (method == http.MethodGet || method == http.MethodHead)
}

// serveKeys answers it (RFC 7517 §5).
func (x *exchange) serveKeys(w http.ResponseWriter) {
	var set jose.JSONWebKeySet
	current := slices.DeleteFunc(slices.Clone(x.table.asserter.keys), func(k publishedKey) bool {
		return !k.until.IsZero() && !x.now.Before(k.until)
	})
	for _, k := range current {
		set.Keys = append(set.Keys, k.jwk)
	}
	h := w.Header()
	body, err := json.Marshal(set)
	if err != nil { // public keys: cannot fail
		panic(err)
	}
	h.Set("Content-Type", "application/jwk-set+json")
	h.Set("Cache-Control", "public, max-age=300")
	h.Set("Access-Control-Allow-Origin", "*")
	w.WriteHeader(http.StatusOK)
	if x.event.Method != http.MethodHead {
		w.Write(body)
	}
}

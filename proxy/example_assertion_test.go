package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// legacyApp is an application behind the gateway that believes nothing but the gateway's signature: not its network, and
// not the headers beside the assertion.
type legacyApp struct {
	gateway string // public URL of the gateway: the iss, and where its keys are
	reach   string // where this application reaches the gateway
	name    string // what the gateway calls this application: the aud

	mu   sync.Mutex
	keys jose.JSONWebKeySet
}

// caller is who the gateway says has called.
type caller struct {
	jwt.Claims
	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
	Method   string `json:"method"`
	Path     string `json:"path"`
}

// caller checks the assertion of a request: the signature, who made it and for whom, that it is fresh, and that it is
// about this very request.
func (a *legacyApp) caller(r *http.Request) (*caller, error) {
	token, err := jwt.ParseSigned(r.Header.Get("X-Auth-Assertion"), []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA})
	if err != nil {
		return nil, err
	}
	key, err := a.key(token.Headers[0].KeyID)
	if err != nil {
		return nil, err
	}
	c := &caller{}
	if err := token.Claims(key, c); err != nil {
		return nil, err
	}
	expected := jwt.Expected{Issuer: a.gateway, AnyAudience: jwt.Audience{a.name}, Time: time.Now()}
	if err := c.ValidateWithLeeway(expected, 5*time.Second); err != nil {
		return nil, err
	}
	if c.Expiry == nil || c.Method != r.Method || c.Path != r.URL.EscapedPath() {
		return nil, errors.New("the assertion is about another request")
	}
	return c, nil
}

// key is a key of the gateway. One that is not known yet is asked for; an application in service would bound how often.
func (a *legacyApp) key(id string) (any, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if found := a.keys.Key(id); len(found) == 1 {
		return found[0].Key, nil
	}
	r, err := http.NewRequest("GET", a.reach+"/.well-known/dpopgate/jwks.json", nil)
	if err != nil {
		return nil, err
	}
	r.Host = "api.example.com"
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	a.keys = jose.JSONWebKeySet{}
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&a.keys); err != nil {
		return nil, err
	}
	if found := a.keys.Key(id); len(found) == 1 {
		return found[0].Key, nil
	}
	return nil, errors.New("a key that the gateway does not publish")
}

func (a *legacyApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, err := a.caller(r)
	if err != nil {
		http.Error(w, "not from the gateway", http.StatusUnauthorized)
		return
	}
	fmt.Fprintf(w, "%s may %s on %s\n", c.Subject, c.Scope, r.URL.Path)
}

// A legacy application checks who calls by the gateway's signature.
func Example_assertion() {
	app := &legacyApp{gateway: "https://api.example.com", name: "orders"}
	upstream := httptest.NewServer(app)
	defer upstream.Close()

	// The gateway's key, which the command "dpopgate key new -o assertion.jwk" makes.
	folder, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	file := filepath.Join(folder, "assertion.jwk")
	signing, _ := dpop.NewKey(dpop.ES256)
	text, _ := signing.JWK()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		panic(err)
	}

	c, err := config.Parse("dpopgate.yaml", []byte(`
public_urls: [https://api.example.com]
store: {sqlite: tokens.db}
identity:
  assertion: {header: X-Auth-Assertion, key_file: `+file+`}
upstreams:
  orders: {targets: ["`+upstream.URL+`"]}
routes:
  - {match: GET /orders/, upstream: orders, scopes: [orders:read]}
`), os.LookupEnv)
	if err != nil {
		panic(err)
	}
	client, _ := dpop.NewKey(dpop.ES256)
	gateway, err := proxy.New(c, proxy.Options{Tokens: oneToken(client.Thumbprint()), Replay: cache.NewProofs(1<<20, nil)})
	if err != nil {
		panic(err)
	}
	defer gateway.Close()
	front := httptest.NewServer(gateway)
	defer front.Close()
	app.reach = front.URL

	// A client through the gateway.
	r, _ := http.NewRequest("GET", front.URL+"/orders/7", nil)
	r.Host = "api.example.com"
	proof, _ := client.Sign(dpop.Claims{Method: "GET", URL: "https://api.example.com/orders/7", Token: "T1"})
	r.Header.Set("Authorization", "DPoP T1")
	r.Header.Set("DPoP", proof)
	show(r)

	// Somebody inside the network, who goes past it.
	r, _ = http.NewRequest("GET", upstream.URL+"/orders/7", nil)
	r.Header.Set("X-Auth-Subject", aUser.String())
	show(r)

	// Output:
	// 200 0b9a3a52-30a4-4c0e-8b5a-2a5ad25e7e02 may orders:read on /orders/7
	// 401 not from the gateway
}

// oneToken is a table with the one token T1, which is bound to a key.
type oneToken dpop.Thumbprint

func (jkt oneToken) Lookup(_ context.Context, d tokenstore.Digest) (*tokenstore.Record, error) {
	if d != (tokenstore.Digester{}).Digest("T1") {
		return nil, tokenstore.ErrNotFound
	}
	rec := bound(dpop.Thumbprint(jkt), "orders:read")
	rec.ExpiresAt = time.Now().Add(time.Minute)
	return &rec, nil
}

func show(r *http.Request) {
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	fmt.Printf("%d %s", res.StatusCode, body)
}

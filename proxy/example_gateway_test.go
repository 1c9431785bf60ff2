package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// A gateway as a handler in a server of one's own, with an embedded token store.
func ExampleNew() {
	folder, _ := os.MkdirTemp("", "dpopgate")
	defer os.RemoveAll(folder)
	legacy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, r.URL.Path, "for client", r.Header.Get("X-Auth-Client"))
	}))
	defer legacy.Close()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	public := "http://" + server.Listener.Addr().String()

	c, err := config.Parse("dpopgate.yaml", []byte(`
public_urls: [`+public+`]
store: {sqlite: `+filepath.Join(folder, "tokens.db")+`}
routes:
  - {match: GET /orders/, upstream: `+legacy.URL+`, scopes: [orders:read]}
`), os.LookupEnv)
	if err != nil {
		panic(err)
	}
	tokens, err := tokenstore.OpenSQLite(context.Background(), c.Store.SQLite, tokenstore.SQLiteOptions{})
	if err != nil {
		panic(err)
	}
	defer tokens.Close()
	gateway, err := proxy.New(c, proxy.Options{Tokens: tokens, Replay: cache.NewProofs(64<<20, nil)})
	if err != nil {
		panic(err)
	}
	defer gateway.Close()
	mux := http.NewServeMux()
	mux.Handle("/orders/", gateway)
	mux.HandleFunc("/about", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "a server of one's own") })
	server.Config.Handler = mux
	server.Start()
	defer server.Close()

	// A client with a token that is bound to its key, and one that has only the token.
	key, _ := dpop.NewKey(dpop.ES256)
	err = tokens.Insert(context.Background(), &tokenstore.Record{
		Digest: tokenstore.Digester{}.Digest("T1"), ClientID: aClient, Scopes: []string{"orders:read"}, Metadata: []byte("{}"),
		TokenType: tokenstore.DPoP, DPoPJKT: string(key.Thumbprint()), ExpiresAt: time.Now().Add(time.Minute),
	})
	if err != nil {
		panic(err)
	}
	stolen, _ := http.NewRequest(http.MethodGet, public+"/orders/7", nil)
	stolen.Header.Set("Authorization", "DPoP T1")
	for _, get := range []func() (*http.Response, error){
		func() (*http.Response, error) { return http.Get(public + "/about") },
		func() (*http.Response, error) {
			return (&http.Client{Transport: &dpop.Transport{Key: key, Token: "T1"}}).Get(public + "/orders/7")
		},
		func() (*http.Response, error) { return http.DefaultClient.Do(stolen) },
	} {
		res, err := get()
		if err != nil {
			panic(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			body = []byte(res.Header.Get("WWW-Authenticate")[:46] + "\n")
		}
		fmt.Printf("%d %s", res.StatusCode, body)
	}
	// Output:
	// 200 a server of one's own
	// 200 /orders/7 for client 6f1c1c6e-7d5b-4d0a-9c55-0f2f4e3f0a01
	// 401 DPoP error="invalid_dpop_proof", error_descrip
}

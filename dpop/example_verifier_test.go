package dpop_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
)

// A server of one's own that takes DPoP tokens: a page of Go, beside what it is for.
func ExampleVerifier() {
	client, _ := dpop.NewKey(dpop.ES256)
	thief, _ := dpop.NewKey(dpop.ES256)
	boundTo := map[string]dpop.Thumbprint{"T1": client.Thumbprint()} // where one keeps one's tokens

	verifier := dpop.NewVerifier(cache.NewProofs(64<<20, nil))
	var public dpop.Origin
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, err := verifier.Authenticate(r, public, func(token string) (dpop.Thumbprint, error) { return boundTo[token], nil })
		if err != nil {
			verifier.Refuse(w, err)
			return
		}
		fmt.Fprintln(w, "hello to who holds", token)
	}))
	defer server.Close()
	public, _ = dpop.ParseOrigin(server.URL)

	for _, key := range []*dpop.Key{client, thief} {
		http := &http.Client{Transport: &dpop.Transport{Key: key, Token: "T1"}} // signs each request
		res, err := http.Get(server.URL + "/greeting?loud=no")
		if err != nil {
			panic(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		fmt.Printf("%d %s", res.StatusCode, body)
	}
	// Output:
	// 200 hello to who holds T1
	// 401 the token is bound to another key
}

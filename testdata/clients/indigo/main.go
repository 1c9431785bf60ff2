// Plays the Go client of another house against the gateway and prints what came of it as JSON, as run.mjs does.
package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/auth/oauth"
)

func main() {
	result := struct {
		Client   string   `json:"client"`
		Statuses []int    `json:"statuses"`
		Bodies   []string `json:"bodies"`
		Error    string   `json:"error"`
	}{Client: "indigo"}
	if err := play(func(status int, body string) {
		result.Statuses = append(result.Statuses, status)
		result.Bodies = append(result.Bodies, body)
	}); err != nil {
		result.Error = err.Error()
	}
	json.NewEncoder(os.Stdout).Encode(result)
}

func play(answered func(status int, body string)) error {
	gateway, issuer := os.Getenv("GATEWAY"), os.Getenv("ISSUER")
	key, err := atcrypto.GeneratePrivateKeyP256()
	if err != nil {
		return err
	}
	public, err := key.PublicKey()
	if err != nil {
		return err
	}
	jwk, err := public.JWK()
	if err != nil {
		return err
	}
	thumbprint := sha256.Sum256(fmt.Appendf(nil, `{"crv":%q,"kty":%q,"x":%q,"y":%q}`, jwk.Curve, jwk.KeyType, jwk.X, jwk.Y))
	res, err := http.Get(issuer + "?jkt=" + base64.RawURLEncoding.EncodeToString(thumbprint[:]))
	if err != nil {
		return err
	}
	token, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	session := oauth.ClientSession{
		Client:         http.DefaultClient,
		Config:         &oauth.ClientConfig{},
		Data:           &oauth.ClientSessionData{HostURL: gateway, AccessToken: string(token)},
		DPoPPrivateKey: key,
	}
	for _, r := range []struct{ method, url, body string }{
		{"GET", gateway + "/v1/items?page=2&q=a%20b", ""},
		{"POST", gateway + "/v1/items", `{"name":"tea"}`},
		{"GET", gateway + "/v1/items/caf%C3%A9", ""},
	} {
		req, err := http.NewRequest(r.method, r.url, strings.NewReader(r.body))
		if err != nil {
			return err
		}
		res, err := session.DoWithAuth(http.DefaultClient, req, "")
		if err != nil {
			return err
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			return err
		}
		res.Body.Close()
		answered(res.StatusCode, string(body))
	}
	return nil
}

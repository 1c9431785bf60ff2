package dpop

import (
	"io"
	"net/http"
	"strings"
	"sync"
)

// Transport is an http.RoundTripper for clients: each request gets the token and a fresh proof. It remembers the
// latest nonce of each origin, and when a server asks for one (RFC 9449 §8, §9) it sends the request once more, if
// its body can be sent again. It may be used concurrently.
type Transport struct {
	Key   *Key
	Token string            // the access token; empty: proofs without ath and no Authorization, as for a token endpoint
	Base  http.RoundTripper // nil: http.DefaultTransport

	nonces sync.Map // of origin (string) to nonce (string)
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	origin := r.URL.Scheme + "://" + r.URL.Host
	known, _ := t.nonces.Load(origin)
	nonce, _ := known.(string)
	for first := true; ; first = false {
		req, err := t.sign(r, nonce)
		if err != nil {
			return nil, err
		}
		if !first && r.GetBody != nil {
			if req.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
		}
		res, err := t.base().RoundTrip(req)
		if err != nil {
			return nil, err
		}
		next := res.Header.Get("DPoP-Nonce")
		if next != "" {
			t.nonces.Store(origin, next)
		}
		again := r.Body == nil || r.Body == http.NoBody || r.GetBody != nil
		if !first || !again || next == "" || next == nonce || !wantsNonce(res) {
			return res, nil
		}
		io.CopyN(io.Discard, res.Body, 64<<10)
		res.Body.Close()
		nonce = next
	}
}

// sign is a copy of r with the token and a proof.
func (t *Transport) sign(r *http.Request, nonce string) (*http.Request, error) {
	proof, err := t.Key.Sign(Claims{
		Method: r.Method,
		URL:    r.URL.Scheme + "://" + r.URL.Host + r.URL.EscapedPath(),
		Token:  t.Token,
		Nonce:  nonce,
	})
	if err != nil {
		return nil, err
	}
	req := r.Clone(r.Context())
	req.Header.Set("DPoP", proof)
	if t.Token != "" {
		req.Header.Set("Authorization", SchemeDPoP+" "+t.Token)
	}
	return req, nil
}

func (t *Transport) base() http.RoundTripper {
	if t.Base != nil {
		return t.Base
	}
	return http.DefaultTransport
}

// wantsNonce says whether a response is a nonce challenge of a resource server.
func wantsNonce(res *http.Response) bool {
	for _, c := range res.Header.Values("WWW-Authenticate") {
		if strings.Contains(c, `error="`+string(UseNonce)+`"`) {
			return true
		}
	}
	return false
}

package dpop_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
)

// replayed is a Replay with one answer.
type replayed struct {
	fresh bool
	err   error
}

func (r replayed) Claim(context.Context, dpop.ReplayKey, time.Time) (bool, error) {
	return r.fresh, r.err
}

func TestVerifierAnswersForAServer(t *testing.T) {
	key, err := dpop.NewKey(dpop.ES256)
	require.NoError(t, err)
	public, err := dpop.ParseOrigin("https://api.example.test")
	require.NoError(t, err)
	away := errors.New("away")
	for name, c := range map[string]struct {
		jkt       dpop.Thumbprint
		bound     error
		replay    replayed
		change    func(r *http.Request)
		claims    dpop.Claims
		status    int
		challenge string
	}{
		"good":               {jkt: key.Thumbprint(), replay: replayed{fresh: true}, status: 200},
		"no credentials":     {change: func(r *http.Request) { r.Header = http.Header{} }, status: 401, challenge: `DPoP algs=`},
		"two tokens":         {change: func(r *http.Request) { r.Header.Add("Authorization", "DPoP T2") }, status: 400, challenge: `error="invalid_request"`},
		"no proof":           {change: func(r *http.Request) { r.Header.Del("DPoP") }, status: 401, challenge: `error="invalid_dpop_proof"`},
		"unknown token":      {status: 401, challenge: `error="invalid_token"`},
		"another key":        {jkt: "x", status: 401, challenge: `error="invalid_token"`},
		"used":               {jkt: key.Thumbprint(), status: 401, challenge: `error="invalid_dpop_proof"`},
		"another URL":        {claims: dpop.Claims{URL: "https://evil.test/x"}, status: 401, challenge: `error="invalid_dpop_proof"`},
		"a wrong clock":      {claims: dpop.Claims{IssuedAt: time.Now().Add(-time.Hour)}, status: 401, challenge: `error="use_dpop_nonce"`},
		"table away":         {bound: away, status: 503},
		"memory away":        {jkt: key.Thumbprint(), replay: replayed{err: away}, status: 503},
		"memory of it full":  {jkt: key.Thumbprint(), replay: replayed{err: dpop.ErrReplayFull}, status: 503},
		"fresh and yet away": {jkt: key.Thumbprint(), replay: replayed{fresh: true, err: away}, status: 503},
	} {
		t.Run(name, func(t *testing.T) {
			claims := c.claims
			claims.Method, claims.Token = "GET", "T1"
			if claims.URL == "" {
				claims.URL = "https://api.example.test/x"
			}
			proof, err := key.Sign(claims)
			require.NoError(t, err)
			r := httptest.NewRequest("GET", "/x?q=1", nil)
			r.Header = http.Header{"Authorization": {"DPoP T1"}, "Dpop": {proof}}
			if c.change != nil {
				c.change(r)
			}
			v, w := dpop.NewVerifier(c.replay), httptest.NewRecorder()
			token, err := v.Authenticate(r, public, func(string) (dpop.Thumbprint, error) { return c.jkt, c.bound })
			if c.status == http.StatusOK {
				require.NoError(t, err)
				assert.Equal(t, "T1", token)
				return
			}
			require.Error(t, err)
			assert.Empty(t, token)
			v.Refuse(w, err)
			assert.Equal(t, c.status, w.Code)
			assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			assert.Contains(t, w.Header().Get("WWW-Authenticate"), c.challenge)
			assert.Equal(t, c.challenge == `error="use_dpop_nonce"`, w.Header().Get("DPoP-Nonce") != "")
			assert.Equal(t, c.status == http.StatusServiceUnavailable, w.Header().Get("Retry-After") != "")
		})
	}
}

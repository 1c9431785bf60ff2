package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// apiURL is the public URL of the rigs.
const apiURL = "https://api.example.test"

// newAPI is a rig with T1 in its table, and the key that T1 is bound to.
func newAPI(t *testing.T, name string) (*rig, *dpop.Key) {
	g := newRig(t, name)
	key := vectorKeys(t)["K1"]
	g.rows.put("T1", bound(key.Thumbprint(), "items:read"))
	return g, key
}

// signed is the base request with a fresh proof, for a client to send: what is not given in c is that of the catalogue.
func (g *rig) signed(key *dpop.Key, c dpop.Claims) *http.Request {
	if c.Method == "" {
		c.Method = http.MethodGet
	}
	if c.URL == "" {
		c.URL = apiURL + "/v1/items"
	}
	if c.Token == "" {
		c.Token = "T1"
	}
	if c.IssuedAt.IsZero() {
		c.IssuedAt = g.now()
	}
	proof, err := key.Sign(c)
	require.NoError(g.t, err)
	r, err := http.NewRequest(c.Method, g.server.URL+strings.TrimPrefix(c.URL, apiURL), nil)
	require.NoError(g.t, err)
	r.Host = strings.TrimPrefix(apiURL, "https://")
	r.Header.Set("Authorization", "DPoP "+c.Token)
	r.Header.Set("DPoP", proof)
	return r
}

// text is a request in the bytes that go over the wire, with further header lines.
func text(r *http.Request, more ...string) string {
	lines := []string{r.Method + " " + r.URL.RequestURI() + " HTTP/1.1", "Host: " + r.Host}
	for name, values := range r.Header {
		lines = append(lines, name+": "+values[0])
	}
	return strings.Join(append(lines, more...), "\r\n") + "\r\n\r\n"
}

// send sends a request of this rig or another one of its fleet on a connection of its own, reads the answer whole, and
// waits for its event. It may be called concurrently.
func (g *rig) send(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Host = g.server.Listener.Addr().String()
	r.Close = true
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	if res.Header.Get("X-Request-Id") != "" { // without one it is net/http's own refusal
		g.eventOf(res)
	}
	return res, err
}

// passes requires that a request is forwarded, and answers.
func (g *rig) passes(r *http.Request) *http.Response {
	g.t.Helper()
	res, err := g.send(r)
	require.NoError(g.t, err)
	require.Equal(g.t, http.StatusOK, res.StatusCode, res.Header["Www-Authenticate"])
	return res
}

// refuses requires that a request is refused for that reason.
func (g *rig) refuses(r *http.Request, status int, reason dpop.Reason) *http.Response {
	g.t.Helper()
	res, err := g.send(r)
	require.NoError(g.t, err)
	require.Equal(g.t, status, res.StatusCode, res.Header["Www-Authenticate"])
	assert.Equal(g.t, reason, g.eventOf(res).Reason)
	return res
}

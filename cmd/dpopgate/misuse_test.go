package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// holder is a client with a key and a token of its own, or the thief of one.
type holder struct {
	key   *dpop.Key
	token string
}

// newHolder issues a token to a new key.
func newHolder(t *testing.T, g *gateway) holder {
	t.Helper()
	file := newClientKey(t)
	issued := shell{}.run(t, "token", "issue", "-c", g.path, "--client", "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11", "--scope", "a", "--key", file)
	require.Equal(t, exitOK, issued.code, issued.stderr)
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	key, err := dpop.ReadKey(data)
	require.NoError(t, err)
	return holder{key, strings.TrimSpace(issued.stdout)}
}

// thief has the token and a key of his own.
func (h holder) thief(t *testing.T) holder {
	t.Helper()
	key, err := dpop.NewKey(dpop.ES256)
	require.NoError(t, err)
	return holder{key, h.token}
}

// request is one with a fresh proof.
func (h holder) request(t *testing.T, g *gateway, path string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, g.url+path, nil)
	require.NoError(t, err)
	proof, err := h.key.Sign(dpop.Claims{Method: http.MethodGet, URL: g.url + path, Token: h.token})
	require.NoError(t, err)
	r.Header = http.Header{"Authorization": {"DPoP " + h.token}, "Dpop": {proof}}
	return r
}

// bearer is one without a proof.
func (h holder) bearer(t *testing.T, g *gateway, path string) *http.Request {
	t.Helper()
	r := h.request(t, g, path)
	r.Header = http.Header{"Authorization": {"Bearer " + h.token}}
	return r
}

// answerTo sends a request, and is the status of its answer.
func answerTo(t *testing.T, r *http.Request) int {
	t.Helper()
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	require.NoError(t, err)
	res.Body.Close()
	return res.StatusCode
}

// events are the lines of the audit stream, once there are n.
func (g *gateway) events(t *testing.T, file string, n int) []map[string]any {
	t.Helper()
	var text []byte
	require.Eventually(t, func() bool {
		text, _ = os.ReadFile(file)
		return strings.Count(string(text), "\n") >= n
	}, 20*time.Second, 5*time.Millisecond, "security events")
	return audited(t, string(text))
}

// attack: 194
func TestMisuseIsToldAndEndsTheToken(t *testing.T) {
	t.Parallel()
	upstream, seen := answering(t, func(http.ResponseWriter, *http.Request) {})
	audit := filepath.Join(t.TempDir(), "audit.jsonl")
	g := newGatewayWith(t, "  - {match: /, upstream: "+upstream+", scopes: [a]}\nmisuse: revoke", audit)
	g.serve(t)

	owner := newHolder(t, g)
	thief := owner.thief(t)
	assert.Equal(t, http.StatusOK, answerTo(t, owner.request(t, g, "/")))
	overheard := owner.request(t, g, "/")
	assert.Equal(t, http.StatusOK, answerTo(t, overheard))
	assert.Equal(t, http.StatusUnauthorized, answerTo(t, overheard))
	events := g.events(t, audit, 3)
	assert.Equal(t, "replay", events[2]["event"])
	assert.Equal(t, "logged", events[2]["result"])
	assert.Equal(t, http.StatusOK, answerTo(t, owner.request(t, g, "/")), "a replay ends nothing")
	before := len(*seen)

	assert.Equal(t, http.StatusUnauthorized, answerTo(t, thief.request(t, g, "/")))
	g.events(t, audit, 4)
	assert.Equal(t, http.StatusUnauthorized, answerTo(t, owner.request(t, g, "/")), "the token is revoked")
	another := newHolder(t, g)
	assert.Equal(t, http.StatusUnauthorized, answerTo(t, another.bearer(t, g, "/")))
	events = g.events(t, audit, 6)
	assert.Equal(t, http.StatusUnauthorized, answerTo(t, another.request(t, g, "/")), "and so is this one")
	assert.Len(t, *seen, before, "what the upstream saw")

	misuse := events[3]
	assert.Equal(t, "misuse", misuse["event"])
	assert.Equal(t, "other_key", misuse["kind"])
	assert.Equal(t, "revoked", misuse["result"])
	assert.Equal(t, string(owner.key.Thumbprint()), misuse["bound_jkt"])
	assert.Equal(t, string(thief.key.Thumbprint()), misuse["shown_jkt"])
	assert.Equal(t, "127.0.0.1", misuse["client_address"])
	assert.Equal(t, events[1]["token_id"], misuse["token_id"], "of the token that was issued")
	assert.Equal(t, "token_issued", events[4]["event"])
	assert.Equal(t, "bearer", events[5]["kind"])
	assert.Contains(t, g.log.String(), `"msg":"token misused: it may be stolen"`)
	metrics := textOfPage(t, g.admin+"/metrics")
	for _, line := range []string{
		`dpopgate_misuse_total{kind="other_key",result="revoked"} 1`, `dpopgate_misuse_total{kind="bearer",result="revoked"} 1`,
		`dpopgate_misuse_total{kind="replay",result="logged"} 1`,
	} {
		assert.Contains(t, metrics, line+"\n")
	}
	assert.Contains(t, textOfPage(t, g.admin+"/status"), `{"kind":"other_key","result":"revoked","count":1}`)
	documented(t, g.log.String())
}

func TestRevokingNeedsTheRightToDelete(t *testing.T) {
	t.Parallel()
	owner := tokenstoretest.Postgres(t)
	upstream, _ := answering(t, func(http.ResponseWriter, *http.Request) {})
	g := &gateway{path: filepath.Join(t.TempDir(), "dpopgate.yaml"), url: "http://127.0.0.1:1", admin: "http://127.0.0.1:2"}
	routes := "  - {match: /, upstream: " + upstream + "}"
	g.store = fmt.Sprintf("{postgres: %q, timeout: 30s}", owner)
	g.configure(t, routes, "misuse: revoke")
	require.Equal(t, exitOK, shell{}.run(t, "migrate", "-c", g.path, "--revocation").code)
	said := shell{}.run(t, "validate", "--connect", "-c", g.path)
	assert.Equal(t, exitOK, said.code, said.stdout+said.stderr)
	assert.Regexp(t, `misuse: revoke +postgres +ok`, said.stdout)

	reader := tokenstoretest.Role(t, owner)
	role, err := pgx.ParseConfig(reader)
	require.NoError(t, err)
	tokenstoretest.Exec(t, owner, "GRANT SELECT ON oauth_access_tokens TO "+role.User)
	g.store = fmt.Sprintf("{postgres: %q, timeout: 30s}", reader)
	g.configure(t, routes, "misuse: revoke")
	said = shell{}.run(t, "validate", "--connect", "-c", g.path)
	assert.Equal(t, exitFailure, said.code)
	assert.Regexp(t, `misuse: revoke +postgres +failed: .*GRANT DELETE ON "public"\."oauth_access_tokens" TO`, said.stdout)
	g.configure(t, routes, "misuse: log")
	assert.Equal(t, exitOK, shell{}.run(t, "validate", "--connect", "-c", g.path).code)
}

// textOfPage is what a page says.
func textOfPage(t *testing.T, url string) string {
	t.Helper()
	text, err := io.ReadAll(fetch(t, url).Body)
	require.NoError(t, err)
	return string(text)
}

package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// A guest in the database of an authorization server: that one made the table and inserts tokens with SQL of its own
// and a keyed digest; the gateway's role may read that one table and nothing else.
func TestServeReadsTheTokensOfAnAuthorizationServer(t *testing.T) {
	t.Parallel()
	const client, pepper = "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11", "a pepper of at least 32 bytes, to be sure"
	owner := tokenstoretest.Postgres(t)
	routes := "routes: [{match: /, upstream: http://127.0.0.1:1}]\n"
	ownerConfig := filepath.Join(t.TempDir(), "owner.yaml")
	require.NoError(t, os.WriteFile(ownerConfig, fmt.Appendf(nil, "public_urls: [http://localhost]\nstore: {postgres: %q}\n%s", owner, routes), 0o600))
	command := func(args ...string) result { return shell{}.run(t, append(args, "-c", ownerConfig)...) }

	missing := command("migrate", "--check")
	assert.Equal(t, exitFailure, missing.code)
	assert.Contains(t, missing.stdout+missing.stderr, "missing")
	for range 2 {
		made := command("migrate")
		require.Equal(t, exitOK, made.code, made.stdout+made.stderr)
		assert.Regexp(t, `^note: revocations are not announced: .* --revocation .* within 30s \(cache\.ttl\)\nthe token table fits\n$`, made.stdout)
	}
	stranger := command("token", "issue", "--client", client, "--bearer")
	assert.Equal(t, exitFailure, stranger.code)
	assert.Contains(t, stranger.stderr, "client "+client+" is not in")

	keyFile := newClientKey(t)
	jkt := strings.TrimSpace(shell{}.run(t, "key", "thumbprint", keyFile).stdout)
	token := strings.Repeat("t", 43)
	mac := hmac.New(sha256.New, []byte(pepper))
	mac.Write([]byte(token))
	tokenstoretest.Exec(t, owner,
		"INSERT INTO oauth_clients (id) VALUES ('"+client+"')",
		fmt.Sprintf(`INSERT INTO oauth_access_tokens (digest, client_id, token_type, dpop_jkt, scopes, expires_at)
			VALUES ('\x%x', '%s', 'DPoP', '%s', '{orders:read}', now() + interval '1 hour')`, mac.Sum(nil), client, jkt))

	upstream, got := answering(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "orders\n") })
	reader := tokenstoretest.Role(t, owner)
	role, err := pgx.ParseConfig(reader)
	require.NoError(t, err)
	tokenstoretest.Exec(t, owner, "GRANT SELECT ON oauth_access_tokens TO "+role.User)
	g := startGatewayOn(t, fmt.Sprintf("{postgres: %q, digest: hmac-sha256, digest_key: %q}", reader, pepper),
		"  - {match: /, upstream: "+upstream+", scopes: [orders:read]}", "cache: {ttl: 0s}\nlimits: {drain_delay: 0s}")
	assert.Equal(t, http.StatusOK, fetch(t, g.admin+"/readyz").StatusCode)
	reached := shell{}.run(t, "validate", "--connect", "-c", g.path)
	assert.Equal(t, exitOK, reached.code, reached.stdout)
	assert.Contains(t, reached.stdout, "warning: revocations are not announced")
	call := func() result {
		return shell{stdin: token}.run(t, "call", "--key", keyFile, "--token", "-", g.url+"/orders/")
	}
	read := call()
	require.Equal(t, exitOK, read.code, read.stderr)
	require.Len(t, *got, 1)
	assert.Equal(t, []string{client}, (*got)[0].header["X-Auth-Client"])
	assert.NotContains(t, (*got)[0].header, "X-Auth-Subject", "a client-only token")

	require.Equal(t, exitOK, command("token", "revoke", "--client", client).code)
	assert.Contains(t, call().stderr, "401")
	assert.Len(t, *got, 1)
	assert.NotContains(t, g.log.String(), token)
}

package main

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// Whatever the gateway tells anybody while it serves, is attacked, reloads and cannot reach what it depends on: the log at
// its most talkative, the stream of security events, the metrics, the probes, what the collector of traces is sent, raw,
// and what operators are told. None of it holds a token, a proof, a key or a password, and each line is as documented.
//
// attack: 194, 195
func TestNothingThatIsToldHoldsASecret(t *testing.T) {
	t.Parallel()
	dsn := tokenstoretest.Postgres(t)
	at, err := url.Parse(dsn)
	require.NoError(t, err)
	password, _ := at.User.Password()
	require.NotEmpty(t, password)
	const nonceKey, upstreamPassword = "canary-of-the-nonce-key-0123456789", "canary-of-the-upstream"
	c := newCollector(t)
	upstream, _ := answering(t, func(http.ResponseWriter, *http.Request) {})
	audit := filepath.Join(t.TempDir(), "audit.jsonl")
	g := newGatewayWith(t, "  - {match: /, upstream: api, scopes: [a]}\n  - {match: /down/, upstream: down, scopes: [a]}\n  - {match: /report/, upstream: api, scopes: [b], mode: report}\n"+
		"upstreams:\n  api: {targets: ["+upstream+"], headers: {X-Password: "+upstreamPassword+"}}\n  down: {targets: [http://"+freeAddresses(t, 1)[0]+"]}\n"+
		"misuse: revoke\ndpop: {replay: postgres, nonce_key: "+nonceKey+"}\ntracing: {otlp_endpoint: "+c.url+"}", audit)
	sqlite := g.store
	g.store = fmt.Sprintf("{postgres: %q, timeout: 30s}", dsn)
	text, err := os.ReadFile(g.path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(g.path, []byte(strings.Replace(string(text), sqlite, g.store, 1)), 0o600))
	said := []string{}
	command := func(args ...string) string {
		r := shell{}.run(t, append(args, "-c", g.path)...)
		said = append(said, r.stderr)
		return r.stdout
	}
	command("migrate", "--revocation")
	tokenstoretest.Exec(t, dsn, "INSERT INTO oauth_clients (id) VALUES ('7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11')")
	g.serve(t)
	said = append(said, command("validate", "--connect"), command("token", "list"))

	secrets := []string{password, nonceKey, upstreamPassword}
	send := func(h holder, r *http.Request, change func(http.Header)) {
		proof := r.Header.Get("Dpop")
		secrets = append(secrets, h.token)
		for part := range strings.SplitSeq(proof, ".") {
			if part != "" {
				secrets = append(secrets, part)
			}
		}
		if change != nil {
			change(r.Header)
		}
		answerTo(t, r)
	}
	owner := newHolder(t, g)
	for _, path := range []string{"/", "/down/", "/report/", "/?access_token=" + owner.token} {
		send(owner, owner.request(t, g, strings.Split(path, "?")[0]), nil)
	}
	r := owner.request(t, g, "/")
	r.URL.RawQuery = "access_token=" + owner.token
	send(owner, r, nil)
	send(owner, owner.request(t, g, "/"), func(h http.Header) { h.Set("Authorization", owner.token) })
	send(owner, owner.request(t, g, "/"), func(h http.Header) { h.Set("Dpop", owner.token) })
	send(owner, owner.request(t, g, "/"), func(h http.Header) { h.Set("Traceparent", owner.token); h.Set("X-Request-Id", owner.token) })
	send(owner, owner.request(t, g, "/"), func(h http.Header) { h.Set("Traceparent", foreignTrace); h.Set("Tracestate", "t="+owner.token) })
	again := owner.request(t, g, "/")
	send(owner, again, nil)
	send(owner, again, nil)
	thief := owner.thief(t)
	send(thief, thief.request(t, g, "/"), nil)
	another := newHolder(t, g)
	send(another, another.bearer(t, g, "/"), nil)
	g.awaitLog(t, `(?s)token misused.*token misused`)
	metrics := textOfPage(t, g.admin+"/metrics")
	said = append(said, metrics, textOfPage(t, g.admin+"/readyz?verbose"))
	g.ended(t)

	events, err := os.ReadFile(audit)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, len(audited(t, string(events))), 7)
	assert.GreaterOrEqual(t, len(documented(t, g.log.String())), 13)
	assert.Contains(t, metrics, "dpopgate_misuse_total")
	require.NotEmpty(t, c.named("dpop.claim"))
	for name, told := range map[string]string{
		"the log": g.log.String(), "the security events": string(events), "the traces": c.raw.String(), "the rest": strings.Join(said, "\n"),
	} {
		for _, secret := range secrets {
			assert.False(t, strings.Contains(told, secret), "%s holds %.12s…", name, secret)
		}
	}
}

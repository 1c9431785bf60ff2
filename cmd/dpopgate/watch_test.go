package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// longTTL is a cache.ttl that no test lasts: what is seen earlier was announced.
const longTTL = "cache: {ttl: 1h}\nlimits: {drain_delay: 0s}"

// announced is a database whose token table announces revocations, and tokens in it that are bound to one key.
func announced(t *testing.T, count int) (dsn string, key *dpop.Key, tokens []string) {
	t.Helper()
	dsn = tokenstoretest.Postgres(t)
	path := filepath.Join(t.TempDir(), "owner.yaml")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil,
		"public_urls: [http://localhost]\nstore: {postgres: %q}\nroutes: [{match: /, upstream: http://127.0.0.1:1}]\n", dsn), 0o600))
	migrated := shell{}.run(t, "migrate", "--revocation", "-c", path)
	require.Equal(t, exitOK, migrated.code, migrated.stderr)
	require.Equal(t, "the token table fits\n", migrated.stdout, "without a note about revocation")

	const client = "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11"
	key, err := dpop.NewKey(dpop.ES256)
	require.NoError(t, err)
	statements := []string{"INSERT INTO oauth_clients (id) VALUES ('" + client + "')"}
	for range count {
		token := tokenstore.NewToken()
		statements = append(statements, fmt.Sprintf(`INSERT INTO oauth_access_tokens (digest, client_id, token_type, dpop_jkt, scopes, expires_at)
			VALUES ('\x%s', '%s', 'DPoP', '%s', '{orders:read}', now() + interval '1 hour')`, tokenstore.Digester{}.Digest(token), client, key.Thumbprint()))
		tokens = append(tokens, string(token))
	}
	tokenstoretest.Exec(t, dsn, strings.Join(statements, ";\n"))
	return dsn, key, tokens
}

// send asks a gateway with a proof for a token, and returns the status.
func (g *gateway) send(t *testing.T, key *dpop.Key, token string) int {
	proof, err := key.Sign(dpop.Claims{Method: "GET", URL: g.url + "/orders/", Token: token})
	if !assert.NoError(t, err) {
		return 0
	}
	r, _ := http.NewRequest("GET", g.url+"/orders/", nil)
	r.Header.Set("Authorization", "DPoP "+token)
	r.Header.Set("DPoP", proof)
	res, err := http.DefaultClient.Do(r)
	if !assert.NoError(t, err) {
		return 0
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// metric is the value of a metric without labels.
func (g *gateway) metric(t assert.TestingT, name string) int {
	res, err := http.Get(g.admin + "/metrics")
	if !assert.NoError(t, err) {
		return 0
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	assert.NoError(t, err)
	found := regexp.MustCompile(`(?m)^` + name + ` (\d+)$`).FindSubmatch(text)
	if !assert.NotNil(t, found, "no metric %s", name) {
		return 0
	}
	n, _ := strconv.Atoi(string(found[1]))
	return n
}

// hears waits until a gateway has heard of so many notices.
func (g *gateway) hears(t *testing.T, notices int) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.GreaterOrEqual(c, g.metric(c, "dpopgate_revocation_notices_total"), notices)
	}, time.Minute, 5*time.Millisecond)
}

// listens waits until a gateway listens or does not.
func (g *gateway) listens(t *testing.T, yes bool) {
	t.Helper()
	want, word := 0, "away"
	if yes {
		want, word = 1, "ok"
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.Equal(c, want, g.metric(c, "dpopgate_revocation_listening"))
	}, time.Minute, 5*time.Millisecond)
	ready := fetch(t, g.admin+"/readyz?verbose")
	assert.Equal(t, http.StatusOK, ready.StatusCode, "that is no reason to send requests elsewhere")
	text, err := io.ReadAll(ready.Body)
	require.NoError(t, err)
	assert.Contains(t, string(text), "\nrevocation notices "+word+"\n")
}

// Two instances under load, and tokens that are revoked one after the other by different statements. A request that begins
// after its instance has taken in the notice is refused, and so is every one after the first that is.
//
// attack: 109
func TestARevocationIsSeenByEveryInstanceUnderLoad(t *testing.T) {
	t.Parallel()
	dsn, key, tokens := announced(t, 12)
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(up.Close)
	routes := fmt.Sprintf("  - {match: GET /orders/, upstream: %q, scopes: [orders:read]}", up.URL)
	fleet := []*gateway{startGatewayOn(t, fmt.Sprintf("{postgres: %q}", dsn), routes, longTTL), startGatewayOn(t, fmt.Sprintf("{postgres: %q}", dsn), routes, longTTL)}
	for _, g := range fleet {
		g.listens(t, true)
		for _, token := range tokens {
			require.Equal(t, http.StatusOK, g.send(t, key, token))
		}
	}

	heard := make([][12]atomic.Bool, len(fleet))
	over, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for i, g := range fleet {
		for range 2 {
			load.Go(func() {
				var refused [12]bool
				for k := 0; over.Err() == nil; k = (k + 1) % len(tokens) {
					late := heard[i][k].Load()
					status := g.send(t, key, tokens[k])
					assert.Contains(t, []int{http.StatusOK, http.StatusUnauthorized}, status)
					if status == http.StatusOK {
						assert.False(t, late, "let through after the notice")
						assert.False(t, refused[k], "let through after it was refused")
					}
					refused[k] = status == http.StatusUnauthorized
				}
			})
		}
	}
	for k, token := range tokens {
		statement := "DELETE FROM oauth_access_tokens"
		if k%2 == 1 {
			statement = "UPDATE oauth_access_tokens SET expires_at = now()"
		}
		tokenstoretest.Exec(t, dsn, fmt.Sprintf(`%s WHERE digest = '\x%s'`, statement, tokenstore.Digester{}.Digest(tokenstore.Token(token))))
		for i, g := range fleet {
			g.hears(t, k+1)
			heard[i][k].Store(true)
			assert.Equal(t, http.StatusUnauthorized, g.send(t, key, token))
		}
	}
	stop()
	load.Wait()
}

// The connection for notices breaks, or is silent; a token is revoked meanwhile. It is refused once that connection is
// back, and what was cached before has been looked up again.
//
// attack: 112, 113
func TestNoticesThatWereMissedAreMadeUpFor(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]struct{ begin, end func(*tokenstoretest.Relay) }{
		"broken": {(*tokenstoretest.Relay).Refuse, (*tokenstoretest.Relay).Restore},
		"silent": {(*tokenstoretest.Relay).Freeze, (*tokenstoretest.Relay).Thaw},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn, key, tokens := announced(t, 2)
			server, err := pgx.ParseConfig(dsn)
			require.NoError(t, err)
			r := tokenstoretest.NewRelay(t, fmt.Sprintf("%s:%d", server.Host, server.Port))
			through := fmt.Sprintf("host=127.0.0.1 port=%d user=%s password='%s' dbname=%s sslmode=disable", r.Port(), server.User, server.Password, server.Database)
			up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			t.Cleanup(up.Close)
			g := startGatewayOn(t, fmt.Sprintf("{postgres: %q, listen: %q}", dsn, through), fmt.Sprintf("  - {match: GET /orders/, upstream: %q}", up.URL), longTTL)
			g.listens(t, true)
			for _, token := range tokens {
				require.Equal(t, http.StatusOK, g.send(t, key, token))
			}

			cut.begin(r)
			g.listens(t, false)
			tokenstoretest.Exec(t, dsn, fmt.Sprintf(`DELETE FROM oauth_access_tokens WHERE digest = '\x%s'`, tokenstore.Digester{}.Digest(tokenstore.Token(tokens[0]))))
			assert.Equal(t, http.StatusOK, g.send(t, key, tokens[0]), "within cache.ttl, while nobody listens")
			cut.end(r)
			g.listens(t, true)
			assert.Equal(t, http.StatusUnauthorized, g.send(t, key, tokens[0]))
			assert.Equal(t, http.StatusOK, g.send(t, key, tokens[1]))
			log := g.log.String()
			assert.Equal(t, 2, strings.Count(log, `"msg":"revocations are seen at once"`))
			assert.Equal(t, 1, strings.Count(log, `"msg":"revocations are seen within cache.ttl and no sooner"`))
		})
	}
}

func TestATokenRevokedInAnEmbeddedStoreIsRefused(t *testing.T) {
	t.Parallel()
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(up.Close)
	g := startGateway(t, fmt.Sprintf("  - {match: GET /orders/, upstream: %q}", up.URL), longTTL)
	g.listens(t, true)
	keyFile := newClientKey(t)
	issued := shell{}.run(t, "token", "issue", "-c", g.path, "--client", "7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11", "--scope", "a", "--key", keyFile)
	require.Equal(t, exitOK, issued.code, issued.stderr)
	data, err := os.ReadFile(keyFile)
	require.NoError(t, err)
	key, err := dpop.ReadKey(data)
	require.NoError(t, err)
	token := strings.TrimSpace(issued.stdout)
	require.Equal(t, http.StatusOK, g.send(t, key, token))
	revoked := shell{stdin: token}.run(t, "token", "revoke", "-", "-c", g.path)
	require.Equal(t, exitOK, revoked.code, revoked.stderr)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.Equal(c, http.StatusUnauthorized, g.send(t, key, token))
	}, time.Minute, 10*time.Millisecond)
}

// watcherFunc is a Watcher.
type watcherFunc func(context.Context, func(tokenstore.Change)) error

func (f watcherFunc) Watch(ctx context.Context, report func(tokenstore.Change)) error {
	return f(ctx, report)
}

func TestAWatchIsBegunAgain(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		within time.Duration
		times  int
	}{
		"soon when the server is away":             {errors.New("refused"), 10 * time.Second, 14},
		"later when it is not set up":              {fmt.Errorf("%w: no trigger", tokenstore.ErrNoNotices), time.Minute, 6},
		"at once when it has worked for some time": {nil, time.Second, 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				times := 0
				w := startWatch(watcherFunc(func(_ context.Context, report func(tokenstore.Change)) error {
					times++
					if c.err == nil {
						report(tokenstore.Change{All: true})
						return errors.New("broke off")
					}
					return c.err
				}), time.Minute, slog.New(slog.NewTextHandler(&log, nil)), func(tokenstore.Change) {})
				time.Sleep(c.within - time.Millisecond)
				synctest.Wait()
				w.close()
				assert.Equal(t, c.times, times)
				if c.err != nil {
					assert.Equal(t, 1, strings.Count(log.String(), "\n"), "said once")
				}
			})
		})
	}
}

func TestAWatchForgetsBeforeItSaysThatItListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w *watch
		changes := 0
		began := make(chan struct{})
		w = startWatch(watcherFunc(func(ctx context.Context, report func(tokenstore.Change)) error {
			<-began
			report(tokenstore.Change{All: true})
			report(tokenstore.Change{All: true})
			<-ctx.Done()
			return ctx.Err()
		}), 0, slog.New(slog.DiscardHandler), func(tokenstore.Change) {
			assert.Equal(t, changes > 0, w.listening.Load())
			changes++
		})
		assert.Equal(t, "away", w.state())
		close(began)
		synctest.Wait()
		assert.Equal(t, "ok", w.state())
		assert.EqualValues(t, 1, w.notices.Load())
		w.close()
		assert.Equal(t, 2, changes)
		assert.Equal(t, "away", w.state())
	})
}

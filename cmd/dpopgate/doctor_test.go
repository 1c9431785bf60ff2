package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// patient is a config that doctor looks at.
type patient struct{ public, listen, store, upstream, more string }

func (p patient) write(t *testing.T) (path string) {
	t.Helper()
	folder := t.TempDir()
	or := func(text, usual string) string {
		if text == "" {
			return usual
		}
		return text
	}
	text := fmt.Sprintf("public_urls: [%s]\nlisten: {http: %q, admin: %q}\nstore: %s\nupstreams: {api: {targets: [%q], connect_timeout: 20s}}\nroutes: [{match: /, upstream: api}]\n%s\n",
		or(p.public, "http://localhost"), or(p.listen, freeAddress()), freeAddress(),
		or(p.store, fmt.Sprintf("{sqlite: %q}", filepath.Join(folder, "tokens.db"))), or(p.upstream, "http://127.0.0.1:9"), p.more)
	path = filepath.Join(folder, "dpopgate.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// examined is what doctor finds, piped as JSON, and its exit code.
func (p patient) examined(t *testing.T) ([]finding, int) {
	t.Helper()
	got := shell{}.run(t, "doctor", "-c", p.write(t))
	var found []finding
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &found), got.stderr)
	return found, got.code
}

// about is the one finding of a check about what begins so.
func about(t *testing.T, found []finding, check, begins string) finding {
	t.Helper()
	i := slices.IndexFunc(found, func(f finding) bool { return f.Check == check && strings.HasPrefix(f.About, begins) })
	require.GreaterOrEqual(t, i, 0, "nothing about %s %s in %+v", check, begins, found)
	return found[i]
}

// assertWrong asserts that a finding says so, in these words, and what to do.
func assertWrong(t *testing.T, f finding, words string) {
	t.Helper()
	assert.Equal(t, findingWrong, f.State, "%+v", f)
	assert.Contains(t, f.Words, words)
	assert.NotEmpty(t, f.Fix)
}

// answeringAt is an upstream whose clock is off by so much.
func answeringAt(t *testing.T, off time.Duration) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
	}))
	t.Cleanup(s.Close)
	return s
}

func TestDoctorFindsNothingWhereNothingIsWrong(t *testing.T) {
	t.Parallel()
	p := patient{upstream: answeringAt(t, 0).URL}
	found, code := p.examined(t)
	assert.Equal(t, exitOK, code)
	for _, f := range found {
		assert.NotEqual(t, findingWrong, f.State, "%+v", f)
	}
	assert.Equal(t, findingOK, about(t, found, "clocks", "upstream").State)
	got := shell{terminal: true}.run(t, "doctor", "-c", p.write(t))
	assert.Equal(t, exitOK, got.code, got.stderr)
	assert.Regexp(t, `(?m)^ok +ports +listen\.http 127\.0\.0\.1:\d+ +free, and may be listened on$`, got.stdout)
	assert.Contains(t, got.stdout, "0 wrong\n")
}

func TestDoctorNamesThePlaceOfMistakes(t *testing.T) {
	t.Parallel()
	p := patient{more: "cache: {ttll: 3s}\ndpop: {nonce: sometimes}"}
	found, code := p.examined(t)
	assert.Equal(t, exitFailure, code)
	require.Len(t, found, 2)
	assertWrong(t, found[0], "cache.ttll: unknown key")
	assert.Regexp(t, `dpopgate\.yaml:6:\d+$`, found[0].About)
	got := shell{}.run(t, "doctor", "-c", filepath.Join(t.TempDir(), "none.yaml"))
	assert.Equal(t, exitFailure, got.code)
	assert.Contains(t, got.stdout, "dpopgate init writes one")
}

func TestDoctorFindsWhatIsWrongWithTheNetwork(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	found, code := patient{
		public: "https://nowhere.invalid", listen: "192.0.2.1:8080", upstream: secure.URL,
		more: "dpop: {replay: \"redis://127.0.0.1:1\"}",
	}.examined(t)
	assert.Equal(t, exitFailure, code)
	assertWrong(t, about(t, found, "names", "nowhere.invalid"), "")
	assertWrong(t, about(t, found, "ports", "listen.http"), "cannot assign requested address")
	assertWrong(t, about(t, found, "connections", "api"), "certificate")
	assertWrong(t, about(t, found, "connections", "replay store"), "refused")
	for _, c := range []struct {
		off   time.Duration
		state string
	}{{-time.Hour, findingWrong}, {5 * time.Second, findingWarn}} {
		found, _ := patient{listen: taken.Addr().String(), upstream: answeringAt(t, c.off).URL}.examined(t)
		f := about(t, found, "clocks", "upstream")
		assert.Equal(t, c.state, f.State, "%+v", f)
		assert.Contains(t, f.Fix, "NTP")
		port := about(t, found, "ports", "listen.http")
		assert.Contains(t, port.Words, "listens there", "%+v", port)
	}
}

// A server that is not the gateway holds the port: who it is stands in the finding.
func TestDoctorNamesWhoHoldsAPort(t *testing.T) {
	t.Parallel()
	address := strings.TrimPrefix(redisOfTest(t), "redis://")
	found, code := patient{listen: address}.examined(t)
	assert.Equal(t, exitFailure, code)
	assertWrong(t, about(t, found, "ports", "listen.http"), "-server listens there (process ")
}

// redisOfTest is the server that ./test starts.
func redisOfTest(t *testing.T) string {
	t.Helper()
	url := os.Getenv("DPOPGATE_TEST_REDIS")
	if url == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("DPOPGATE_TEST_REDIS is not set")
		}
		t.Skip("DPOPGATE_TEST_REDIS is not set: ./test sets it")
	}
	return url
}

func TestDoctorFindsWhatIsWrongInPostgres(t *testing.T) {
	t.Parallel()
	dsn := tokenstoretest.Postgres(t)
	as := func(dsn string) patient {
		return patient{store: fmt.Sprintf("{postgres: %q}", dsn), more: "misuse: revoke"}
	}
	found, code := as(dsn).examined(t)
	assert.Equal(t, exitFailure, code)
	assertWrong(t, about(t, found, "connections", "store postgres"), "oauth_access_tokens")

	require.Equal(t, exitOK, shell{}.run(t, "migrate", "-c", as(dsn).write(t)).code)
	reader := tokenstoretest.Role(t, dsn, "GRANT SELECT ON oauth_access_tokens TO ROLE")
	found, code = as(reader).examined(t)
	assert.Equal(t, exitFailure, code)
	assert.Equal(t, findingOK, about(t, found, "connections", "store postgres").State)
	assertWrong(t, about(t, found, "connections", "misuse: revoke"), "no right to delete")
	assert.Equal(t, findingOK, about(t, found, "clocks", "database").State)
	notices := about(t, found, "connections", "revocation notices")
	assert.Equal(t, findingWarn, notices.State)
	assert.Contains(t, notices.Fix, "dpopgate migrate --revocation")
	assert.NotContains(t, fmt.Sprint(found), "postgres://", "a DSN may hold a password")
}

func TestDoctorFindsCertificatesThatEnd(t *testing.T) {
	t.Parallel()
	ca := newLocalCA(t)
	leaf, err := ca.issue("localhost")
	require.NoError(t, err)
	life := leaf.Leaf.NotAfter.Sub(leaf.Leaf.NotBefore)
	for at, state := range map[time.Duration]string{-time.Hour: findingWrong, life / 3: findingOK, life * 9 / 10: findingWarn, life + time.Hour: findingWrong} {
		f := certificateFinding("x", leaf.Leaf, leaf.Leaf.NotBefore.Add(at))
		assert.Equal(t, state, f.State, "%+v", f)
		assert.Equal(t, state != findingOK, f.Fix != "")
	}
	found, code := patient{public: "https://localhost", more: "tls: {certificate: {cert_file: /nowhere/a.pem, key_file: /nowhere/a.key}}"}.examined(t)
	assert.Equal(t, exitFailure, code)
	assertWrong(t, about(t, found, "certificates", "tls.certificate"), "no such file")
}

func TestDoctorFindsSecretsThatOthersReachAndTooFewFiles(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "nonce")
	require.NoError(t, os.WriteFile(secret, []byte("0123456789abcdef0123456789abcdef"), 0o600))
	p := patient{more: fmt.Sprintf("dpop: {nonce_key: \"${file:%s}\"}\nlimits: {max_connections: 100000000}", secret)}
	for mode, state := range map[os.FileMode]string{0o600: findingOK, 0o640: findingOK, 0o660: findingWarn, 0o644: findingWarn, 0o666: findingWrong} {
		require.NoError(t, os.Chmod(secret, mode))
		found, code := p.examined(t)
		f := about(t, found, "secrets", "${file:} "+secret)
		assert.Equal(t, state, f.State, "%04o %+v", mode, f)
		assert.Equal(t, exitFailure, code)
		assertWrong(t, about(t, found, "limits", "open files"), "limits.max_connections: 100000000 needs 200000200")
	}
	assert.Equal(t, findingWarn, filesFinding(finding{State: findingOK}, 1024, 0).State)
	assert.Equal(t, findingOK, filesFinding(finding{State: findingOK}, 4096, 1000).State)
}

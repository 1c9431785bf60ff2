package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
)

const callToken = "kTPV9Wmv3yQv0Hd4Z7sUeGhlJ2cRbn6xAoYqI1wFfDM"

// newClientKey writes a client key and returns its path.
func newClientKey(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "client.jwk")
	require.Equal(t, exitOK, shell{}.run(t, "key", "new", "-o", path).code)
	return path
}

// received is a request as a server got it.
type received struct {
	method, uri, host, body string
	header                  http.Header
}

// answering is a server that keeps what it gets and answers with f.
func answering(t *testing.T, f http.HandlerFunc) (url string, got *[]received) {
	t.Helper()
	got = new([]received)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		*got = append(*got, received{r.Method, r.RequestURI, r.Host, string(body), r.Header})
		f(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, got
}

func TestCallSendsTheTokenAndAProof(t *testing.T) {
	url, got := answering(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	said := shell{stdin: callToken + "\n"}.run(t, "call", "--key", newClientKey(t), "--token", "-",
		"-H", "X-Trace: one", "-H", "X-Trace: two", "-H", "Accept: text/plain", "-H", "Host: other.example", url+"/a%2Fb?q=1")
	require.Equal(t, exitOK, said.code, said.stderr)
	assert.Equal(t, "hello", said.stdout)
	assert.Empty(t, said.stderr)
	require.Len(t, *got, 1)
	r := (*got)[0]
	assert.Equal(t, "GET", r.method)
	assert.Equal(t, "/a%2Fb?q=1", r.uri)
	assert.Equal(t, "other.example", r.host)
	assert.Equal(t, []string{"one", "two"}, r.header.Values("X-Trace"))
	assert.Equal(t, []string{"text/plain"}, r.header.Values("Accept"))
	assert.Equal(t, "DPoP "+callToken, r.header.Get("Authorization"))
	proof, err := dpop.Parse(r.header.Get("DPoP"), dpop.Algorithms{dpop.ES256})
	require.NoError(t, err)
	assert.Equal(t, "GET", proof.HTM)
	assert.Equal(t, url+"/a%2Fb", proof.HTU)
	assert.Equal(t, dpop.TokenHash(callToken), proof.ATH)
}

func TestCallSendsABodyAsCurlDoes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "body.json")
	require.NoError(t, os.WriteFile(file, []byte("{\"a\":\n1}\n"), 0o600))
	for name, c := range map[string]struct {
		stdin              string
		args               []string
		method, body, kind string
	}{
		"a form":        {"", []string{"-d", "a=1"}, "POST", "a=1", "application/x-www-form-urlencoded"},
		"JSON":          {"", []string{"-d", `{"a":1}`}, "POST", `{"a":1}`, "application/json"},
		"a file":        {"", []string{"-d", "@" + file}, "POST", "{\"a\":\n1}\n", "application/json"},
		"stdin":         {"from stdin", []string{"-d", "@-"}, "POST", "from stdin", "application/x-www-form-urlencoded"},
		"other method":  {"", []string{"-X", "PUT", "-d", "x"}, "PUT", "x", "application/x-www-form-urlencoded"},
		"other type":    {"", []string{"-d", "x", "-H", "content-type: text/csv"}, "POST", "x", "text/csv"},
		"an empty body": {"", []string{"-d", ""}, "POST", "", "application/x-www-form-urlencoded"},
	} {
		t.Run(name, func(t *testing.T) {
			url, got := answering(t, func(http.ResponseWriter, *http.Request) {})
			args := append([]string{"call", "--key", newClientKey(t), "--token", callToken}, c.args...)
			said := shell{stdin: c.stdin}.run(t, append(args, url)...)
			require.Equal(t, exitOK, said.code, said.stderr)
			require.Len(t, *got, 1)
			assert.Equal(t, c.method, (*got)[0].method)
			assert.Equal(t, c.body, (*got)[0].body)
			assert.Equal(t, c.kind, (*got)[0].header.Get("Content-Type"))
		})
	}
}

func TestCallTriesAgainWithTheNonceAskedFor(t *testing.T) {
	url, got := answering(t, func(w http.ResponseWriter, r *http.Request) {
		proof, err := dpop.Parse(r.Header.Get("DPoP"), dpop.Algorithms{dpop.ES256})
		if err != nil || proof.Nonce != "n-1" {
			w.Header().Set("DPoP-Nonce", "n-1")
			w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce", algs="ES256"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		io.WriteString(w, "done")
	})
	said := shell{}.run(t, "call", "-v", "-d", "body", "--key", newClientKey(t), "--token", callToken, url)
	require.Equal(t, exitOK, said.code, said.stderr)
	assert.Equal(t, "done", said.stdout)
	require.Len(t, *got, 2)
	assert.Equal(t, "body", (*got)[0].body)
	assert.Equal(t, "body", (*got)[1].body)
	assert.Contains(t, said.stderr, "* the server asks for a proof with its nonce")
	assert.Contains(t, said.stderr, `"nonce": "n-1"`)
}

func TestCallVerboseShowsNoSecret(t *testing.T) {
	url, got := answering(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Request-Id", "id-1") })
	said := shell{}.run(t, "call", "-v", "-i", "--key", newClientKey(t), "--token", callToken, url+"/x")
	require.Equal(t, exitOK, said.code, said.stderr)
	for _, want := range []string{
		"> GET " + url + "/x\n",
		"> Authorization: DPoP [token of 43 characters]\n",
		`"typ": "dpop+jwt"`, `"htm": "GET"`, `"htu": "` + url + `/x"`, `"ath": "` + dpop.TokenHash(callToken) + `"`,
		"< 200 OK\n< X-Request-Id: id-1\n",
	} {
		assert.Contains(t, said.stderr, want)
	}
	proof := (*got)[0].header.Get("DPoP")
	signature := proof[strings.LastIndex(proof, ".")+1:]
	for _, secret := range []string{callToken, signature} {
		assert.NotContains(t, said.stderr+said.stdout, secret)
	}
	assert.True(t, strings.HasPrefix(said.stdout, "HTTP/1.1 200 OK\r\n"), said.stdout)
}

func TestCallExitsByTheStatusAndSaysWhy(t *testing.T) {
	const challenge = `DPoP error="invalid_token", error_description="unknown", algs="ES256"`
	for name, c := range map[string]struct {
		status          int
		challenge, body string
		code            int
		want            string
	}{
		"success":            {204, "", "", exitOK, ""},
		"redirect":           {302, "", "", exitOK, ""},
		"words in the body":  {403, "", `{"error":"insufficient_scope","error_description":"the token lacks the scope a","request_id":"r1"}`, exitFailure, "dpopgate: 403 Forbidden: insufficient_scope: the token lacks the scope a (request r1)\n"},
		"words in challenge": {401, challenge, "", exitFailure, "dpopgate: 401 Unauthorized: invalid_token: unknown\n"},
		"no words":           {500, "", "<html>", exitFailure, "dpopgate: 500 Internal Server Error\n"},
		"words for terminal": {400, "", `{"error":"\u001b[31m","error_description":"a\nb"}`, exitFailure, "dpopgate: 400 Bad Request: ?[31m: a?b\n"},
	} {
		t.Run(name, func(t *testing.T) {
			url, got := answering(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/elsewhere")
				if c.challenge != "" {
					w.Header().Set("WWW-Authenticate", c.challenge)
				}
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			})
			said := shell{}.run(t, "call", "--key", newClientKey(t), "--token", callToken, url)
			assert.Equal(t, c.code, said.code)
			assert.Equal(t, c.want, said.stderr)
			assert.Equal(t, c.body, said.stdout)
			assert.Len(t, *got, 1)
		})
	}
}

func TestCallSaysWhatIsWrong(t *testing.T) {
	privateFolders(t)
	key := newClientKey(t)
	with := []string{"--key", key, "--token", callToken}
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no URL":               {nil, exitUsage, "dpopgate call wants 1 argument, not 0"},
		"key alone":            {[]string{"--key", key, "https://a.example"}, exitUsage, "--key and --token go together"},
		"nothing, elsewhere":   {[]string{"https://a.example"}, exitUsage, "only a demo on this machine"},
		"nothing, https":       {[]string{"https://localhost:1"}, exitUsage, "only a demo on this machine"},
		"nothing, no demo":     {[]string{"localhost:1/orders/"}, exitFailure, "no demo of yours runs on port 1: start dpopgate demo"},
		"not a URL":            {append([]string{"http://["}, with...), exitUsage, "the URL: "},
		"other scheme":         {append([]string{"ftp://a.example"}, with...), exitUsage, "not one of http or https"},
		"a user in the URL":    {append([]string{"http://u:" + callToken + "@a.example"}, with...), exitUsage, "the URL holds a user"},
		"own credentials":      {append([]string{"-H", "Authorization: Bearer x", "http://localhost:1"}, with...), exitUsage, "call writes that header itself"},
		"malformed header":     {append([]string{"-H", "nothing", "http://localhost:1"}, with...), exitUsage, `-H wants "Name: value"`},
		"malformed method":     {append([]string{"-X", "A B", "http://localhost:1"}, with...), exitUsage, "invalid method"},
		"unknown attack":       {append([]string{"--attack", "magic", "http://localhost:1"}, with...), exitUsage, `--attack "magic": want one of stolen-token,`},
		"stdin for two things": {[]string{"--key", key, "--token", "-", "-d", "@-", "http://localhost:1"}, exitUsage, "only one of --token, --key and --data"},
		"nobody there":         {append([]string{"http://127.0.0.1:1"}, with...), exitFailure, "sending the request: dial tcp 127.0.0.1:1: connect: connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			said := shell{}.run(t, append([]string{"call"}, c.args...)...)
			assert.Equal(t, c.code, said.code)
			assert.Contains(t, said.stderr, c.want)
			assert.Equal(t, 1, strings.Count(said.stderr, "\n"), said.stderr)
			assert.NotContains(t, said.stderr, callToken)
		})
	}
}

func TestCallTakesHTTPForThisMachineAlone(t *testing.T) {
	for text, want := range map[string]string{
		"localhost:8080/orders/": "http://localhost:8080/orders/",
		"127.0.0.1":              "http://127.0.0.1",
		"[::1]:8080/":            "http://[::1]:8080/",
		"api.example.com/x?y":    "https://api.example.com/x?y",
		"10.0.0.5:8080":          "https://10.0.0.5:8080",
		"http://10.0.0.5":        "http://10.0.0.5",
	} {
		u, err := callURL(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, u.String())
	}
}

// A gateway that takes anything, one that knows no such path, and an upstream's own 401 all fail an attack.
func TestAttackFailsWhenItIsNotRefused(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		want   string
	}{
		"let through":          {http.StatusOK, ": NOT refused: 200 OK"},
		"past authentication":  {http.StatusForbidden, ": NOT refused: 403 Forbidden"},
		"without a challenge":  {http.StatusUnauthorized, ": NOT refused: 401 Unauthorized"},
		"for another reason":   {http.StatusNotFound, ": this answer says nothing about the attack: 404 Not Found"},
		"a gateway that fails": {http.StatusServiceUnavailable, ": this answer says nothing about the attack: 503"},
	} {
		t.Run(name, func(t *testing.T) {
			key := newClientKey(t)
			for _, how := range attackNames() {
				url, _ := answering(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(c.status) })
				said := shell{}.run(t, "call", "--attack", how, "--key", key, "--token", callToken, url)
				assert.Equal(t, exitFailure, said.code, how)
				assert.Contains(t, said.stderr, "dpopgate: "+how+c.want)
			}
		})
	}
}

func TestReplayFailsWhenTheClientItselfIsRefused(t *testing.T) {
	url, got := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `DPoP error="invalid_token", algs="ES256"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	said := shell{}.run(t, "call", "--attack", "replay", "--key", newClientKey(t), "--token", callToken, url)
	assert.Equal(t, exitFailure, said.code)
	assert.Contains(t, said.stderr, "the client itself was refused, so there is nothing to replay: 401")
	assert.Len(t, *got, 1)
}

func TestAttacksSendWhatTheySay(t *testing.T) {
	path := newClientKey(t)
	key, err := readKey(shell{}.env(io.Discard, io.Discard, nil), path)
	require.NoError(t, err)
	refuse := func(w http.ResponseWriter, n int) {
		if n > 0 {
			w.Header().Set("WWW-Authenticate", `DPoP error="invalid_dpop_proof", algs="ES256"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	send := func(t *testing.T, how string, first int) []received {
		n := first
		url, got := answering(t, func(w http.ResponseWriter, _ *http.Request) { refuse(w, n); n++ })
		said := shell{}.run(t, "call", "--attack", how, "-d", "b", "--key", path, "--token", callToken, url+"/x")
		require.Equal(t, exitOK, said.code, said.stderr)
		assert.Contains(t, said.stderr, how+": refused, as it must be: 401 Unauthorized: invalid_dpop_proof")
		assert.NotContains(t, said.stderr, callToken)
		return *got
	}
	parse := func(t *testing.T, r received) *dpop.Proof {
		p, err := dpop.Parse(r.header.Get("DPoP"), dpop.Algorithms{dpop.ES256})
		require.NoError(t, err)
		require.NoError(t, p.VerifySignature())
		return p
	}

	bearer := send(t, "bearer", 1)
	assert.Equal(t, "Bearer "+callToken, bearer[0].header.Get("Authorization"))
	assert.Empty(t, bearer[0].header.Values("DPoP"))

	bare := send(t, "no-proof", 1)
	assert.Equal(t, "DPoP "+callToken, bare[0].header.Get("Authorization"))
	assert.Empty(t, bare[0].header.Values("DPoP"))

	stolen := parse(t, send(t, "stolen-token", 1)[0])
	assert.NotEqual(t, key.Thumbprint(), stolen.Thumbprint)

	wrong := parse(t, send(t, "wrong-url", 1)[0])
	assert.Equal(t, key.Thumbprint(), wrong.Thumbprint)
	assert.Equal(t, "https://elsewhere.example/x", wrong.HTU)

	late := send(t, "clock", 1)[0]
	assert.Less(t, parse(t, late).IssuedAt.Unix()+3500, parse(t, send(t, "stolen-token", 1)[0]).IssuedAt.Unix())

	twice := send(t, "replay", 0)
	require.Len(t, twice, 2)
	assert.Equal(t, twice[0].header.Get("DPoP"), twice[1].header.Get("DPoP"))
	assert.Equal(t, "b", twice[1].body)
}

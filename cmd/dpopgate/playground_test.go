package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPlayground has Chromium open the demo's page, and a page of another origin, and play with both. It is one test, so
// that the browser starts once.
//
// conformance: COR-01, COR-02, COR-03
func TestPlayground(t *testing.T) {
	browser := startChromium(t)
	stranger := httptest.NewServer(http.HandlerFunc(serveStranger))
	defer stranger.Close()
	other := httptest.NewServer(http.HandlerFunc(serveStranger))
	defer other.Close()
	d := startPlayground(t, stranger.URL)
	port := d.url[strings.LastIndex(d.url, ":"):]

	for _, host := range []string{"localhost", "127.0.0.1"} {
		t.Run("every button at "+host, func(t *testing.T) { pressEveryButton(t, browser, d, "http://"+host+port) })
	}
	t.Run("the key stays in the browser", func(t *testing.T) { tryToTakeTheKey(t, browser, d) })
	t.Run("a page of another origin", func(t *testing.T) { callFromAnotherOrigin(t, browser, d, stranger.URL) })
	t.Run("a page of an origin not listed", func(t *testing.T) { callFromOriginNotListed(t, browser, d, other.URL) })
}

// pressEveryButton presses all buttons of the page and asserts what comes out, and that only what is let through reaches
// the sample API.
func pressEveryButton(t *testing.T, browser context.Context, d *demo, url string) {
	tab := openTab(t, browser)
	before := d.api.seen.Load()
	tab.visit(t, url+"/")
	tab.await(t, "pass")
	assert.Equal(t, before+1, d.api.seen.Load(), "the page calls the API once by itself")

	for _, c := range []struct {
		name, verdict string
		status        int
		says          string // in the answer
		marked        string // in the request
		reaches       int64  // requests that get to the API
	}{
		{"pass", "passed", 200, `"X-Auth-Subject": "` + demoUser.String() + `"`, "", 1},
		{"bearer", "refused", 401, "this route does not take that scheme", "Bearer", 0},
		{"replay", "refused", 401, "this key has used this jti before", `"jti"`, 1}, // the client's own, which is overheard
		{"other-key", "refused", 401, "the token is bound to another key", `"jwk"`, 0},
		{"wrong-url", "refused", 401, "htu differs", "https://elsewhere.example/orders/1001", 0},
		{"scope", "refused", 403, "orders:write", "POST /orders/1001/refund", 0},
		{"clock", "nonce", 401, "use_dpop_nonce", `"iat"`, 0},
		{"nonce", "passed", 200, `"X-Auth-Scope": "orders:read"`, `"nonce"`, 1},
		{"no-proof", "refused", 401, "the DPoP header with the proof is missing", "—", 0},
	} {
		before := d.api.seen.Load()
		tab.press(t, c.name)
		shown := evaluate[stage](t, tab, `({
			verdict: $('result').dataset.verdict, status: log.at(-1).answer.status, sentence: $('sentence').textContent,
			said: tries[log.at(-1).name].says, request: $('request').textContent, answer: $('answer').textContent,
			marked: document.querySelector('#request mark')?.textContent ?? '', seen: $('seen').textContent})`)
		assert.Equal(t, c.verdict, shown.Verdict, c.name)
		assert.Equal(t, c.status, shown.Status, c.name)
		assert.Contains(t, shown.Answer, c.says, c.name)
		assert.Equal(t, shown.Said, shown.Sentence, "%s came out as it was not meant to", c.name)
		if c.marked == "" {
			assert.Empty(t, shown.Marked, c.name)
		} else {
			assert.Contains(t, shown.Marked, c.marked, c.name)
		}
		after := d.api.seen.Load()
		assert.Equal(t, c.reaches, after-before, "requests of %s that reached the API", c.name)
		assert.Equal(t, fmt.Sprintf("%d requests so far", after), shown.Seen, c.name)
		token := evaluate[string](t, tab, `client.token`)
		assert.NotContains(t, shown.Request+shown.Answer, token, "the token is masked")
	}
	assert.Equal(t, 11, evaluate[int](t, tab, `document.querySelectorAll('#log tr').length`), "a line for each request")
	assert.Empty(t, tab.complaints(t))
	tab.close()
}

// stage is what the page shows of a try.
type stage struct {
	Verdict  string `json:"verdict"`
	Status   int    `json:"status"`
	Sentence string `json:"sentence"`
	Said     string `json:"said"`
	Request  string `json:"request"`
	Answer   string `json:"answer"`
	Marked   string `json:"marked"`
	Seen     string `json:"seen"`
}

func tryToTakeTheKey(t *testing.T, browser context.Context, d *demo) {
	tab := openTab(t, browser)
	tab.visit(t, d.url+"/")
	tab.await(t, "pass")
	for _, format := range []string{"jwk", "pkcs8", "raw"} {
		outcome := evaluate[string](t, tab, `crypto.subtle.exportKey('`+format+`', client.key.privateKey).then(() => 'exported', e => e.name)`)
		assert.NotEqual(t, "exported", outcome, format)
	}
	assert.False(t, evaluate[bool](t, tab, `client.key.privateKey.extractable`))
	tab.do(t, chromedp.Click(chromedp.CSS("#export")))
	assert.True(t, poll[bool](t, tab, `$('exported').textContent.includes('InvalidAccessError')`))
	assert.Empty(t, tab.complaints(t))

	refused := evaluate[bool](t, tab, `(() => { try { document.body.innerHTML = '<b>markup</b>' } catch { return true } return false })()`)
	assert.True(t, refused, "the page's policy takes no markup from script")
	assert.NotEmpty(t, tab.complaints(t), "a violation is seen")
	tab.close()
}

// callFromAnotherOrigin plays a browser client of an origin that the routes let in.
func callFromAnotherOrigin(t *testing.T, browser context.Context, d *demo, origin string) {
	tab := openTab(t, browser)
	tab.visit(t, origin+"/")
	token := tokenFor(t, d, evaluate[string](t, tab, `newClient()`))
	setToken := `setToken('` + token + `')`
	require.True(t, evaluate[bool](t, tab, setToken))

	before := d.api.seen.Load()
	got := ask(t, tab, d.url+"/orders/1001", `{}`)
	assert.Equal(t, 200, got.Status, "preflight, then the request")
	assert.Contains(t, got.Body, "Espresso machine")
	assert.Equal(t, before+1, d.api.seen.Load(), "the preflight does not reach the API")

	got = ask(t, tab, d.url+"/orders/1001", `{proof: false}`)
	assert.Equal(t, 401, got.Status, "a refusal can be read")
	assert.Contains(t, got.Challenge, `error="invalid_dpop_proof"`)
	assert.NotEmpty(t, got.RequestID)

	challenged := ask(t, tab, d.url+"/orders/1003", `{}`)
	assert.Equal(t, 401, challenged.Status)
	assert.Contains(t, challenged.Challenge, `error="use_dpop_nonce"`)
	require.NotEmpty(t, challenged.Nonce, "DPoP-Nonce is exposed")
	got = ask(t, tab, d.url+"/orders/1003", `{claims: {nonce: '`+challenged.Nonce+`'}}`)
	assert.Equal(t, 200, got.Status)
	assert.Contains(t, got.Body, "Paper filters")
	assert.NotEmpty(t, got.Nonce, "a success has one too")
	assert.Equal(t, before+2, d.api.seen.Load())

	got = ask(t, tab, d.url+"/orders/1001/refund", `{method: 'POST'}`)
	assert.Equal(t, -1, got.Status, "a route that lets no other origin in")
	got = ask(t, tab, d.url+"/demo/token?jkt="+strings.Repeat("A", 43), `{method: 'POST', plain: true}`)
	assert.Equal(t, -1, got.Status, "nor does the one that gives tokens away")
	assert.Equal(t, before+2, d.api.seen.Load())
	tab.close()
}

func callFromOriginNotListed(t *testing.T, browser context.Context, d *demo, origin string) {
	tab := openTab(t, browser)
	tab.visit(t, origin+"/")
	token := tokenFor(t, d, evaluate[string](t, tab, `newClient()`))
	require.True(t, evaluate[bool](t, tab, `setToken('`+token+`')`))
	before, given := d.api.seen.Load(), d.issuer.given.Load()
	for _, path := range []string{"/orders/1001", "/orders/1003", "/orders/"} {
		assert.Equal(t, -1, ask(t, tab, d.url+path, `{}`).Status, "%s: no preflight, no request", path)
		assert.Equal(t, -1, ask(t, tab, d.url+path, `{plain: true}`).Status, "%s: no reading of what needs no preflight", path)
	}
	assert.Equal(t, -1, ask(t, tab, d.url+"/demo/token?jkt="+strings.Repeat("A", 43), `{method: 'POST', plain: true}`).Status)
	assert.Equal(t, before, d.api.seen.Load())
	assert.Equal(t, given, d.issuer.given.Load(), "no token is used up")
	tab.close()
}

// fetched is what script learns of an answer; Status is -1 when the browser keeps all of it from script.
type fetched struct {
	Status    int    `json:"status"`
	Challenge string `json:"challenge"`
	Nonce     string `json:"nonce"`
	RequestID string `json:"requestId"`
	Body      string `json:"body"`
}

func ask(t *testing.T, tab *tab, url, options string) fetched {
	t.Helper()
	return evaluate[fetched](t, tab, fmt.Sprintf("call(%q, %s)", url, options))
}

// strangerPage is a client of another house: a page elsewhere with a key of its own.
const strangerPage = `<!doctype html><title>elsewhere</title><link rel="icon" href="data:,"><script>
const b64 = bytes => btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, '');
const bytes = text => new TextEncoder().encode(text);
const hash = async text => b64(await crypto.subtle.digest('SHA-256', bytes(text)));
let key, jwk, token;
async function newClient() {
  key = await crypto.subtle.generateKey({name: 'ECDSA', namedCurve: 'P-256'}, false, ['sign']);
  const {crv, kty, x, y} = await crypto.subtle.exportKey('jwk', key.publicKey);
  jwk = {crv, kty, x, y};
  return hash(JSON.stringify(jwk));
}
function setToken(t) { token = t; return true; }
async function call(url, {method = 'GET', proof = true, plain = false, claims = {}}) {
  const headers = {};
  if (!plain) headers.Authorization = 'DPoP ' + token;
  if (!plain && proof) {
    const input = [{typ: 'dpop+jwt', alg: 'ES256', jwk}, {jti: crypto.randomUUID(), htm: method, htu: url,
      iat: Math.floor(Date.now() / 1000), ath: await hash(token), ...claims}].map(p => b64(bytes(JSON.stringify(p)))).join('.');
    headers.DPoP = input + '.' + b64(await crypto.subtle.sign({name: 'ECDSA', hash: 'SHA-256'}, key.privateKey, bytes(input)));
  }
  try {
    const r = await fetch(url, {method, headers});
    const field = name => r.headers.get(name) ?? '';
    return {status: r.status, challenge: field('WWW-Authenticate'), nonce: field('DPoP-Nonce'),
      requestId: field('X-Request-Id'), body: await r.text()};
  } catch {
    return {status: -1, challenge: '', nonce: '', requestId: '', body: ''};
  }
}
</script>`

func serveStranger(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	io.WriteString(w, strangerPage)
}

// tokenFor gets a token for a key by its thumbprint, as the playground does.
func tokenFor(t *testing.T, d *demo, jkt string) string {
	t.Helper()
	res, err := http.Post(d.url+"/demo/token?jkt="+jkt, "", nil)
	require.NoError(t, err)
	defer res.Body.Close()
	var granted struct {
		Token string `json:"access_token"`
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&granted))
	require.NotEmpty(t, granted.Token)
	return granted.Token
}

// startPlayground starts a demo whose orders may be called by pages of another origin too, one of them only with a nonce.
func startPlayground(t *testing.T, origin string) *demo {
	t.Helper()
	privateFolders(t)
	const orders = "    scopes: [orders:read]\n"
	cors := fmt.Sprintf("    cors: {origins: [%q]}\n", origin)
	text := strings.Replace(string(demoConfig), orders, orders+cors+
		"  - match: GET /orders/1003\n    upstream: orders\n    nonce: required\n"+orders+cors, 1)
	require.NotEqual(t, string(demoConfig), text)
	d, err := startDemo(t.Context(), shell{}.env(io.Discard, io.Discard, nil), demoOptions{listen: "127.0.0.1:0", config: []byte(text)})
	t.Cleanup(d.close)
	require.NoError(t, err)
	return d
}

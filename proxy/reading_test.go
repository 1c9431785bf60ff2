package proxy_test

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// layered has lax routes around strict ones, which is where it matters how a path is read.
const layered = `
public_urls: [https://api.example.test]
listen: {http: "127.0.0.1:0"}
store: {sqlite: unused.db}
dpop: {nonce: "off"}
routes:
  - {match: /, upstream: "${UPSTREAM}", public: true}
  - {match: /public/, upstream: "${UPSTREAM}", public: true}
  - {match: /admin, upstream: "${UPSTREAM}", scopes: [admin]}
  - {match: /admin/, upstream: "${UPSTREAM}", scopes: [admin]}
  - {match: "/v1/items/{id}", upstream: "${UPSTREAM}", public: true}
  - {match: "/v1/items/{id}/refund", upstream: "${UPSTREAM}", scopes: [admin]}
  - {match: /legacy/, upstream: "${UPSTREAM}", public: true, strip_prefix: /legacy}
  - {match: /legacy/admin/, upstream: "${UPSTREAM}", scopes: [admin], strip_prefix: /legacy}
`

// upstreamReadings is how servers read the path of a request line: what they look their own rules up with.
var upstreamReadings = map[string]func(raw string) string{
	"Go":                                 func(raw string) string { return clean(decoded(raw)) },
	"nginx":                              func(raw string) string { return clean(merged(decoded(raw))) },
	"decodes also":                       func(raw string) string { return clean(decoded(decoded(raw))) },
	"Tomcat":                             func(raw string) string { return clean(merged(decoded(stripped(raw)))) },
	"decodes, then takes parameters off": func(raw string) string { return clean(merged(stripped(decoded(raw)))) },
	"backslashes":                        func(raw string) string { return clean(strings.ReplaceAll(decoded(raw), `\`, "/")) },
	"PHP":                                decoded,
	"URL of decoded parts": func(raw string) string {
		again, _, _ := strings.Cut(decoded(raw), "#")
		again, _, _ = strings.Cut(again, "?")
		return clean(decoded(again))
	},
}

func decoded(s string) string {
	if d, err := url.PathUnescape(s); err == nil {
		return d
	}
	return s
}

func merged(s string) string {
	for strings.Contains(s, "//") {
		s = strings.ReplaceAll(s, "//", "/")
	}
	return s
}

func stripped(s string) string {
	segments := strings.Split(s, "/")
	for i := range segments {
		segments[i], _, _ = strings.Cut(segments[i], ";")
	}
	return strings.Join(segments, "/")
}

// clean removes dot segments, and keeps a slash at the end.
func clean(s string) string {
	c := path.Clean("/" + s)
	if c != "/" && (strings.HasSuffix(s, "/") || strings.HasSuffix(s, "/.") || strings.HasSuffix(s, "/..")) {
		c += "/"
	}
	return c
}

// rawPath is the path of a request target, taken apart without any of the gateway's code.
func rawPath(target string) (path, query string) {
	if i := strings.Index(target, "://"); i > 0 && target[0] != '/' {
		rest := target[i+3:]
		slash := strings.IndexAny(rest, "/?")
		if slash < 0 {
			return "/", ""
		}
		if target = rest[slash:]; target[0] == '?' {
			target = "/" + target
		}
	}
	path, query, _ = strings.Cut(target, "?")
	return path, query
}

// checkReadings states the laws of the path rule for one request as net/http parsed it: it is refused, or the upstream
// gets the path as it came but for the prefix of its route, and no server reads that as a path of another route.
func checkReadings(t *testing.T, g *proxy.Gateway, r *http.Request) (ok bool) {
	match, sent, ok := proxy.Locate(g, r)
	if !ok {
		return false
	}
	raw, _ := rawPath(r.RequestURI)
	prefix, whole := strings.CutSuffix(raw, sent)
	require.True(t, whole, "%q goes on as %q", r.RequestURI, sent)
	if strings.HasPrefix(match, "/legacy/") {
		require.Equal(t, "/legacy", prefix)
	} else {
		require.Empty(t, prefix)
	}
	for name, read := range upstreamReadings {
		as := read(sent)
		require.Equal(t, match, proxy.Match(g, r.Method, "api.example.test", prefix+as), "%q is %q to %s", r.RequestURI, as, name)
	}
	return true
}

var hostileTargets = []string{
	"/public/a", "/admin/x", "/ADMIN/x", "/admin", "/public/../admin/x", "/public/%2e%2e/admin/x", "/public/.%2E/admin/x",
	"/public/..%2fadmin", "/public/..%2Fadmin", "/public/%252e%252e/admin/x", "/public/%25252e%25252e/admin/x", "/%61dmin/x",
	"/%2561dmin/x", "/%252561dmin/x", "/public/..;/admin/x", "/public/..;a=b/admin/x", "/admin;x/y", "/;x/admin/y", "/admin%3bx/y",
	"/admin%3fx", "/admin%23x", "/admin%253fx", "/v1/items/1%3f/refund", "/v1/items/1/refund;x", "/v1/items/1/refund%3f",
	"/v1/items/;/refund", "//admin/x", "/public//admin", `/public\..\admin`, "/public/%5c..%5cadmin", "/public/%00", "/public/%0d%0a",
	"/public/%c0%ae%c0%ae/admin", "/%ff", "/public/é", "/public/%c3%a9", "/admin/x#/public", "/public/#/admin", "/legacy/a",
	"/legacy/admin/x", "/legacy/%61dmin/x", "/%6cegacy/admin/x", "/legacy/..;/admin/x", "/legacy;/admin/x", "/legacy/x%2f..%2fadmin",
	"/public/%", "/public/%2", "/public/%zz", "*", "public", "http://api.example.test/public/a", "http://api.example.test/public/../admin/x",
	"A:://admin/x", "A:::///admin/x", "A::///admin/x", "a:b://c/admin/x", "http::///admin/x", "http:/admin/x", "http:///admin/x", "https:x://y/admin/x", "http:admin/x",
	"http://api.example.test", "http://api.example.test?x", "http://evil.test/public/a", "/x?/admin/", "/x?p=/../admin", "/public/a?q=%zz;b",
	"/public/...", "/public/..a/b..", "/public/a;b,c+d@e:f&g=h$i!j*k'l(m)n", "/public/%2541", "/public/100%25", "/public/a%3fb%23c",
}

// FuzzPath looks for a path that two servers read as those of two routes.
func FuzzPath(f *testing.F) {
	for _, target := range hostileTargets {
		f.Add(target)
	}
	g := newGatewayFrom(f, layered)
	f.Fuzz(func(t *testing.T, target string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: api.example.test\r\n\r\n")))
		if err != nil {
			return
		}
		checkReadings(t, g, r)
	})
}

// pieces are what random targets are made of.
var pieces = []string{
	"/", "/", "/", "/", "/", "admin", "admin", "public", "legacy", "v1/items/", "refund", "a", "b.c", ".", "..", "...", "%2e", "%2E", "%2f",
	"%2F", "%5c", `\`, ";", ";x=1", "%3b", "%3f", "%3F", "%23", "#", "%25", "%252e", "%252f", "%2561", "%61", "%64min", "%00", "%0a", "%7f", "%c3%a9",
	"%c0%ae", "%ff", "%", "%4", "é", "ü", "~", "%7e", "+", "%20", "@", ":", "ADMIN", "&", "=", "$", "!", "'", "(", "*", ",", "|", "^", "{", "}", "\"", "<", "`",
}

// randomTarget is a request target, now and then in absolute form or with a query.
func randomTarget(random *rand.Rand) string {
	var b strings.Builder
	if random.IntN(20) == 0 {
		b.WriteString("http://api.example.test")
	}
	if random.IntN(20) > 0 {
		b.WriteString([]string{"/", "/", "/public/", "/admin/", "/legacy/", "/v1/items/"}[random.IntN(6)])
	}
	for range random.IntN(7) {
		b.WriteString(pieces[random.IntN(len(pieces))])
	}
	if random.IntN(4) == 0 {
		b.WriteString("?")
		for range random.IntN(4) {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
	}
	return b.String()
}

// attack: 24, 25, 26, 30, 31, 32, 33, 36, 38, 51
func TestUpstreamGetsThePathThatWasJudged(t *testing.T) {
	g := newRigFrom(t, "layered", []byte(layered))
	random := rand.New(rand.NewPCG(1, 2))
	targets := hostileTargets
	for range 20_000 {
		targets = append(targets, randomTarget(random))
	}
	conn, from := g.dial()
	sent := 0
	for _, target := range targets {
		text := "GET " + target + " HTTP/1.1\r\nHost: api.example.test\r\n\r\n"
		write(t, conn, text)
		res, err := http.ReadResponse(from, nil)
		require.NoError(t, err, "%q", target)
		io.Copy(io.Discard, res.Body)
		if res.Close {
			conn.Close()
			conn, from = g.dial()
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		public := err == nil && checkReadings(t, g.gateway, r) && res.StatusCode != http.StatusUnauthorized
		require.Equal(t, public, res.StatusCode == http.StatusOK, "%q: %s", target, res.Status)
		if public {
			sent++
			path, query := rawPath(target)
			want := path
			if strings.HasPrefix(path, "/legacy/") {
				want = strings.TrimPrefix(path, "/legacy")
			}
			if strings.Contains(target, "?") {
				want += "?" + query
			}
			require.Equal(t, want, g.last().RequestURI, "%q", target)
		}
		require.Equal(t, sent, g.count(), "%q", target)
	}
	assert.Greater(t, sent, 2000)
	assert.Greater(t, len(targets)-sent, 2000)
}

// newGatewayFrom is a gateway without a server, an upstream or tokens.
func newGatewayFrom(t testing.TB, yaml string) *proxy.Gateway {
	c, err := config.Parse("test.yaml", []byte(yaml), func(string) (string, bool) { return "http://127.0.0.1:9", true })
	require.NoError(t, err)
	g, err := proxy.New(c, proxy.Options{Tokens: &rows{}, Replay: cache.NewProofs(1<<20, nil)})
	require.NoError(t, err)
	t.Cleanup(g.Close)
	return g
}

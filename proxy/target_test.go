package proxy_test

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// get is the status of a raw GET of a target without credentials, and why.
func (g *rig) get(target string, more ...string) (status int, reason dpop.Reason) {
	told := g.told()
	res := g.raw("GET", strings.Join(append([]string{"GET " + target + " HTTP/1.1", "Host: api.example.test", "Connection: close"}, more...), "\r\n")+"\r\n\r\n")
	return res.StatusCode, g.eventAfter(told).Reason
}

// attack: 34, 35, 38
func TestAPathThatIsAlmostARouteIsNone(t *testing.T) {
	g := newRig(t, "base")
	for target, want := range map[string]int{
		"/ADMIN/x":                         404,
		"/%41dmin/x":                       404,
		"/adminx":                          404,
		"/admin":                           404, // and no redirect to /admin/
		"/admin/":                          401,
		"/admin/.":                         400,
		"/admin%20":                        404,
		"/admin%20/x":                      404,
		"/admin%09":                        400,
		"/admin.":                          404,
		"/admin./x":                        404,
		"/admin;x":                         404,
		"/admin%2fx":                       400,
		"/publicx":                         404,
		"/public":                          404,
		"/xpublic/":                        404,
		"/admin/x?/public/":                401,
		"/admin/x?p=/public":               401,
		"/admin/x?p=/../public/&x=%2e%2e/": 401,
		"/x?/public/":                      404,
		"?/public/":                        400,
		"/v1/items/":                       404,
		"/v1/items%3f":                     404,
	} {
		status, _ := g.get(target)
		assert.Equal(t, want, status, target)
	}
	assert.Zero(t, g.count(), "what the upstream saw")
}

// attack: 40
func TestAnAsteriskIsNoPath(t *testing.T) {
	g := newRigFrom(t, "layered", []byte(layered))
	for _, line := range []string{"GET *", "OPTIONS *", "POST *", "HEAD *", "GET %2A", "GET api.example.test:443", "CONNECT *", "CONNECT api.example.test:443", "CONNECT /public/a"} {
		res := g.raw("GET", line+" HTTP/1.1\r\nHost: api.example.test\r\nConnection: close\r\n\r\n")
		assert.Contains(t, []int{400, 405, 421}, res.StatusCode, line)
	}
	s := g.secure()
	for _, path := range []string{"*", "", "admin", "public/a", "http://api.example.test/public/a", "http://evil.test/public/a", "//evil.test/public/a"} {
		assert.False(t, exchange2(t, s, open2(path)), "%q", path)
	}
	assert.Zero(t, g.count(), "what the upstream saw")
}

// open2 is a request for a public path over HTTP/2.
func open2(path string, more ...field) []field {
	return append([]field{{":method", "GET"}, {":scheme", "https"}, {":authority", "api.example.test"}, {":path", path}}, more...)
}

// attack: 45, 47
func TestHTTP2SaysOneHostAndOnePath(t *testing.T) {
	g := newRigFrom(t, "layered", []byte(layered))
	s := g.secure()
	require.True(t, exchange2(t, s, open2("/public/a?x=1")))
	require.Equal(t, "/public/a?x=1", g.last().RequestURI)
	require.True(t, exchange2(t, s, open2("/public/a", field{"host", "api.example.test"})), "the same host twice")
	for _, fields := range [][]field{
		open2("/public/a", field{"host", "admin.test"}),
		open2("/public/a", field{"host", "admin.test"}, field{"host", "api.example.test"}),
		open2("/public/a", field{"host", "api.example.test, admin.test"}),
		open2("/public/a?x y"),
		open2("/public/a HTTP/1.1"),
		open2("/public/a?x HTTP/1.1"),
		open2("/public/a?x HTTP/1.1\r\nX-Auth-Subject: admin"),
		open2("/public/a?x\ty"),
		open2("/public/a?x#/admin/"),
		open2("/public/a\u00a0"),
		open2("/public/../admin/x"),
		open2("/public/%2e%2e/admin/x"),
		open2("/public//a"),
	} {
		assert.False(t, exchange2(t, s, fields), "%q", fields[3:])
	}
	assert.Equal(t, 2, g.count(), "what the upstream saw")
}

// attack: 43
func TestAHostHasOneSpelling(t *testing.T) {
	g := newRigFrom(t, "idn", []byte(`
public_urls: [https://xn--bcher-kva.example, "https://api.example.test:8443", https://plain.example.test]
listen: {http: "127.0.0.1:0"}
store: {sqlite: unused.db}
routes:
  - {match: /, upstream: "${UPSTREAM}", public: true}
  - {match: plain.example.test/, upstream: "${UPSTREAM}"}
`))
	for host, want := range map[string]int{
		"xn--bcher-kva.example":     200,
		"XN--BCHER-KVA.EXAMPLE":     200,
		"xn--bcher-kva.example:443": 200,
		"bücher.example":            421,
		"xn--bcher-kva.example.":    421,
		"b\xfccher.example":         421,
		"api.example.test:8443":     200,
		"api.example.test":          421,
		"api.example.test:443":      421,
		"api.example.test:08443":    421,
		"api.example.test.:8443":    421,
		"api.example.test:8443:1":   421,
		"plain.example.test":        401, // and never the route for all hosts
		"PLAIN.example.TEST":        401,
		"plain.example.test:443":    401,
		"plain.example.test.":       421,
		"plain.example.te\u017ft":   421, // ſ is an s in upper case
		"[::1]":                     421,
		"127.0.0.1":                 421,
	} {
		before := g.count()
		res := g.raw("GET", "GET /x HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if want == 421 {
			assert.Contains(t, []int{400, 421}, res.StatusCode, "%q", host)
		} else {
			assert.Equal(t, want, res.StatusCode, "%q", host)
		}
		assert.Equal(t, want == 200, g.count() > before, "%q", host)
	}
}

// attack: 48
func TestOnlyMethodsThatAreServedGoOn(t *testing.T) {
	g := newRigFrom(t, "layered", []byte(layered))
	for _, method := range []string{"get", "Get", "G!T", "PROPFIND", "TRACE", "TRACK", "DEBUG", "PRI", "CONNECT", "M-SEARCH", strings.Repeat("M", 8<<10)} {
		res := g.raw(method, method+" /public/a HTTP/1.1\r\nHost: api.example.test\r\nConnection: close\r\n\r\n")
		assert.Contains(t, []int{400, 405, 505}, res.StatusCode, "%.20q", method)
		if res.StatusCode == 405 {
			assert.Equal(t, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS", res.Header.Get("Allow"))
			assert.Equal(t, proxy.MethodRefused, g.event().Reason)
		}
	}
	assert.Zero(t, g.count(), "what the upstream saw")
}

// attack: 52
func TestNoPathLeavesTheBaseOfItsUpstream(t *testing.T) {
	g := newRigFrom(t, "below", []byte(`
public_urls: [https://api.example.test]
listen: {http: "127.0.0.1:0"}
store: {sqlite: unused.db}
routes:
  - {match: /, upstream: "${UPSTREAM}/base", public: true}
  - {match: /v1/, upstream: "${UPSTREAM}/base/", public: true, strip_prefix: /v1}
`))
	for target, at := range map[string]string{
		"/": "/base/", "/x": "/base/x", "/x/": "/base/x/", "/x?y": "/base/x?y", "/...": "/base/...", "/%41": "/base/%41", "/v1/": "/base/", "/v1/x": "/base/x",
		"/../x": "", "/%2e%2e/x": "", "/x/../../y": "", "/..;/x": "", "/%252e%252e/x": "", "//x": "", `/\x`: "", "/v1/../x": "", "/v1/%2e%2e/x": "", "/v1..": "/base/v1..",
		"/v1//x": "", "http://api.example.test": "/base/", "http://api.example.test/../x": "",
	} {
		before := g.count()
		status, _ := g.get(target)
		if at == "" {
			assert.Equal(t, http.StatusBadRequest, status, target)
			assert.Equal(t, before, g.count(), target)
			continue
		}
		require.Equal(t, http.StatusOK, status, target)
		assert.Equal(t, at, g.last().RequestURI, target)
	}
}

// attack: 54
func TestNobodyIsLetInForWhatTheyCallThemselves(t *testing.T) {
	g := newRig(t, "base")
	for _, agent := range []string{"GoogleHC/1.0", "kube-probe/1.30", "ELB-HealthChecker/2.0", "Consul Health Check", "dpopgate"} {
		status, reason := g.get("/v1/items", "User-Agent: "+agent)
		assert.Equal(t, http.StatusUnauthorized, status, agent)
		assert.Equal(t, dpop.CredentialsMissing, reason)
	}
	for _, path := range []string{"/healthz", "/readyz", "/livez", "/ping", "/metrics", "/debug/pprof/", "/config", "/.well-known/"} {
		status, reason := g.get(path)
		assert.Equal(t, http.StatusNotFound, status, path)
		assert.Equal(t, proxy.RouteMissing, reason, path)
	}
	assert.Zero(t, g.count(), "what the upstream saw")
}

// pattern is a route as a plain list would have it.
type pattern struct {
	method   string
	segments []string // "*" for any one
	subtree  bool
}

func (p pattern) String() string {
	path := ""
	for i, s := range p.segments {
		path += "/" + strings.Replace(s, "*", "{"+string(rune('a'+i))+"}", 1)
	}
	if p.subtree {
		path += "/"
	}
	return strings.TrimSpace(p.method + " " + path)
}

// takes says whether the pattern matches, and how closely, one letter for each segment.
func (p pattern) takes(method, path string) (closeness string, ok bool) {
	if p.method != "" && p.method != method && (p.method != "GET" || method != "HEAD") {
		return "", false
	}
	segments := strings.Split(path[1:], "/")
	if len(segments) < len(p.segments)+len(map[bool][]int{true: {0}}[p.subtree]) || !p.subtree && len(segments) > len(p.segments) {
		return "", false
	}
	for i, s := range p.segments {
		switch {
		case s == "*" && segments[i] != "":
			closeness += "1"
		case s == segments[i]:
			closeness += "2"
		default:
			return "", false
		}
	}
	closeness += strings.Repeat("0", 9-len(p.segments))
	return closeness + map[bool]string{true: "0", false: "1"}[p.subtree] + map[string]string{"": "0", "GET": "1", "HEAD": "2", "POST": "2"}[p.method], true
}

// closest is the pattern that matches most closely, or nil.
func closest(list []pattern, method, path string) (best *pattern) {
	most := ""
	for i, p := range list {
		if closeness, ok := p.takes(method, path); ok && closeness > most {
			best, most = &list[i], closeness
		}
	}
	return best
}

// The route table is an index. A list that is gone through from its beginning to its end finds the same routes.
//
// attack: 44, 53
func TestRouteTableAgreesWithAPlainList(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	c, err := config.Parse("test.yaml", []byte(layered), func(string) (string, bool) { return "http://127.0.0.1:9", true })
	require.NoError(t, err)
	o := proxy.Options{Tokens: &rows{}, Replay: cache.NewProofs(1<<20, nil)}
	c.Routes = c.Routes[:1]
	base := c.Routes[0]
	list := []pattern{{subtree: true}}
	for range 400 {
		p := pattern{method: pick("", "", "GET", "POST", "HEAD"), subtree: random.IntN(2) == 0}
		for range 1 + random.IntN(4) {
			p.segments = append(p.segments, pick("a", "b", "c", "*"))
		}
		route := base
		route.Match = p.String()
		c.Routes = append(c.Routes, route)
		g, err := proxy.New(c, o)
		if err != nil { // one that neither wins against another
			c.Routes = c.Routes[:len(c.Routes)-1]
			continue
		}
		g.Close()
		list = append(list, p)
	}
	require.Greater(t, len(list), 50)
	forward, err := proxy.New(c, o)
	require.NoError(t, err)
	t.Cleanup(forward.Close)
	for i, j := 0, len(c.Routes)-1; i < j; i, j = i+1, j-1 {
		c.Routes[i], c.Routes[j] = c.Routes[j], c.Routes[i]
	}
	backward, err := proxy.New(c, o)
	require.NoError(t, err)
	t.Cleanup(backward.Close)
	for range 100_000 {
		method, path := pick("GET", "POST", "HEAD", "PUT"), ""
		for range 1 + random.IntN(5) {
			path += "/" + pick("a", "b", "c", "d", "ab")
		}
		path += pick("", "/")
		found := closest(list, method, path)
		want := ""
		if found != nil {
			want = found.String()
		}
		// What lacks only its slash at the end to be a subtree is not left to a wider one: servers take it for the same.
		if slashed := closest(list, method, path+"/"); !strings.HasSuffix(path, "/") && (found == nil || found.subtree) && slashed != nil && slashed.subtree && len(slashed.segments) == strings.Count(path, "/") {
			want = ""
		}
		require.Equal(t, want, proxy.Match(forward, method, "api.example.test", path), "%s %s", method, path)
		require.Equal(t, want, proxy.Match(backward, method, "api.example.test", path), "%s %s", method, path)
	}
}

package proxy_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/require"
)

// vectorCase is one case of a vector file: an id of the catalogue, its mark, a title, and lines to carry out.
type vectorCase struct {
	id, mark, title, file string
	lines                 []vectorLine
}

type vectorLine struct {
	number int
	text   string
}

// readVectors reads all vector files. The language is explained in testdata/vectors/README.md.
func readVectors(t testing.TB) []vectorCase {
	files, err := filepath.Glob("../testdata/vectors/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files, "no vector files")
	var all []vectorCase
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		scan := bufio.NewScanner(bytes.NewReader(data))
		scan.Buffer(nil, 1<<20)
		for n := 1; scan.Scan(); n++ {
			text := strings.TrimSpace(scan.Text())
			switch {
			case text == "" || strings.HasPrefix(text, "#"):
			case strings.HasPrefix(text, "case "):
				f := strings.SplitN(text, " ", 4)
				require.Len(t, f, 4, "%s:%d: want: case ID MARK TITLE", file, n)
				all = append(all, vectorCase{id: f[1], mark: f[2], title: strings.TrimSpace(f[3]), file: filepath.Base(file)})
			default:
				require.NotEmpty(t, all, "%s:%d: a line before the first case", file, n)
				c := &all[len(all)-1]
				c.lines = append(c.lines, vectorLine{n, text})
			}
		}
		require.NoError(t, scan.Err())
	}
	return all
}

func TestVectors(t *testing.T) { playAll(t, nil) }

// What is remembered of clients' headers and keys changes no answer: each case once more, at a gateway that knows those of
// all keys.
func TestVectorsAreTheSameForKnownClients(t *testing.T) {
	known := cache.NewHeaders(cache.HeadersOptions{Tables: true})
	for _, key := range vectorKeys(t) {
		v := dpop.Verifier{Algorithms: dpop.Algorithms{key.Algorithm()}, MaxProofSize: 8 << 10, Headers: known}
		for range 4 { // the third of which builds its table
			raw, err := key.Sign(dpop.Claims{Method: "GET", URL: "https://api.example.test/"})
			require.NoError(t, err)
			p, err := v.Parse(raw)
			require.NoError(t, err)
			require.NoError(t, v.VerifySignature(p))
			head, _, _ := strings.Cut(raw, ".")
			require.NotNil(t, known.Recall(head))
		}
	}
	playAll(t, known)
}

// playAll plays all cases at gateways with a memory of headers, or without one.
func playAll(t *testing.T, headers dpop.Headers) {
	keys := vectorKeys(t)
	for _, c := range readVectors(t) {
		t.Run(c.id, func(t *testing.T) {
			sent := 0
			p := &player{t: t, keys: keys, c: c, rig: "base", headers: headers}
			for _, line := range c.lines {
				p.line = line
				if p.play(line.text) {
					sent++
				}
			}
			require.NotZero(t, sent, "%s: the case %s sends nothing", c.file, c.id)
		})
	}
}

// vectorKeys are the clients' keys, by the names that vectors use.
func vectorKeys(t testing.TB) map[string]*dpop.Key {
	data, err := os.ReadFile("../testdata/vectors/keys.json")
	require.NoError(t, err)
	var jwks map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(data, &jwks))
	keys := map[string]*dpop.Key{}
	for name, jwk := range jwks {
		key, err := dpop.ReadKey(jwk)
		require.NoError(t, err, name)
		keys[name] = key
	}
	return keys
}

// player carries out one case.
type player struct {
	t    *testing.T
	keys map[string]*dpop.Key
	c    vectorCase
	line vectorLine
	rig  string
	g    *rig

	headers dpop.Headers // of the rig

	next     request
	wire     string // what was sent last
	method   string
	secrets  []string // tokens and proofs sent so far
	before   int      // what the upstream had seen before
	told     int      // how many events there were before
	response *http.Response
	body     string
	nonces   []string // each DPoP-Nonce received
	serial   int
	earlier  map[string]string // the segments of the proof sent before
}

// request is the base request of the catalogue with the changes of the lines so far.
type request struct {
	method, target, host, version string
	token                         string
	key                           string
	header, claims, jwk           []pair            // changes, in order
	headerText, claimsText        string            // instead of all that
	signature                     string            // how to sign
	spelling                      map[string]string // of the segments h, p and s, where not as usual
	proof                         string            // the text of the DPoP field, around ${proof}
	fields                        []string
	drops                         []string
	auth                          string
	body                          string
	raw                           string
}

// pair is a member by name and its JSON text; empty takes it out.
type pair struct{ name, json string }

func (p *player) fail(format string, args ...any) {
	p.t.Helper()
	require.Fail(p.t, fmt.Sprintf("%s:%d: %s: %s", p.c.file, p.line.number, p.line.text, fmt.Sprintf(format, args...)))
}

func (p *player) gate() *rig {
	if p.g == nil {
		p.g = newRig(p.t, p.rig, func(o *proxy.Options) { o.Headers = p.headers })
		p.g.rows.put("T1", bound(p.keys["K1"].Thumbprint(), "items:read"))
		p.next = p.base()
	}
	return p.g
}

// base is the request that each case changes.
func (p *player) base() request {
	return request{method: "GET", target: "/v1/items", host: "api.example.test", version: "HTTP/1.1", token: "T1", key: "K1", signature: "good", proof: "${proof}", auth: "DPoP ${token}"}
}

// play carries out one line, and says whether it sent something.
func (p *player) play(text string) bool {
	word, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	value := strings.TrimSpace(strings.TrimPrefix(rest, "="))
	switch {
	case word == "rig":
		p.rig = rest
		return false
	}
	g := p.gate()
	n := &p.next
	switch {
	case word == "token":
		p.token(rest)
	case word == "clock":
		d, err := time.ParseDuration(rest)
		require.NoError(p.t, err)
		g.offset.Add(int64(d))
	case word == "send":
		p.build()
		p.transmit()
		p.expect(rest)
		p.next = p.base()
		return true
	case word == "again":
		p.transmit()
		p.expect(rest)
		return true
	case word == "see":
		p.see(rest)
	case word == "reset":
		p.next = p.base()
	case word == "use":
		n.token = rest
	case word == "key":
		n.key = rest
	case word == "sign":
		n.signature = rest
	case word == "spell":
		segment, way, _ := strings.Cut(rest, " ")
		n.spelling = map[string]string{segment: way}
	case word == "proof":
		n.proof = unquote(value)
	case word == "header":
		n.headerText = unquote(value)
	case word == "claims":
		n.claimsText = unquote(value)
	case word == "method":
		n.method = value
	case word == "target":
		n.target = unquote(value)
	case word == "host":
		n.host = unquote(value)
	case word == "version":
		n.version = value
	case word == "authorization":
		n.auth = unquote(value)
	case word == "body":
		n.body = unquote(value)
	case word == "raw":
		n.raw = unquote(value)
	case word == "field":
		n.fields = append(n.fields, unquote(rest))
	case word == "drop":
		n.drops = append(n.drops, rest)
	case strings.Contains(word, "."):
		where, name, _ := strings.Cut(word, ".")
		changes, ok := map[string]*[]pair{"header": &n.header, "claim": &n.claims, "jwk": &n.jwk}[strings.TrimPrefix(where, "-")]
		if !ok {
			p.fail("not a part of a proof")
		}
		if strings.HasPrefix(where, "-") {
			value = ""
		}
		*changes = append(*changes, pair{name, value})
	default:
		p.fail("not a word of the language")
	}
	return false
}

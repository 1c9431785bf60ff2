package main

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// benchPeer is the program that plays what is not a program of its own: a command of testscript.Main.
func benchPeer() {
	e := newEnv()
	err := playPart(e, func(p *benchPart, l net.Listener) (func() uint64, error) {
		up, err := url.Parse(p.Upstream)
		if err != nil {
			return nil, err
		}
		switch p.Role {
		case "default transport":
			go http.Serve(l, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(up) }})
		case "go-jose":
			gate := &joseGateway{next: newPlainProxy(up), used: map[string]time.Time{}}
			if err := json.Unmarshal([]byte(p.Variables["TOKENS"]), &gate.tokens); err != nil {
				return nil, err
			}
			go http.Serve(l, gate)
		default:
			return nil, fmt.Errorf("no peer is called %q", p.Role)
		}
		return nil, nil
	})
	if err != nil {
		fmt.Fprintln(e.stderr, err)
		os.Exit(exitFailure)
	}
}

// joseGateway is what one would write first: go-jose for the proof, maps for tokens and used proofs, ReverseProxy.
type joseGateway struct {
	tokens map[string]peerToken
	next   http.Handler

	mu    sync.Mutex
	used  map[string]time.Time // by key and jti, until when
	swept time.Time
}

func (g *joseGateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	known, err := g.check(r, time.Now())
	if err != nil {
		w.Header().Set("WWW-Authenticate", `DPoP error="invalid_token"`)
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	r.Header.Del("Authorization")
	r.Header.Del("DPoP")
	r.Header.Set("X-Auth-Subject", known.Subject)
	r.Header.Set("X-Auth-Client", known.Client)
	r.Header.Set("X-Auth-Scope", known.Scope)
	r.Header.Set("X-Auth-Expires", strconv.FormatInt(known.Expires, 10))
	g.next.ServeHTTP(w, r)
}

func (g *joseGateway) check(r *http.Request, now time.Time) (peerToken, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	known, ok := g.tokens[token]
	if !ok || !strings.EqualFold(scheme, "DPoP") || now.Unix() >= known.Expires {
		return known, errors.New("token unknown or expired")
	}
	proof, err := jose.ParseSignedCompact(r.Header.Get("DPoP"), []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA, jose.PS256, jose.RS256})
	if err != nil {
		return known, err
	}
	header := proof.Signatures[0].Protected
	if header.JSONWebKey == nil || header.ExtraHeaders["typ"] != "dpop+jwt" {
		return known, errors.New("not a proof")
	}
	thumbprint, err := header.JSONWebKey.Thumbprint(crypto.SHA256)
	if err != nil {
		return known, err
	}
	jkt := base64.RawURLEncoding.EncodeToString(thumbprint)
	if jkt != known.JKT {
		return known, errors.New("the token is bound to another key")
	}
	payload, err := proof.Verify(header.JSONWebKey)
	if err != nil {
		return known, err
	}
	var claims struct {
		JTI, HTM, HTU, ATH string
		IAT                int64
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return known, err
	}
	digest := sha256.Sum256([]byte(token))
	switch age := now.Unix() - claims.IAT; {
	case claims.HTM != r.Method, claims.HTU != "http://"+r.Host+r.URL.Path, age < -10, age > 60, claims.JTI == "",
		claims.ATH != base64.RawURLEncoding.EncodeToString(digest[:]):
		return known, errors.New("the proof is for another request")
	case !g.claim(jkt+" "+claims.JTI, now):
		return known, errors.New("the proof was used")
	}
	return known, nil
}

// claim says whether a proof is new. Every ten seconds it forgets those that are too old to pass.
func (g *joseGateway) claim(proof string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.swept) > 10*time.Second {
		for k, until := range g.used {
			if now.After(until) {
				delete(g.used, k)
			}
		}
		g.swept = now
	}
	if _, used := g.used[proof]; used {
		return false
	}
	g.used[proof] = now.Add(71 * time.Second)
	return true
}

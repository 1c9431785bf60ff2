package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
)

// theft is what a thief may have got hold of. No attack uses more of it than its name says: the key is there to make
// the proofs that an honest client has made, for the thief to copy.
type theft struct {
	key   *dpop.Key
	token string
	base  http.RoundTripper
	say   io.Writer // what happens on the way
}

// attack is one way to use what was stolen.
type attack struct {
	name   string
	sends  string // what goes out
	lesson string // why that fails
	send   func(t *theft, r *http.Request) (*http.Response, error)
}

var attacks = []attack{
	{
		name:   "stolen-token",
		sends:  "the token with a proof by another key, which the thief has just made",
		lesson: "the token is bound to the key that it was issued for, and that key never leaves the client",
		send: func(t *theft, r *http.Request) (*http.Response, error) {
			own, err := dpop.NewKey(dpop.ES256)
			if err != nil {
				return nil, err
			}
			return (&dpop.Transport{Key: own, Token: t.token, Base: t.base}).RoundTrip(r)
		},
	},
	{
		name:   "replay",
		sends:  "the same proof twice, first as the client and then as the thief who has overheard it",
		lesson: "a proof is good for one request, and the client has made that request",
		send:   (*theft).replay,
	},
	{
		name:   "bearer",
		sends:  "the token as Bearer, without any proof",
		lesson: "a token that is bound to a key is no bearer token, whatever scheme it is sent with",
		send: func(t *theft, r *http.Request) (*http.Response, error) {
			return t.present(r, dpop.SchemeBearer, "")
		},
	},
	{
		name:   "wrong-url",
		sends:  "the token with a proof that the client has made for another URL",
		lesson: "a proof names the URL that it was made for, so a server cannot pass on to others what it was sent",
		send: func(t *theft, r *http.Request) (*http.Response, error) {
			return t.forge(r, dpop.Claims{Method: r.Method, URL: "https://elsewhere.example" + r.URL.EscapedPath()})
		},
	},
	{
		name:   "clock",
		sends:  "the token with a proof that the client has made an hour ago and never sent",
		lesson: "a proof names the time that it was made at, and is good for about a minute",
		send: func(t *theft, r *http.Request) (*http.Response, error) {
			return t.forge(r, dpop.Claims{Method: r.Method, URL: plainURL(r), IssuedAt: time.Now().Add(-time.Hour)})
		},
	},
	{
		name:   "no-proof",
		sends:  "the token without any proof",
		lesson: "the token alone is not enough: each request needs a proof by the key",
		send: func(t *theft, r *http.Request) (*http.Response, error) {
			return t.present(r, dpop.SchemeDPoP, "")
		},
	},
}

// findAttack is the attack of that name, or nil for no name.
func findAttack(name string) (*attack, error) {
	if name == "" {
		return nil, nil
	}
	for i := range attacks {
		if attacks[i].name == name {
			return &attacks[i], nil
		}
	}
	return nil, usagef("--attack %q: want one of %s", name, strings.Join(attackNames(), ", "))
}

func attackNames() []string {
	var names []string
	for _, a := range attacks {
		names = append(names, a.name)
	}
	return names
}

// attackList is the attacks as help has them.
func attackList() string {
	var b strings.Builder
	for _, a := range attacks {
		fmt.Fprintf(&b, "  %-13s %s\n", a.name, a.sends)
	}
	return strings.TrimRight(b.String(), "\n")
}

// present sends the token under a scheme, with the given proof or none.
func (t *theft) present(r *http.Request, scheme, proof string) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", scheme+" "+t.token)
	if proof != "" {
		r.Header.Set("DPoP", proof)
	}
	return t.base.RoundTrip(r)
}

// forge sends the token with a proof of those claims by the client's key.
func (t *theft) forge(r *http.Request, c dpop.Claims) (*http.Response, error) {
	c.Token = t.token
	proof, err := t.key.Sign(c)
	if err != nil {
		return nil, err
	}
	return t.present(r, dpop.SchemeDPoP, proof)
}

// replay sends a request as the client does, and then once more with the proof that was in it.
func (t *theft) replay(r *http.Request) (*http.Response, error) {
	wire := &recorder{base: t.base}
	first, err := (&dpop.Transport{Key: t.key, Token: t.token, Base: wire}).RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, _ := io.ReadAll(io.LimitReader(first.Body, maxSmall))
	first.Body.Close()
	said := readAnswer(first, body)
	if judge(first) == refused {
		return nil, fmt.Errorf("the client itself was refused, so there is nothing to replay: %s", said)
	}
	fmt.Fprintf(t.say, "first, by the client: %s\n", said)
	if r.GetBody != nil {
		if r.Body, err = r.GetBody(); err != nil {
			return nil, err
		}
	}
	return t.present(r, dpop.SchemeDPoP, wire.sent.Header.Get("DPoP"))
}

// recorder is a RoundTripper that keeps the request sent last, as somebody who overhears the client would.
type recorder struct {
	base http.RoundTripper
	sent *http.Request
}

// RoundTrip implements http.RoundTripper.
func (w *recorder) RoundTrip(r *http.Request) (*http.Response, error) {
	w.sent = r
	return w.base.RoundTrip(r)
}

// plainURL is the htu of a request.
func plainURL(r *http.Request) string {
	return r.URL.Scheme + "://" + r.URL.Host + r.URL.EscapedPath()
}

// judgement is what an answer means for an attack.
type judgement int

const (
	unclear    judgement = iota // refused or failed for another reason, such as a path that is not there
	refused                     // because of the credentials
	letThrough                  // authenticated, whatever was answered then
)

// judge looks at an answer. A 401 counts only with a challenge: one that the upstream sends has none, as the gateway
// takes it out. A 403 of the gateway comes after authentication.
func judge(res *http.Response) judgement {
	switch status := res.StatusCode; {
	case status == http.StatusUnauthorized && res.Header.Get("WWW-Authenticate") != "":
		return refused
	case status < http.StatusBadRequest || status == http.StatusForbidden || status == http.StatusUnauthorized:
		return letThrough
	default:
		return unclear
	}
}

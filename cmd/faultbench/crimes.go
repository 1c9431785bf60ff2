package main

import (
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
)

// crime is a way to use what one should not have.
type crime struct {
	what string
	// plan is what to send. It is given a request with a live token, and the claims of an honest proof for it.
	plan func(t *thief, r *request, c dpop.Claims) sending
}

// sign signs with the key of the token's owner.
func sign(r *request, c dpop.Claims) sending { return sending{proof: signed(r.token.key, c)} }

func signed(key *dpop.Key, c dpop.Claims) string {
	proof, err := key.Sign(c)
	if err != nil {
		panic(err) // a key of our own
	}
	return proof
}

// crimes are those that are none of honest requests but for one thing each.
var crimes = []crime{
	{"a token without its key", func(t *thief, _ *request, c dpop.Claims) sending { return sending{proof: signed(t.key, c)} }},
	{"a token alone", func(*thief, *request, dpop.Claims) sending { return sending{proof: "-"} }},
	{"a token as Bearer", func(_ *thief, r *request, _ dpop.Claims) sending {
		return sending{authorization: "Bearer " + r.token.text, proof: "-"}
	}},
	{"a token as Bearer beside its proof", func(_ *thief, r *request, c dpop.Claims) sending {
		return sending{authorization: "Bearer " + r.token.text, proof: signed(r.token.key, c)}
	}},
	{"a proof for another URL", func(_ *thief, r *request, c dpop.Claims) sending { c.URL += "0"; return sign(r, c) }},
	{"a proof for another method", func(_ *thief, r *request, c dpop.Claims) sending { c.Method = http.MethodPut; return sign(r, c) }},
	{"a proof for another token", func(_ *thief, r *request, c dpop.Claims) sending { c.Token += "x"; return sign(r, c) }},
	{"an old proof", func(_ *thief, r *request, c dpop.Claims) sending {
		c.IssuedAt = time.Now().Add(-80 * time.Second)
		return sign(r, c)
	}},
	{"a proof of the future", func(_ *thief, r *request, c dpop.Claims) sending {
		c.IssuedAt = time.Now().Add(30 * time.Second)
		return sign(r, c)
	}},
	{"an old proof with a nonce of its own", func(_ *thief, r *request, c dpop.Claims) sending {
		c.IssuedAt, c.Nonce = time.Now().Add(-80*time.Second), "bm90LWEtbm9uY2Utb2YtdGhlLWdhdGV3YXk"
		return sign(r, c)
	}},
	{"a path without the scope", func(t *thief, r *request, c dpop.Claims) sending {
		c.URL = t.bench.ledger.url + adminPath
		return sending{path: adminPath, proof: signed(r.token.key, c)}
	}},
	{"a path with two readings", func(t *thief, r *request, c dpop.Claims) sending {
		const path = "/orders/%2e%2e/admin/1"
		c.URL = t.bench.ledger.url + path
		return sending{path: path, proof: signed(r.token.key, c)}
	}},
	{"an expired token", func(t *thief, r *request, c dpop.Claims) sending { return t.loot.with(t.loot.expired, r, c) }},
	{"a token without the scope", func(t *thief, r *request, c dpop.Claims) sending { return t.loot.with(t.loot.scopeless, r, c) }},
	{"an unknown token", func(t *thief, r *request, c dpop.Claims) sending { return t.loot.with(t.loot.unknown, r, c) }},
}

// loot is what thieves have besides the tokens of honest clients: tokens with their keys, none of which is good for
// anything.
type loot struct{ expired, scopeless, unknown []*token }

// with swaps the token of a request.
func (l *loot) with(tokens []*token, r *request, c dpop.Claims) sending {
	r.token = tokens[rand.IntN(len(tokens))]
	c.Token = r.token.text
	return sign(r, c)
}

package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// wiredRig is a gateway that hears of misuse.
type wiredRig struct {
	*rig
	upstream *rig
	lookups  *rows // the store without a cache
	mu       sync.Mutex
	heard    []proxy.Misuse
}

// newWired is one with the token T1, bound to the first key, and the second key, a thief's.
func newWired(t *testing.T, name string, change func(string) string) (w *wiredRig, owner, thief *dpop.Key) {
	t.Helper()
	text, err := os.ReadFile("../testdata/vectors/rigs/" + name + ".yaml")
	require.NoError(t, err)
	if change != nil {
		text = []byte(change(string(text)))
	}
	g, keys := newRigFrom(t, name, text), vectorKeys(t)
	owner = keys["K1"]
	w = &wiredRig{upstream: g, lookups: &rows{byDigest: map[tokenstore.Digest]*tokenstore.Record{}}}
	w.rig = g.sibling(0, func(o *proxy.Options) {
		o.Fresh = w.lookups
		o.Misuse = func(_ context.Context, m *proxy.Misuse) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.heard = append(w.heard, *m)
		}
	})
	w.put(owner, nil)
	return w, owner, keys["K2"]
}

// put puts T1 into the table.
func (w *wiredRig) put(owner *dpop.Key, change func(*tokenstore.Record)) {
	rec := bound(owner.Thumbprint(), "items:read")
	if change != nil {
		change(&rec)
	}
	w.rows.put("T1", rec)
	w.lookups.put("T1", rec)
}

// refused sends a request that must be refused, and that the upstream must not see.
func (w *wiredRig) refused(r *http.Request, reason dpop.Reason) {
	w.t.Helper()
	before := w.upstream.count()
	res, err := w.send(r)
	require.NoError(w.t, err)
	require.Equal(w.t, reason, w.eventOf(res).Reason)
	require.Equal(w.t, before, w.upstream.count(), "what the upstream saw")
}

// misused ends the gateway, and is all that it has heard of.
func (w *wiredRig) misused() []proxy.Misuse {
	w.server.Close()
	w.gateway.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard
}

// bearer is T1 without its proof.
func (w *wiredRig) bearer(key *dpop.Key) *http.Request {
	r := w.signed(key, dpop.Claims{})
	r.Header.Del("DPoP")
	r.Header.Set("Authorization", "Bearer T1")
	return r
}

func TestStolenTokenSpringsTheTripwire(t *testing.T) {
	for name, c := range map[string]struct {
		rig    string
		kind   proxy.MisuseKind
		reason dpop.Reason
		theft  func(w *wiredRig, owner, thief *dpop.Key) *http.Request
	}{
		"as Bearer where only DPoP is taken": {"base", proxy.ShownAsBearer, dpop.SchemeUnsupported, func(w *wiredRig, owner, _ *dpop.Key) *http.Request { return w.bearer(owner) }},
		"as Bearer where Bearer is taken":    {"mixed", proxy.ShownAsBearer, proxy.TokenBound, func(w *wiredRig, owner, _ *dpop.Key) *http.Request { return w.bearer(owner) }},
		"as Bearer beside a proof": {"base", proxy.ShownAsBearer, dpop.BearerWithProof, func(w *wiredRig, owner, _ *dpop.Key) *http.Request {
			r := w.bearer(owner)
			r.Header.Set("DPoP", "x")
			return r
		}},
		"with a proof by another key": {"base", proxy.OtherKey, dpop.KeyNotBound, func(w *wiredRig, _, thief *dpop.Key) *http.Request { return w.signed(thief, dpop.Claims{}) }},
	} {
		t.Run(name, func(t *testing.T) {
			w, owner, thief := newWired(t, c.rig, nil)
			w.refused(c.theft(w, owner, thief), c.reason)
			e := w.event()
			heard := w.misused()
			require.Len(t, heard, 1)
			want := proxy.Misuse{
				Time: start, Kind: c.kind, Confirmed: true, RequestID: e.RequestID, Route: e.Route, Client: "127.0.0.1",
				Digest:  tokenstore.Digester{}.Digest("T1"),
				TokenID: bound("").JTI, ClientID: aClient, UserID: bound("").UserID, Bound: owner.Thumbprint(),
			}
			if c.kind == proxy.OtherKey {
				want.Shown = thief.Thumbprint()
			}
			assert.Equal(t, want, heard[0])
		})
	}
}

// A proof of the owner that was overheard is no other key's, and ends nobody's token.
func TestRepeatedProofOfTheOwnerIsToldAndEndsNothing(t *testing.T) {
	w, owner, _ := newWired(t, "base", func(yaml string) string { return yaml + "misuse: revoke\n" })
	r := w.signed(owner, dpop.Claims{})
	w.passes(r)
	w.refused(r, dpop.ProofReplayed)
	heard := w.misused()
	require.Len(t, heard, 1)
	assert.Equal(t, proxy.ProofAgain, heard[0].Kind)
	assert.True(t, heard[0].Confirmed)
	assert.False(t, heard[0].Revoke)
	assert.Equal(t, owner.Thumbprint(), heard[0].Shown)
}

func TestMisuseEndsTheTokenWhereTheConfigSaysSo(t *testing.T) {
	for name, c := range map[string]struct {
		yaml   string
		revoke bool
	}{
		"misuse: log":                      {"misuse: log\n", false},
		"misuse: revoke":                   {"misuse: revoke\n", true},
		"misuse: revoke and mode: report ": {"misuse: revoke\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			report := strings.Contains(name, "report")
			w, owner, thief := newWired(t, "base", func(yaml string) string {
				if report {
					yaml = strings.ReplaceAll(yaml, "scopes: [items:read]}", "scopes: [items:read], mode: report}")
				}
				return yaml + c.yaml
			})
			if report {
				w.passes(w.signed(thief, dpop.Claims{}))
				w.passes(w.bearer(owner))
			} else {
				w.refused(w.signed(thief, dpop.Claims{}), dpop.KeyNotBound)
				w.refused(w.bearer(owner), dpop.SchemeUnsupported)
			}
			heard := w.misused()
			require.Len(t, heard, 2)
			for _, m := range heard {
				assert.True(t, m.Confirmed)
				assert.Equal(t, c.revoke, m.Revoke)
			}
		})
	}
}

func TestNoiseDoesNotSpringTheTripwire(t *testing.T) {
	forged := func(w *wiredRig, thief *dpop.Key, c dpop.Claims) *http.Request {
		r := w.signed(thief, c)
		proof := []byte(r.Header.Get("DPoP"))
		if at := &proof[len(proof)-2]; *at != 'A' {
			*at = 'A'
		} else {
			*at = 'B'
		}
		r.Header.Set("DPoP", string(proof))
		return r
	}
	type rigged func(w *wiredRig, owner, thief *dpop.Key) (*http.Request, dpop.Reason)
	for name, noise := range map[string]rigged{
		"a forged signature": func(w *wiredRig, _, thief *dpop.Key) (*http.Request, dpop.Reason) {
			return forged(w, thief, dpop.Claims{}), dpop.KeyNotBound
		},
		"a stale proof": func(w *wiredRig, _, thief *dpop.Key) (*http.Request, dpop.Reason) {
			return w.signed(thief, dpop.Claims{IssuedAt: start.Add(-time.Hour)}), dpop.IATPast
		},
		"a proof for another URL": func(w *wiredRig, _, thief *dpop.Key) (*http.Request, dpop.Reason) {
			r := w.signed(thief, dpop.Claims{})
			r.Header.Set("DPoP", w.proof(thief, "GET", "/v1/two", "T1"))
			return r, dpop.HTUMismatch
		},
		"a proof for another method": func(w *wiredRig, _, thief *dpop.Key) (*http.Request, dpop.Reason) {
			r := w.signed(thief, dpop.Claims{})
			r.Header.Set("DPoP", w.proof(thief, "POST", "/v1/items", "T1"))
			return r, dpop.HTMMismatch
		},
		"a proof for another token": func(w *wiredRig, _, thief *dpop.Key) (*http.Request, dpop.Reason) {
			r := w.signed(thief, dpop.Claims{Token: "T2"})
			r.Header.Set("Authorization", "DPoP T1")
			return r, dpop.ATHMismatch
		},
		"a token that nobody knows": func(w *wiredRig, owner, _ *dpop.Key) (*http.Request, dpop.Reason) {
			w.rows.drop("T1")
			w.lookups.drop("T1")
			return w.bearer(owner), dpop.SchemeUnsupported
		},
		"a token that has expired": func(w *wiredRig, owner, _ *dpop.Key) (*http.Request, dpop.Reason) {
			w.put(owner, func(rec *tokenstore.Record) { rec.ExpiresAt = start })
			return w.bearer(owner), dpop.SchemeUnsupported
		},
		"a token for another audience": func(w *wiredRig, owner, _ *dpop.Key) (*http.Request, dpop.Reason) {
			w.put(owner, func(rec *tokenstore.Record) { rec.Audience = []string{"https://elsewhere.test"} })
			return w.bearer(owner), dpop.SchemeUnsupported
		},
		"a token that is stored as Bearer": func(w *wiredRig, owner, _ *dpop.Key) (*http.Request, dpop.Reason) {
			w.put(owner, func(rec *tokenstore.Record) { rec.TokenType, rec.DPoPJKT = tokenstore.Bearer, "" })
			return w.bearer(owner), dpop.SchemeUnsupported
		},
		"a token that the cache believes bound to the key before": func(w *wiredRig, owner, thief *dpop.Key) (*http.Request, dpop.Reason) {
			w.lookups.put("T1", bound(thief.Thumbprint(), "items:read")) // which is the owner's new key
			return w.signed(thief, dpop.Claims{}), dpop.KeyNotBound
		},
		"no credentials": func(w *wiredRig, owner, _ *dpop.Key) (*http.Request, dpop.Reason) {
			r := w.bearer(owner)
			r.Header.Del("Authorization")
			return r, dpop.CredentialsMissing
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, owner, thief := newWired(t, "base", nil)
			r, reason := noise(w, owner, thief)
			w.refused(r, reason)
			assert.Empty(t, w.misused())
		})
	}
}

func TestRepeatedProofByAnotherKeyIsOneMisuse(t *testing.T) {
	w, _, thief := newWired(t, "base", nil)
	r := w.signed(thief, dpop.Claims{})
	for range 3 {
		w.refused(r, dpop.KeyNotBound)
	}
	assert.Len(t, w.misused(), 1)
}

func TestMisuseOfATokenIsLookedIntoOnlySoOften(t *testing.T) {
	w, owner, _ := newWired(t, "base", nil)
	for range 7 {
		w.refused(w.bearer(owner), dpop.SchemeUnsupported)
		require.Eventually(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.heard) == w.told() }, 10*time.Second, time.Millisecond)
	}
	w.offset.Add(int64(time.Minute))
	w.refused(w.bearer(owner), dpop.SchemeUnsupported)
	var confirmed []bool
	for _, m := range w.misused() {
		confirmed = append(confirmed, m.Confirmed)
	}
	assert.Equal(t, []bool{true, true, true, true, false, false, false, true}, confirmed)
	assert.Equal(t, 5, w.lookups.lookups)
}

// Whoever makes tokens up has the store asked ten times a second, and no signature checked.
func TestTokensThatAreMadeUpAreLookedIntoOnlySoOften(t *testing.T) {
	w, owner, thief := newWired(t, "base", nil)
	for i := range 50 {
		r := w.bearer(owner)
		r.Header.Set("Authorization", fmt.Sprintf("Bearer made-up-%d", i))
		w.refused(r, dpop.SchemeUnsupported)
		w.refused(w.signed(thief, dpop.Claims{Token: fmt.Sprintf("made-up-%d", i)}), proxy.TokenUnknown)
	}
	for _, m := range w.misused() {
		assert.False(t, m.Confirmed)
	}
	assert.LessOrEqual(t, w.lookups.lookups, 10, "the clock of the rig stands still")
}

func TestMisuseThatCannotBeLookedIntoIsToldAsThat(t *testing.T) {
	w, owner, _ := newWired(t, "base", nil)
	w.lookups.fail = errors.New("the store is away")
	w.refused(w.bearer(owner), dpop.SchemeUnsupported)
	heard := w.misused()
	require.Len(t, heard, 1)
	assert.False(t, heard[0].Confirmed)
	assert.ErrorIs(t, heard[0].Err, w.lookups.fail)
}

package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// The client and the user that the demo's tokens are for.
var (
	demoClient = uuid.MustParse("c11e4700-0000-4000-8000-000000000001")
	demoUser   = uuid.MustParse("a11ce000-0000-4000-8000-000000000002")
)

const (
	demoLife  = 24 * time.Hour // of a token: longer than anybody looks at a demo
	maxTokens = 1000           // that pages get from one demo; each loading of the page takes one
)

// demoIssuer stands in for an authorization server: it inserts tokens that are bound to a key and may read orders.
type demoIssuer struct {
	store    tokenstore.Store
	digester tokenstore.Digester
	given    atomic.Int64 // how many pages have asked for one
}

// issue inserts a token that is bound to the key with that thumbprint.
func (i *demoIssuer) issue(ctx context.Context, jkt string) (tokenstore.Token, error) {
	token := tokenstore.NewToken()
	return token, i.store.Insert(ctx, &tokenstore.Record{
		Digest:    i.digester.Digest(token),
		ClientID:  demoClient,
		UserID:    uuid.NullUUID{UUID: demoUser, Valid: true},
		TokenType: tokenstore.DPoP,
		DPoPJKT:   jkt,
		Scopes:    []string{"orders:read"},
		ExpiresAt: time.Now().Add(demoLife),
	})
}

// ServeHTTP gives a page a token for its own key, whose thumbprint is in the query. It asks nobody who they are: the
// demo can be reached from this machine only, and its token is good for its sample API only. The answers are as
// RFC 6749 §5 has them.
func (i *demoIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	type refused struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	jkt := r.URL.Query().Get("jkt")
	if !isThumbprint(jkt) {
		answerJSON(w, http.StatusBadRequest, refused{"invalid_request", "jkt: want an RFC 7638 thumbprint, 43 characters of base64url"})
		return
	}
	if i.given.Add(1) > maxTokens {
		answerJSON(w, http.StatusTooManyRequests, refused{
			"temporarily_unavailable", fmt.Sprintf("this demo has given %d tokens to pages, which is all: start it again", maxTokens),
		})
		return
	}
	token, err := i.issue(r.Context(), jkt)
	if err != nil {
		answerJSON(w, http.StatusServiceUnavailable, refused{"temporarily_unavailable", "the token cannot be stored now, try again"})
		return
	}
	answerJSON(w, http.StatusOK, struct {
		Token   string `json:"access_token"`
		Type    string `json:"token_type"`
		Expires int    `json:"expires_in"`
		Scope   string `json:"scope"`
	}{string(token), dpop.SchemeDPoP, int(demoLife.Seconds()), "orders:read"})
}

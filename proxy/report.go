package proxy

import (
	"context"

	"github.com/google/uuid"

	"github.com/dpopgate/dpopgate/tokenstore"
)

// pardons says whether the route lets a request through that a check has failed: in mode report nothing is refused for
// who asks or how often. What is wrong with the request itself is refused all the same.
func (x *exchange) pardons(f *refusal) bool { return f.pardonable && x.route.report }

// pardon turns a refusal on a route in mode report into a note on the event. The upstream is not told who calls unless
// that was established. A challenge is never sent, so no nonce can be asked for.
func (x *exchange) pardon(ctx context.Context, f *refusal) *refusal {
	if f == nil || !x.pardons(f) {
		return f
	}
	x.event.Would, x.event.Err = f.reason, f.err
	if f.reason != RateLimited {
		x.record = nil
	}
	if f.reason != TokenUnknown && f.reason != StoreUnavailable {
		x.name(ctx)
	}
	return nil
}

// name finds out whose token came with a request that failed before that was asked, as an operator wants to know who would
// break. Nothing is decided by it: whoever has a token can make it say so.
func (x *exchange) name(ctx context.Context) {
	if x.token == "" || x.event.TokenID != uuid.Nil {
		return
	}
	if rec, err := x.o.Tokens.Lookup(ctx, x.o.Digester.Digest(tokenstore.Token(x.token))); err == nil {
		x.event.TokenID, x.event.ClientID, x.event.UserID = rec.JTI, rec.ClientID, rec.UserID
	}
}

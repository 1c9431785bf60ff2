package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// MisuseKind is how a bound token was misused.
type MisuseKind string

// The kinds of misuse.
const (
	ShownAsBearer MisuseKind = "bearer"    // without a proof, as if it were not bound
	OtherKey      MisuseKind = "other_key" // with a proof that is valid, but by another key than its own
	ProofAgain    MisuseKind = "replay"    // with a valid proof that had been used before
)

// Misuse is a live bound token in the wrong hands, or an overheard request that was sent again. Where it is not
// Confirmed, there was no time or no way to find out: then it may as well be noise, and nothing is known of the token.
type Misuse struct {
	Time      time.Time
	Kind      MisuseKind
	Confirmed bool
	// Revoke says that the token is to end: config misuse, but never for a replay nor on a route in mode report.
	Revoke bool

	RequestID, Route, Client string // Client is the address that it came from

	Digest   tokenstore.Digest
	TokenID  uuid.UUID
	ClientID uuid.UUID
	UserID   uuid.NullUUID
	Bound    dpop.Thumbprint // of the key that the token is bound to
	Shown    dpop.Thumbprint // of the key that made the proof; empty for ShownAsBearer

	Err error // why it could not be found out
}

// The bounds of finding out. Whoever has no token can make the gateway do so much and no more: some lookups and, with a
// live token at hand, some signature checks.
const (
	misusePerSecond = 10 // looked into, of all tokens
	misusePerMinute = 4  // of one token
	misuseAtATime   = 4
	misuseTimeout   = 5 * time.Second
)

// tripwire finds out, once a refused request has been answered, whether its token has been stolen.
//
// Noise does not spring it. The record is read from the store itself: what the cache still holds of a token that the
// authorization server has just bound to another key would accuse its owner. Then the token must be live, bound, and good
// on the route; and a proof by another key must have passed every check that one by the right key passes, its signature
// and its first use included. Proofs that are stale, forged or repeated are nobody's misuse.
type tripwire struct {
	o    *Options
	ctx  context.Context // ends with stop
	stop context.CancelFunc

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
	busy    int
	second  time.Time // when inSecond began
	minute  time.Time // when inMinute began
	inSec   int
	inMin   map[tokenstore.Digest]int // bounded by misusePerSecond
}

func newTripwire(o *Options) *tripwire {
	t := &tripwire{o: o, inMin: map[tokenstore.Digest]int{}}
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t
}

// close ends what is being looked into.
func (t *tripwire) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.stop()
	t.running.Wait()
}

// suspicion is a refused request whose token may have been stolen.
type suspicion struct {
	Misuse
	proof    *dpop.Proof // nil for ShownAsBearer
	accepted dpop.Accepted
	verifier *dpop.Verifier
	route    *route
	origin   *origin
}

// suspect notes that a request is worth looking into. proof is nil for ShownAsBearer.
func (x *exchange) suspect(kind MisuseKind, token string, proof *dpop.Proof) {
	if x.o.Misuse == nil {
		return
	}
	s := &suspicion{proof: proof, accepted: x.accepted, verifier: x.table.verifier, route: x.route, origin: x.origin}
	s.Kind, s.Digest = kind, x.o.Digester.Digest(tokenstore.Token(token))
	s.Revoke = x.table.revoke && !x.route.report && kind != ProofAgain
	if proof != nil {
		s.Shown = proof.Thumbprint
	}
	x.suspicion = s
}

// after looks into a suspicion. The request has been answered: nothing of this can be seen in the answer.
func (t *tripwire) after(x *exchange) {
	s := x.suspicion
	if s == nil {
		return
	}
	s.Time, s.RequestID, s.Route, s.Client = x.now, x.event.RequestID, x.event.Route, x.event.Client
	switch t.admit(s.Digest, t.o.Now()) {
	case admitted:
		go func() {
			defer t.leave()
			ctx, cancel := context.WithTimeout(t.ctx, misuseTimeout)
			defer cancel()
			if s.find(ctx, t.o) {
				t.o.Misuse(ctx, &s.Misuse)
			}
		}()
	case tooMuch:
		t.o.Misuse(t.ctx, &s.Misuse)
	}
}

// admission is what becomes of a suspicion.
type admission int

const (
	admitted admission = iota
	tooMuch            // to be counted, and no more
	tooLate            // the gateway is closed
)

// admit says whether there is time to look into a token at now. What is admitted must leave.
func (t *tripwire) admit(d tokenstore.Digest, now time.Time) admission {
	t.mu.Lock()
	defer t.mu.Unlock()
	if since(now, t.second) >= time.Second || now.Before(t.second) {
		t.second, t.inSec = now, 0
	}
	if since(now, t.minute) >= time.Minute || now.Before(t.minute) {
		t.minute = now
		clear(t.inMin)
	}
	switch {
	case t.closed:
		return tooLate
	case t.busy >= misuseAtATime, t.inSec >= misusePerSecond, t.inMin[d] >= misusePerMinute:
		return tooMuch
	}
	t.busy++
	t.inSec++
	t.inMin[d]++
	t.running.Add(1)
	return admitted
}

func (t *tripwire) leave() {
	t.mu.Lock()
	t.busy--
	t.mu.Unlock()
	t.running.Done()
}

// find says whether there is something to tell: a misuse, or that it could not be found out.
func (s *suspicion) find(ctx context.Context, o *Options) bool {
	rec, err := o.fresh().Lookup(ctx, s.Digest)
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		return false
	case err != nil:
		s.Err = err
		return true
	case rec.Expired(o.Now()), !rec.Bound(), !s.route.serves(rec.Audience, s.origin):
		return false
	}
	if s.Kind == OtherKey {
		if dpop.CheckKey(s.proof, dpop.Thumbprint(rec.DPoPJKT)) == nil || s.proof.VerifySignature() != nil {
			return false
		}
		if err := s.verifier.Claim(ctx, s.proof, s.accepted); err != nil {
			s.Err = err
			return dpop.AsError(err) == nil // else it is a repetition
		}
	}
	s.Confirmed = true
	s.TokenID, s.ClientID, s.UserID, s.Bound = rec.JTI, rec.ClientID, rec.UserID, dpop.Thumbprint(rec.DPoPJKT)
	return true
}

// fresh is where a record is read that no memory may answer for.
func (o *Options) fresh() Lookuper {
	if o.Fresh != nil {
		return o.Fresh
	}
	return o.Tokens
}

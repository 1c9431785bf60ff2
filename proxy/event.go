package proxy

import (
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/google/uuid"
)

// Verdict is what the gateway decided about a request.
type Verdict string

// The verdicts.
const (
	Passed  Verdict = "passed"  // forwarded
	Refused Verdict = "refused" // answered by the gateway; the upstream saw nothing
	Failed  Verdict = "failed"  // forwarded or to be forwarded, but the upstream did not answer
)

// Event is what happened to one request, in bounded words and without secrets: the one source of logs, metrics and
// traces. It is handed out once the response is complete.
type Event struct {
	Time            time.Time
	RequestID       string
	TraceID, SpanID string      // of the trace that it is part of, and of its span there; empty without Tracing
	Route           string      // the pattern that matched; empty for none
	Verdict         Verdict     //
	Reason          dpop.Reason // why it was refused, failed, or ended early; empty when it passed
	Would           dpop.Reason // why it would have been refused, on a route in mode report; empty when it would not
	Asker           string      // the kind of proxy that asked for the decision alone; empty for a request to forward
	Status          int
	Challenged      bool  // the answer asks for a proof with a nonce
	Written         int64 // bytes of the response body

	Method, Host, Path, Protocol, Client string // as the client sent them; Client is its address, behind trusted proxies too
	Scheme                               string // DPoP or Bearer, once read

	// Of the proof, once parsed.
	Thumbprint dpop.Thumbprint
	Algorithm  dpop.Algorithm
	Offset     time.Duration // iat minus now

	// Of the token, once found.
	TokenID  uuid.UUID
	ClientID uuid.UUID
	UserID   uuid.NullUUID

	Duration time.Duration // of the whole request
	Auth     time.Duration // until the decision
	Upstream time.Duration // until the upstream's response header
	Target   string        // URL of the server that it was sent to, the last one if there were several

	Err error // what failed inside, for the operator; nil for refusals that are the client's doing
}

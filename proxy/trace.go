package proxy

import "net/http"

// Tracing follows requests through the gateway. It may be used concurrently.
type Tracing interface {
	// Begin is called for each request, before anything is decided about it. believed says that the request comes from a
	// trusted proxy, whose word on what it is part of counts.
	Begin(r *http.Request, believed bool) Trace
}

// Trace is one request that is followed. Its methods are called one after the other.
type Trace interface {
	// IDs name the trace and the span, for the log.
	IDs() (trace, span string)
	// Step begins a step of the decision. What it returns ends it, with what went wrong, if anything did.
	Step(s Step) (end func(error))
	// Try begins an attempt to have a target answer r, and writes into r's header what it is part of. What it returns ends
	// it, with the answer or an error.
	Try(r *http.Request) (end func(*http.Response, error))
	// End is told what became of the request.
	End(e *Event)
}

// Step is a step of the decision about a request.
type Step string

// The steps that are followed.
const (
	StepCheck  Step = "check"  // of the proof: its shape and its claims
	StepLookup Step = "lookup" // of the token
	StepVerify Step = "verify" // the proof's signature
	StepClaim  Step = "claim"  // of the proof's one use
)

// step begins a step. Without Tracing it costs a comparison.
func (x *exchange) step(s Step) func(error) {
	if x.trace == nil {
		return notTraced
	}
	return x.trace.Step(s)
}

func notTraced(error) {}

// try begins an attempt at a target.
func (x *exchange) try(r *http.Request) func(*http.Response, error) {
	if x.trace == nil {
		return notTried
	}
	return x.trace.Try(r)
}

func notTried(*http.Response, error) {}

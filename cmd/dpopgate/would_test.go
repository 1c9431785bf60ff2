package main

import (
	"net/http/httptest"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
)

func TestWhatWouldBeRefusedIsCountedByClient(t *testing.T) {
	m := newMetrics()
	client := uuid.MustParse("6f1c1c6e-7d5b-4d0a-9c55-0f2f4e3f0a01")
	scrape := func() string {
		w := httptest.NewRecorder()
		m.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		return w.Body.String()
	}
	m.observe(&proxy.Event{Route: "/", Verdict: proxy.Passed})
	assert.NotContains(t, scrape(), "dpopgate_would_refuse_total{")
	for range 2 {
		m.observe(&proxy.Event{Route: "/", Verdict: proxy.Passed, Would: dpop.ProofReplayed, ClientID: client})
	}
	m.observe(&proxy.Event{Route: "/", Verdict: proxy.Passed, Would: dpop.CredentialsMissing})
	text := scrape()
	assert.Contains(t, text, `dpopgate_would_refuse_total{client_id="6f1c1c6e-7d5b-4d0a-9c55-0f2f4e3f0a01",reason="proof_replayed",route="/"} 2`)
	assert.Contains(t, text, `dpopgate_would_refuse_total{client_id="",reason="credentials_missing",route="/"} 1`)
	for range maxReportedClients + 10 {
		m.observe(&proxy.Event{Route: "/", Verdict: proxy.Passed, Would: dpop.ProofMissing, ClientID: uuid.New()})
	}
	assert.Len(t, m.would.clients, maxReportedClients)
	assert.Contains(t, scrape(), `dpopgate_would_refuse_total{client_id="other",reason="proof_missing",route="/"} 11`)
}

func TestWhatWouldBeRefusedIsLoggedEvenWithoutAccess(t *testing.T) {
	line := logged(t, false, &proxy.Event{Verdict: proxy.Passed, Would: dpop.ProofReplayed, Status: 200})
	assert.Equal(t, "WARN", line["level"])
	assert.Equal(t, "passed", line["verdict"])
	assert.Equal(t, "proof_replayed", line["would_refuse"])
}

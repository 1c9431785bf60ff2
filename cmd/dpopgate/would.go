package main

import (
	"sync"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dpopgate/dpopgate/proxy"
)

// maxReportedClients bounds the series: clients beyond it are counted together.
const maxReportedClients = 1000

// wouldRefuse counts what routes in mode report let through and would have refused, by client, so that whoever wants to
// enforce sees who would break.
type wouldRefuse struct {
	total   *prometheus.CounterVec
	mu      sync.Mutex
	clients map[uuid.UUID]bool
}

func newWouldRefuse() *wouldRefuse {
	return &wouldRefuse{
		total:   newCounter("dpopgate_would_refuse_total"),
		clients: map[uuid.UUID]bool{},
	}
}

func (c *wouldRefuse) observe(e *proxy.Event) {
	if e.Would != "" {
		c.total.WithLabelValues(e.Route, string(e.Would), c.label(e.ClientID)).Inc()
	}
}

// label is a client_id, which comes from the token table and not from a request.
func (c *wouldRefuse) label(id uuid.UUID) string {
	if id == uuid.Nil {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.clients[id] {
		if len(c.clients) >= maxReportedClients {
			return "other"
		}
		c.clients[id] = true
	}
	return id.String()
}

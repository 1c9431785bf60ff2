package tokenstore

import "time"

// Later has the dials so far lie that much longer ago.
func (p *Postgres) Later(d time.Duration) {
	g := p.pool.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now
	g.now = func() time.Time { return now().Add(d) }
}

// ParseNotice is parseNotice.
func ParseNotice(payload string) Change { return parseNotice(payload) }

// Behind says whether lookups go to the primary.
func (p *Postgres) Behind() bool { return p.reads() == p.primary }

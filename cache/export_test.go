package cache

import (
	"context"
	"time"
)

// SetSlack changes how far clocks may be apart, before the first use.
func (p *PostgresProofs) SetSlack(d time.Duration) { p.slack = d }

// SetSlack changes how far clocks may be apart, before the first use.
func (p *ValkeyProofs) SetSlack(d time.Duration) { p.slack = d }

// Purge deletes what the background would delete.
func (p *PostgresProofs) Purge(ctx context.Context) (int64, error) { return p.purge(ctx) }

var (
	ErrClocks = errClocks
	ErrUnsure = errUnsure
)

package main

import (
	"context"
	"log/slog"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
)

// sharedReplay is a memory of used proofs that several instances share.
type sharedReplay interface {
	dpop.Replay
	// Ping asks for what a Claim asks for, and takes nothing.
	Ping(ctx context.Context) error
	// Check is Ping, and then says what could make the store forget used proofs.
	Check(ctx context.Context) (doubts []string, err error)
	Close() error
}

// openReplay is the shared store that a config names, or nil where this process remembers used proofs by itself. The
// store may be down: it is only reached when a proof is claimed.
func openReplay(c *config.Config, log *slog.Logger, read again) (sharedReplay, error) {
	switch c.DPoP.Replay {
	case "memory":
		return nil, nil
	case "postgres":
		return openPostgresProofs(c, log, read)
	}
	return cache.OpenValkeyProofs(string(c.DPoP.Replay), cache.ValkeyProofsOptions{Timeout: c.Store.Timeout.Std(), Log: log})
}

func openPostgresProofs(c *config.Config, log *slog.Logger, read again) (*cache.PostgresProofs, error) {
	return cache.OpenPostgresProofs(string(c.Store.Postgres), cache.PostgresProofsOptions{
		TokenTable: c.Store.Table,
		Timeout:    c.Store.Timeout.Std(),
		Log:        log,
		Again:      read.postgres(),
	})
}

// fallBack has this process take proofs by itself while the shared replay store does not answer. That store being away
// does not make the process unready then.
func (s *server) fallBack(own *cache.Proofs) (dpop.Replay, *dpop.Fallback) {
	s.watched = cache.WatchProofs(s.replay, s.log)
	s.metrics.watchFallback(s.watched)
	s.ready.mention("replay store", func() string {
		if s.watched.Away() {
			return "away: proofs are taken with nonces of this instance alone"
		}
		return "ok"
	})
	return s.metrics.timeReplay(s.watched), &dpop.Fallback{
		Nonces: dpop.NewOwnNonces(s.config.DPoP.NonceTTL.Std()),
		Replay: own,
		Away:   s.watched.Away,
	}
}

package main

import (
	"context"
	"log/slog"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// What became of a misuse.
const (
	misuseLogged     = "logged"
	misuseRevoked    = "revoked"     // the token, which was there
	misuseTooLate    = "gone"        // the token to revoke, meanwhile
	misuseFailed     = "failed"      // to revoke the token
	misuseUnexamined = "unconfirmed" // there was no time or no way to find out
)

// newMisuse counts misuse, by kind and what became of it.
func (m *metrics) newMisuse() *prometheus.CounterVec {
	total := newCounter("dpopgate_misuse_total")
	for _, kind := range []proxy.MisuseKind{proxy.ShownAsBearer, proxy.OtherKey, proxy.ProofAgain} {
		for _, result := range []string{misuseLogged, misuseUnexamined} {
			total.WithLabelValues(string(kind), result)
		}
		if kind != proxy.ProofAgain {
			total.WithLabelValues(string(kind), misuseRevoked)
			total.WithLabelValues(string(kind), misuseFailed)
		}
	}
	m.registry.MustRegister(total)
	return total
}

// misused tells of a misuse, and ends the token if the config says so.
func (s *server) misused(ctx context.Context, m *proxy.Misuse) {
	result, err := misuseLogged, m.Err
	switch {
	case !m.Confirmed:
		s.misuse.WithLabelValues(string(m.Kind), misuseUnexamined).Inc()
		s.tally.misused(m.Kind, misuseUnexamined)
		return
	case m.Revoke:
		result, err = s.revoke(ctx, m)
	}
	s.misuse.WithLabelValues(string(m.Kind), result).Inc()
	s.tally.misused(m.Kind, result)
	event := auditMisuse
	if m.Kind == proxy.ProofAgain {
		event = auditReplay
	}
	attrs := []slog.Attr{
		slog.String("kind", string(m.Kind)), slog.String("result", result),
		slog.String("request_id", clip(m.RequestID)), slog.String("route", m.Route), slog.String("client_address", clip(m.Client)),
		slog.String("token_id", m.TokenID.String()), slog.String("client_id", m.ClientID.String()),
	}
	if m.UserID.Valid {
		attrs = append(attrs, slog.String("user_id", m.UserID.UUID.String()))
	}
	attrs = append(attrs, slog.String("bound_jkt", string(m.Bound)))
	if m.Shown != "" {
		attrs = append(attrs, slog.String("shown_jkt", string(m.Shown)))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", plainError(err)))
	}
	s.log.LogAttrs(ctx, slog.LevelWarn, map[auditEvent]string{
		auditMisuse: "token misused: it may be stolen", auditReplay: "proof used again: it may have been overheard",
	}[event], attrs...)
	s.audit.write(event, attrs...)
}

// revoke ends the token, unless it has meanwhile been bound to another key.
func (s *server) revoke(ctx context.Context, m *proxy.Misuse) (result string, err error) {
	bound := string(m.Bound)
	gone, err := s.store.Revoke(ctx, tokenstore.Selector{Digest: &m.Digest, Thumbprint: &bound})
	switch {
	case err != nil:
		return misuseFailed, err
	case len(gone) == 0:
		return misuseTooLate, nil
	}
	s.forget(tokenstore.Change{Digests: gone, Deleted: true})
	return misuseRevoked, nil
}

// tryMisuse says why misuse: revoke could not revoke, for validate.
func tryMisuse(ctx context.Context, c *config.Config) error {
	store, err := openStore(ctx, c.Store, nil, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	if p, ok := store.(*tokenstore.Postgres); ok {
		return p.MayRevoke(ctx)
	}
	return nil
}

// auditIDs are the ids of a selection that are set.
func auditIDs(sel tokenstore.Selector) []slog.Attr {
	var attrs []slog.Attr
	for _, at := range []struct {
		key string
		id  *uuid.UUID
	}{{"token_id", sel.JTI}, {"user_id", sel.User}, {"client_id", sel.Client}} {
		if at.id != nil {
			attrs = append(attrs, slog.String(at.key, at.id.String()))
		}
	}
	return attrs
}

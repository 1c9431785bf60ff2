package main

import (
	"errors"
	"log/slog"
	"reflect"

	"github.com/dpopgate/dpopgate/config"
)

// reload puts the file in force as it is now, or changes nothing and says why.
func (s *server) reload() {
	if s.certs != nil {
		s.certs.source.reread()
	}
	if err := s.audit.reopen(); err != nil {
		s.log.Error("the audit stream stays as it is", "error", oneLine(err))
	}
	c, err := config.Load(s.path)
	if err == nil {
		err = s.gateway.Reload(c)
	}
	if err != nil {
		s.logRefused(err)
		s.audit.write(auditConfigRefused, slog.String("config", s.path), slog.String("error", oneLine(err)))
		return
	}
	s.metrics.expect(s.gateway.Routes())
	setLevel(s.level, c.Log)
	s.access.all.Store(c.Log.Access)
	s.access.sample.Store(int64(c.Log.Sample))
	s.audit.write(auditConfigReloaded, slog.String("config", s.path), slog.Int("routes", len(c.Routes)))
	s.log.Info("config reloaded", "config", s.path, "routes", len(c.Routes))
	if keys := needRestart(s.config, c); len(keys) > 0 {
		s.log.Warn("config has changes that need a restart", "keys", keys)
	}
}

// logRefused writes a line for everything that is wrong with the file.
func (s *server) logRefused(err error) {
	log := s.log.With("config", s.path)
	const message = "config not reloaded, the old one stays"
	var all config.Errors
	if !errors.As(err, &all) {
		log.Error(message, "error", oneLine(err))
	}
	for _, e := range all {
		log.Error(message, "line", e.Line, "column", e.Column, "key", e.Key, "error", e.Message, "hint", e.Hint)
	}
}

// tlsAtStart is what of a config certificates are made from.
func tlsAtStart(c *config.Config) any {
	if c.TLS == nil {
		return nil
	}
	t := *c.TLS
	t.HSTS = 0 // is read by the gateway, which reloads
	return []any{t, c.PublicHosts()}
}

// needRestart names the keys that differ and that a running process cannot change.
func needRestart(running, c *config.Config) []string {
	var keys []string
	for _, k := range []struct {
		name    string
		was, is any
	}{
		{"listen", running.Listen, c.Listen},
		{"admin", running.Admin, c.Admin},
		{"tls", tlsAtStart(running), tlsAtStart(c)},
		{"store", running.Store, c.Store},
		{"cache", running.Cache, c.Cache},
		{"dpop.replay", running.DPoP.Replay, c.DPoP.Replay},
		{"dpop.replay_memory", running.DPoP.ReplayMemory, c.DPoP.ReplayMemory},
		{"dpop.key_tables", running.DPoP.KeyTables, c.DPoP.KeyTables},
		{"log.format", running.Log.Format, c.Log.Format},
		{"log.audit", running.Log.Audit, c.Log.Audit},
		{"tracing", running.Tracing, c.Tracing},
		{"limits", running.Limits, c.Limits},
	} {
		if !reflect.DeepEqual(k.was, k.is) {
			keys = append(keys, k.name)
		}
	}
	return keys
}

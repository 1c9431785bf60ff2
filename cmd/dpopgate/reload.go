package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/dpopgate/dpopgate/config"
)

// configInterval is how often the config file, and those that it names by ${file:}, are looked at. They are small and are
// read whole: whatever replaces them, and however, is seen, symbolic links that change direction included.
const configInterval = time.Second

// reloads is what has become of the config file since the start. Its owner is the goroutine that reloads; the atomic
// fields are for everybody.
type reloads struct {
	seen    [sha256.Size]byte // what is in force, or was refused
	next    [sha256.Size]byte // what the last look saw
	refused atomic.Bool       // the file as it was last read
	taken   atomic.Int64      // when one was last put in force, in Unix seconds
}

// state is the word for a status page.
func (r *reloads) state() string {
	if r.refused.Load() {
		return "refused: the one before is in force"
	}
	return "ok"
}

// watchReloads shows what becomes of the config file, which has just been put in force.
func (s *server) watchReloads() {
	s.reloads.taken.Store(time.Now().Unix())
	s.metrics.watchReloads(&s.reloads)
	s.ready.mention("config file", s.reloads.state)
}

// lookAtConfig reloads when the files of the config have changed, and then stayed as they are from one look to the next:
// who is still writing is waited for.
func (s *server) lookAtConfig() {
	now := config.Fingerprint(s.path)
	settled := now == s.reloads.next
	s.reloads.next = now
	if settled && now != s.reloads.seen {
		s.reload("the file changed")
	}
}

// reload puts the file in force as it is now, or changes nothing and says why.
func (s *server) reload(cause string) {
	s.init.reloading()
	defer s.init.notify(daemon.SdNotifyReady)
	if s.certs != nil {
		s.certs.source.reread()
	}
	if err := s.audit.reopen(); err != nil {
		s.log.Error("the audit stream stays as it is", "error", oneLine(err))
	}
	s.reloads.seen = config.Fingerprint(s.path) // before it is read: a change after this is seen by the next look
	c, err := config.Load(s.path)
	if err == nil {
		err = s.gateway.Reload(c)
	}
	s.reloads.refused.Store(err != nil)
	if err != nil {
		s.logRefused(err)
		s.audit.write(auditConfigRefused, slog.String("config", s.path), slog.String("error", oneLine(err)))
		return
	}
	s.reloads.taken.Store(time.Now().Unix())
	s.metrics.expect(s.gateway.Routes())
	setLevel(s.level, c.Log)
	s.access.all.Store(c.Log.Access)
	s.access.sample.Store(int64(c.Log.Sample))
	s.audit.write(auditConfigReloaded, slog.String("config", s.path), slog.Int("routes", len(c.Routes)))
	s.log.Info("config reloaded", "cause", cause, "config", s.path, "routes", len(c.Routes))
	inPlace, stopped := needRestart(s.config, c)
	s.reloaded.Store(&reloadOutcome{At: time.Now(), OK: true, Restart: slices.Concat(inPlace, stopped)})
	if len(inPlace) > 0 {
		s.log.Warn("config has changes that need a restart", "keys", inPlace, "hint", "SIGUSR2 restarts in place, without losing a request")
	}
	if len(stopped) > 0 {
		s.log.Warn("config has changes that need a stop and a start", "keys", stopped)
	}
}

// logRefused writes a line for everything that is wrong with the file.
func (s *server) logRefused(err error) {
	log := s.log.With("config", s.path)
	const message = "config not reloaded, the old one stays"
	outcome := &reloadOutcome{At: time.Now()}
	defer s.reloaded.Store(outcome)
	var all config.Errors
	if !errors.As(err, &all) {
		log.Error(message, "error", oneLine(err))
	}
	for _, e := range all {
		if len(outcome.Mistakes) < maxShown {
			outcome.Mistakes = append(outcome.Mistakes, fmt.Sprintf("line %d, column %d", e.Line, e.Column))
		}
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

// needRestart names the keys that differ and that a running process cannot change: those that a restart in place puts in
// force, and those that want the gateway stopped, since the two memories of used proofs know nothing of each other.
func needRestart(running, c *config.Config) (inPlace, stopped []string) {
	for _, k := range []struct {
		name    string
		was, is any
	}{
		{"listen", running.Listen, c.Listen},
		{"admin", running.Admin, c.Admin},
		{"tls", tlsAtStart(running), tlsAtStart(c)},
		{"store", running.Store, c.Store},
		{"cache", running.Cache, c.Cache},
		{"dpop.replay_on_error", running.DPoP.ReplayOnError, c.DPoP.ReplayOnError},
		{"dpop.replay_memory", running.DPoP.ReplayMemory, c.DPoP.ReplayMemory},
		{"dpop.key_tables", running.DPoP.KeyTables, c.DPoP.KeyTables},
		{"log.format", running.Log.Format, c.Log.Format},
		{"log.audit", running.Log.Audit, c.Log.Audit},
		{"tracing", running.Tracing, c.Tracing},
		{"limits", running.Limits, c.Limits},
	} {
		if !reflect.DeepEqual(k.was, k.is) {
			inPlace = append(inPlace, k.name)
		}
	}
	if running.DPoP.Replay != c.DPoP.Replay {
		stopped = append(stopped, "dpop.replay")
	}
	return inPlace, stopped
}

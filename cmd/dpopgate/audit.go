package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dpopgate/dpopgate/config"
)

// auditEvent is what happened, in one word of a closed set.
type auditEvent string

// The security events. The page logs has their fields.
const (
	auditStarted        auditEvent = "started"
	auditStopped        auditEvent = "stopped"
	auditMisuse         auditEvent = "misuse"
	auditReplay         auditEvent = "replay"
	auditConfigReloaded auditEvent = "config_reloaded"
	auditConfigRefused  auditEvent = "config_refused"
	auditTokenIssued    auditEvent = "token_issued"
	auditTokensRevoked  auditEvent = "tokens_revoked"
	auditTokensPurged   auditEvent = "tokens_purged"
)

// auditLog is the stream of security events: JSON, one line each, apart from the log. It may be used concurrently. What
// cannot be written stops nothing: it is counted, and said once in the log until it works again. nil writes nothing.
type auditLog struct {
	name     string // log.audit; empty: events go nowhere but to the log
	log      *slog.Logger
	failures atomic.Uint64

	mu     sync.Mutex
	file   *os.File // nil: name is a standard stream
	lines  slog.Handler
	failed bool // so was the last write
}

// openAudit opens log.audit. stdout and stderr are those of the process.
func openAudit(name string, e *env, log *slog.Logger) (*auditLog, error) {
	a := &auditLog{name: name, log: log}
	switch name {
	case "":
	case "stdout":
		a.lines = auditLines(e.stdout)
	case "stderr":
		a.lines = auditLines(e.stderr)
	default:
		if err := a.reopen(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// auditLines writes a record as the page logs has it.
func auditLines(w io.Writer) slog.Handler {
	return slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: func(_ []string, at slog.Attr) slog.Attr {
		switch at.Key {
		case slog.LevelKey:
			return slog.Attr{}
		case slog.MessageKey:
			at.Key = "event"
		}
		return at
	}})
}

// reopen opens the file anew, as who moves old lines away wants it. When that fails, the one before stays in use.
func (a *auditLog) reopen() error {
	if a.name == "" || a.name == "stdout" || a.name == "stderr" {
		return nil
	}
	f, err := os.OpenFile(a.name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("log.audit: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != nil {
		a.file.Close()
	}
	a.file, a.lines = f, auditLines(f)
	return nil
}

// write tells of an event. The error has been counted and logged.
func (a *auditLog) write(event auditEvent, attrs ...slog.Attr) error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lines == nil {
		return nil
	}
	r := slog.NewRecord(time.Now(), slog.LevelInfo, string(event), 0)
	r.AddAttrs(attrs...)
	err := a.lines.Handle(context.Background(), r)
	if err != nil {
		a.failures.Add(1)
		if !a.failed {
			a.log.Error("security events cannot be written", "log.audit", a.name, "error", oneLine(err))
		}
	} else if a.failed {
		a.log.Warn("security events can be written again, and some are missing", "log.audit", a.name)
	}
	a.failed = err != nil
	return err
}

// close closes the file.
func (a *auditLog) close() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file != nil {
		a.file.Close()
	}
	a.file, a.lines = nil, nil
}

// watchAudit shows how many events could not be written.
func (m *metrics) watchAudit(a *auditLog) {
	m.registry.MustRegister(counterOf("dpopgate_audit_failures_total", func() float64 { return float64(a.failures.Load()) }))
}

// auditCommand tells the audit stream of what a command has done, where that is a file: the standard streams are those
// of another process. Its error says that the deed has no line, and not that it was not done.
func auditCommand(c *config.Config, event auditEvent, attrs ...slog.Attr) error {
	if c.Log.Audit == "" || c.Log.Audit == "stdout" || c.Log.Audit == "stderr" {
		return nil
	}
	a, err := openAudit(c.Log.Audit, nil, slog.New(slog.DiscardHandler))
	if err == nil {
		defer a.close()
		err = a.write(event, append(attrs, slog.String("by", operator()))...)
	}
	if err != nil {
		return fmt.Errorf("done, but the audit stream does not know: %w", err)
	}
	return nil
}

// operator is who runs the command, by name where that can be told.
func operator() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprint(os.Getuid())
}

package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newZapLogger is a zap logger for certmagic that writes to slog. What certmagic calls information is how it goes about
// its work, and is for debugging here; what came of the work is logged by acmeCertificates.
func newZapLogger(log *slog.Logger) *zap.Logger { return zap.New(&zapCore{log: log}) }

// zapCore is a zapcore.Core in front of a slog.Logger.
type zapCore struct {
	log    *slog.Logger
	fields []zapcore.Field
}

// quieter are messages of errors that any stranger can cause, and of those that acmeCertificates logs itself.
var quieter = []string{
	"tls-alpn challenge", "looking up info for HTTP challenge",
	"could not get certificate from issuer", "job failed",
}

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Enabled implements zapcore.LevelEnabler.
func (c *zapCore) Enabled(l zapcore.Level) bool {
	return c.log.Enabled(context.Background(), slogLevel(l))
}

// With implements zapcore.Core.
func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	return &zapCore{c.log, append(slices.Clip(c.fields), fields...)}
}

// Check implements zapcore.Core.
func (c *zapCore) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return to.AddCore(e, c)
	}
	return to
}

// Write implements zapcore.Core.
func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	values := zapcore.NewMapObjectEncoder()
	for _, field := range append(slices.Clip(c.fields), fields...) {
		field.AddTo(values)
	}
	var attrs []slog.Attr
	for _, name := range slices.Sorted(maps.Keys(values.Fields)) {
		value := values.Fields[name]
		if d, ok := value.(time.Duration); ok {
			value = d.String()
		}
		attrs = append(attrs, slog.Any(name, value))
	}
	level := slogLevel(e.Level)
	if slices.Contains(quieter, e.Message) {
		level = slog.LevelDebug
	}
	c.log.LogAttrs(context.Background(), level, "certmagic: "+e.Message, attrs...)
	return nil
}

// Sync implements zapcore.Core.
func (c *zapCore) Sync() error { return nil }

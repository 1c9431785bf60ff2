package main

import (
	"io"
	"log"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dpopgate/dpopgate/config"
)

// newLogger is the log as the config wants it. Its level can be changed while it is in use.
func newLogger(w io.Writer, c config.Log) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	setLevel(level, c)
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "text" {
		return slog.New(slog.NewTextHandler(w, options)), level
	}
	return slog.New(slog.NewJSONHandler(w, options)), level
}

// setLevel sets the level that a config names. Validation lets only slog's own names through.
func setLevel(level *slog.LevelVar, c config.Log) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.Level)); err == nil {
		level.Set(l)
	}
}

// noiseLog takes what a net/http server says by itself.
func noiseLog(l *slog.Logger, listener string) *log.Logger {
	return log.New(noise{l.With("listener", listener), "listener said", new(rarely)}, "", 0)
}

// takeStandardLog makes lines of l of what libraries write to the standard log. net/http's transport does, with bytes of
// an upstream that sends more than was asked for.
func takeStandardLog(l *slog.Logger) {
	log.SetFlags(0)
	log.SetOutput(noise{l, "library said", new(rarely)})
}

// noise is where a server's noise goes: handshakes that fail and requests that cannot be read are everyday life on an
// open port, panics are not. What it says may hold bytes that a peer chose, so it is an attribute, which slog quotes.
type noise struct {
	log     *slog.Logger
	message string
	starved *rarely
}

func (n noise) Write(b []byte) (int, error) {
	said := strings.TrimSpace(string(b))
	switch {
	case strings.HasPrefix(said, "http: panic"):
		n.log.Error("handler panicked", "said", said)
	case strings.HasPrefix(said, "http: Accept error"): // which is tried again up to 200 times a second
		if n.starved.now() {
			n.log.Warn("no descriptor is left for another connection, those who come wait: raise the limit (LimitNOFILE, ulimit -n) or set limits.max_connections below it",
				"said", said)
		}
	default:
		n.log.Debug(n.message, "said", said)
	}
	return len(b), nil
}

// rarely says yes once in starvedInterval.
type rarely struct{ last atomic.Int64 }

const starvedInterval = time.Minute

func (r *rarely) now() bool {
	last, now := r.last.Load(), time.Now().UnixNano()
	return now-last >= int64(starvedInterval) && r.last.CompareAndSwap(last, now)
}

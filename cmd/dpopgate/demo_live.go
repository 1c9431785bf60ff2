package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/dpopgate/dpopgate/proxy"
)

// live shows what the gateway decides, a line for each request, once it is started.
type live struct {
	mu  sync.Mutex
	out io.Writer // nil: not started
	ink ink
}

func (l *live) start(out io.Writer, in ink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out, l.ink = out, in
}

func (l *live) write(ev *proxy.Event) {
	if strings.HasPrefix(ev.Path, pageFiles) && ev.Verdict == proxy.Passed { // what the page needs for itself
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out == nil {
		return
	}
	color, why := l.ink.green, string(ev.Verdict)
	if ev.Verdict != proxy.Passed {
		color, why = l.ink.red, why+": "+string(ev.Reason)
	}
	fmt.Fprintf(l.out, "  %s  %s%d%s  %s %s  %s\n",
		ev.Time.Format(time.TimeOnly), color, ev.Status, l.ink.reset, visible(ev.Method), visible(clip(ev.Path)), why)
}

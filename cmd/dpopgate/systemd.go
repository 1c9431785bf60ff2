package main

import (
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// initSystem is told how the process is doing, where it wants to know (sd_notify(3)). Without one, nothing happens.
type initSystem struct {
	notify func(state string)
	// watchdog is how often it has to hear that the process is alive; 0: never.
	watchdog time.Duration
}

// thisInitSystem is the one that started this process. What it cannot be told is lost: nobody else can be told either.
func thisInitSystem() initSystem {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		interval = 0
	}
	return initSystem{
		notify:   func(state string) { daemon.SdNotify(false, state) },
		watchdog: interval,
	}
}

// alive ticks twice as often as the init system has to hear that the process is alive; it never does when it need not.
func (i initSystem) alive() (tick <-chan time.Time, stop func()) {
	if i.watchdog == 0 {
		return nil, func() {}
	}
	t := time.NewTicker(i.watchdog / 2)
	return t.C, t.Stop
}

// reloading says that a reload begins; Type=notify-reload wants to know since when. It ends with SdNotifyReady.
func (i initSystem) reloading() {
	state := daemon.SdNotifyReloading
	if since := daemon.SdNotifyMonotonicUsec(); since != "" {
		state += "\n" + strings.TrimSpace(since)
	}
	i.notify(state)
}

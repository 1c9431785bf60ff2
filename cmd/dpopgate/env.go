package main

import (
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// env is what a command knows of the process around it. Nothing else in this package touches os.Stdin, os.Stdout,
// os.Stderr, the environment, the process's signals or its init system.
type env struct {
	stdin  io.Reader
	stdout io.Writer // results, and nothing but results: what a script would want to read
	stderr io.Writer // everything that is said to a person, and the log
	// lookup is an environment variable, and whether it is set.
	lookup func(name string) (string, bool)
	// terminal says that stdout is one: tables are drawn for people, not for programs.
	terminal bool
	// started is when the process began.
	started time.Time
	// signals delivers what the operator or the init system sends, until the returned function is called.
	signals func(...os.Signal) (<-chan os.Signal, func())
	// inherit takes what the process was given beside its arguments and its environment.
	inherit func() (inheritance, error)
	// restart starts the program once more, with the same arguments and environment.
	restart starter
	init    initSystem
}

// newEnv is the env of this process.
func newEnv() *env {
	return &env{
		stdin:    os.Stdin,
		stdout:   os.Stdout,
		stderr:   os.Stderr,
		lookup:   os.LookupEnv,
		terminal: isTerminal(os.Stdout),
		started:  time.Now(),
		signals:  signals,
		inherit:  inherit,
		restart:  thisProgram().start,
		init:     thisInitSystem(),
	}
}

// stopping are the signals that end a command that runs until it is stopped.
var stopping = []os.Signal{os.Interrupt, syscall.SIGTERM}

func signals(which ...os.Signal) (<-chan os.Signal, func()) {
	// Room for a few, since os/signal drops what does not fit: a SIGHUP must not hide the SIGTERM behind it.
	c := make(chan os.Signal, 8)
	signal.Notify(c, which...)
	return c, func() { signal.Stop(c) }
}

// isTerminal says whether f is a character device. /dev/null is one too, which does no harm: nobody reads that.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

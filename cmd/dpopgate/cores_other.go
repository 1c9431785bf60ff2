//go:build !linux

package main

import (
	"errors"
	"os/exec"
	"time"
)

// allowedCores are none where processes cannot be told where to run.
func allowedCores() []int { return nil }

func startOn(cmd *exec.Cmd, _ []int) error { return cmd.Start() }

func stayOn([]int) (back func(), err error) {
	return nil, errors.New("processes cannot be moved to other cores on this system")
}

func cpuTime(int) (time.Duration, error) {
	return 0, errors.New("the CPU time of another process can be read on Linux only")
}

func residentMemory(int) int64 { return 0 }

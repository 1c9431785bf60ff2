//go:build !unix

package main

import (
	"errors"
	"time"
)

// ownCPU is known on Unix only.
func ownCPU() (time.Duration, error) {
	return 0, errors.New("the CPU time of a process can be read on Unix only")
}

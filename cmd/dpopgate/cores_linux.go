package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// allowedCores are the cores that this process may run on.
func allowedCores() []int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	var cores []int
	for core := 0; len(cores) < set.Count(); core++ {
		if set.IsSet(core) {
			cores = append(cores, core)
		}
	}
	return cores
}

func coreSet(cores []int) *unix.CPUSet {
	set := new(unix.CPUSet)
	for _, core := range cores {
		set.Set(core)
	}
	return set
}

// startOn starts a command on these cores; none: on those of this process. A process is where the thread is that
// started it, from its first instruction on, and so are its own children.
func startOn(cmd *exec.Cmd, cores []int) error {
	if len(cores) == 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err := unix.SchedSetaffinity(0, coreSet(cores))
	if err == nil {
		err = cmd.Start()
	}
	if unix.SchedSetaffinity(0, &before) == nil {
		runtime.UnlockOSThread() // else the thread is of no more use, and ends with its goroutine
	}
	return err
}

// stayOn moves this process, all threads of it, to these cores until the returned function is called.
func stayOn(cores []int) (back func(), err error) {
	before, threads := allowedCores(), runtime.GOMAXPROCS(0)
	if err := moveTo(cores); err != nil {
		return nil, err
	}
	runtime.GOMAXPROCS(len(cores))
	return func() {
		moveTo(before)
		runtime.GOMAXPROCS(threads)
	}, nil
}

func moveTo(cores []int) error {
	set := coreSet(cores)
	for range 2 { // threads made meanwhile by one that was not moved yet
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err == nil {
				err = unix.SchedSetaffinity(id, set)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("moving a thread to another core: %w", err)
			}
		}
	}
	return nil
}

// cpuTime is what a process has used so far, of all its threads, those that have ended included.
func cpuTime(pid int) (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &t); err != nil { // its CLOCK_PROCESS_CPUTIME_ID, see clock_getcpuclockid(3)
		return 0, fmt.Errorf("reading the CPU time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// residentMemory is how many bytes of a process are in memory; 0: unknown.
func residentMemory(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var size, resident int64
	fmt.Sscan(string(data), &size, &resident)
	return resident * int64(os.Getpagesize())
}

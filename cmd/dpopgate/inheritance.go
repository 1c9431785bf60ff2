package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
)

// succeedsVariable tells a process that it is to take over from another: descriptor 3 leads to that one, and from 4 on
// there are its sockets, whose names it holds, separated by colons.
const succeedsVariable = "DPOPGATE_SUCCEEDS"

// firstInherited is the first descriptor after stdin, stdout and stderr.
const firstInherited = 3

// inheritance is what a process is given beside its arguments and its environment.
type inheritance struct {
	sockets     sockets
	predecessor net.Conn // the way to the process to take over from; nil: there is none
}

// inherit takes what systemd (sd_listen_fds(3)) or the process before this one gave, the first time that it is called.
func inherit() (inheritance, error) {
	names, succeeds := os.LookupEnv(succeedsVariable)
	if !succeeds {
		s, err := openSockets(activation.Files(true))
		return inheritance{sockets: s}, err
	}
	os.Unsetenv(succeedsVariable)
	way, err := fileConn(os.NewFile(firstInherited, "predecessor"))
	if err != nil {
		return inheritance{}, fmt.Errorf("%s is set, and descriptor %d leads to no other process: %w", succeedsVariable, firstInherited, err)
	}
	var files []*os.File
	for i, name := range strings.Split(names, ":") {
		syscall.CloseOnExec(firstInherited + 1 + i)
		files = append(files, os.NewFile(uintptr(firstInherited+1+i), name))
	}
	s, err := openSockets(files)
	return inheritance{s, way}, err
}

// fileConn is the connection behind a file, which it closes.
func fileConn(f *os.File) (net.Conn, error) {
	defer f.Close()
	return net.FileConn(f)
}

// ownProgram is how this process was started, as far as it takes to start it once more. What is at its path may be another
// binary by then.
type ownProgram struct {
	path string
	args []string
	err  error // why it cannot be
}

// thisProgram is looked up when the process starts, while the working directory is what its arguments were written for.
func thisProgram() ownProgram {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if os.Getpid() == 1 {
		err = errors.New("a container ends with its process 1, so roll out a new container instead")
	}
	return ownProgram{path, os.Args, err}
}

// start runs the program with the sockets, and gives the way to the new process.
func (p ownProgram) start(sockets []*os.File) (*exec.Cmd, net.Conn, error) {
	if p.err != nil {
		return nil, nil, p.err
	}
	pair, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	defer pair[1].Close()
	way, err := fileConn(pair[0])
	if err != nil {
		return nil, nil, err
	}
	var names []string
	for _, s := range sockets {
		names = append(names, s.Name())
	}
	cmd := exec.Command(p.path)
	cmd.Args = p.args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = append([]*os.File{pair[1]}, sockets...)
	// systemd's watchdog is for the process of this number only until told otherwise.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WATCHDOG_PID=") })
	cmd.Env = append(cmd.Env, succeedsVariable+"="+strings.Join(names, ":"))
	if err := cmd.Start(); err != nil {
		way.Close()
		return nil, nil, err
	}
	return cmd, way, nil
}

// socketPair is a connection between two processes, seen from both.
func socketPair() (pair [2]*os.File, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return pair, os.NewSyscallError("socketpair", err)
	}
	for i, fd := range fds {
		syscall.CloseOnExec(fd)
		pair[i] = os.NewFile(uintptr(fd), "successor")
	}
	return pair, nil
}

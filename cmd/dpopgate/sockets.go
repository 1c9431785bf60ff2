package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
)

// byAddress is the name of a socket that is known by its address alone.
const byAddress = "by-address"

// socketNames are the names that sockets are known by (systemd's FileDescriptorName), and the config keys of what is
// served there.
var socketNames = map[string]string{"https": httpsKey, "http": httpKey, "admin": adminKey}

// socket is a TCP socket that is listened on. Its name is one of socketNames when it is served as that, wherever it is
// bound; else it is for the config key that has its address.
type socket struct {
	*net.TCPListener
	name string
}

// sockets are those that a process was started with and that nobody has taken yet.
type sockets []socket

// openSockets makes sockets of inherited files, which it closes. Files with other names than those of socketNames are
// known by their address: systemd gives each the name of its unit when it is told no other.
func openSockets(files []*os.File) (sockets, error) {
	var all sockets
	var errs []error
	for _, f := range files {
		l, err := net.FileListener(f)
		f.Close()
		tcp, ok := l.(*net.TCPListener)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("socket %s was given to this process and cannot be listened on: %w", f.Name(), err))
			continue
		case !ok:
			l.Close()
			errs = append(errs, fmt.Errorf("socket %s was given to this process and is not TCP (%s): want ListenStream with an address and a port", f.Name(), l.Addr().Network()))
			continue
		}
		s := socket{tcp, byAddress}
		if _, known := socketNames[f.Name()]; known {
			s.name = f.Name()
		}
		all = append(all, s)
	}
	if len(errs) > 0 {
		all.close()
		return nil, errors.Join(errs...)
	}
	return all, nil
}

// take is the socket for the address of a config key, which is no longer among s then, or a new one.
func (s *sockets) take(ctx context.Context, key, address string) (socket, error) {
	i := slices.IndexFunc(*s, func(l socket) bool { return socketNames[l.name] == key })
	if i < 0 {
		i = slices.IndexFunc(*s, func(l socket) bool { return l.name == byAddress && isAddress(l.Addr(), address) })
	}
	if i < 0 {
		return bind(ctx, key, address)
	}
	l := (*s)[i]
	*s = slices.Delete(*s, i, i+1)
	return l, nil
}

// isAddress says whether a socket is where a config's address says.
func isAddress(at net.Addr, address string) bool {
	want, err := net.ResolveTCPAddr("tcp", address)
	is, ok := at.(*net.TCPAddr)
	if err != nil || !ok || is.Port != want.Port {
		return false
	}
	return is.IP.Equal(want.IP) || is.IP.IsUnspecified() && (want.IP == nil || want.IP.IsUnspecified())
}

// unused is an error that names the sockets that are served as nothing; nil when there are none.
func (s sockets) unused() error {
	if len(s) == 0 {
		return nil
	}
	var each []string
	for _, l := range s {
		each = append(each, fmt.Sprintf("%s (%s)", l.Addr(), l.name))
	}
	return fmt.Errorf("this process was given sockets that the config does not serve: %s: give them the address of a key of listen, "+
		"or FileDescriptorName=http, https or admin; https wants tls", strings.Join(each, ", "))
}

func (s sockets) close() {
	for _, l := range s {
		l.Close()
	}
}

// file is a copy of the socket for another process, by its name. It does not block, as File of net.TCPListener makes this
// one do once it is given away.
func (s socket) file() (*os.File, error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	var f *os.File
	var problem error
	err = raw.Control(func(fd uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		copied, err := syscall.Dup(int(fd))
		if err != nil {
			problem = os.NewSyscallError("dup", err)
			return
		}
		syscall.CloseOnExec(copied)
		f = os.NewFile(uintptr(copied), s.name)
	})
	return f, errors.Join(err, problem)
}

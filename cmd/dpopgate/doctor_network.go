package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/dpopgate/dpopgate/tokenstore"
)

// examineNames asks where the hosts of public_urls lead to.
func examineNames(ctx context.Context, c *config.Config) []finding {
	var found []finding
	for _, host := range c.PublicHosts() {
		if isLoopbackHost(host) || net.ParseIP(host) != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, lookTimeout)
		addresses, err := net.DefaultResolver.LookupHost(ctx, host)
		cancel()
		f := finding{"names", host, findingOK, "leads to " + strings.Join(addresses, ", "), ""}
		switch {
		case err != nil:
			f.State, f.Words, f.Fix = findingWrong, dnsWords(err), "set an A or AAAA record for it, or correct public_urls"
		case !slices.ContainsFunc(addresses, isOwnAddress):
			f.Words += ", which is not this machine: a load balancer or NAT, or the wrong record"
		}
		found = append(found, f)
	}
	return found
}

// dnsWords is why a name was not resolved, without the name, which stands beside it.
func dnsWords(err error) string {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return e.Err
	}
	return oneLine(err)
}

// isOwnAddress says whether an interface of this machine has the address.
func isOwnAddress(address string) bool {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	ip := net.ParseIP(address)
	return slices.ContainsFunc(own, func(a net.Addr) bool {
		network, ok := a.(*net.IPNet)
		return ok && network.IP.Equal(ip)
	})
}

// examinePorts binds what the gateway would bind, and lets go of it. Where somebody listens it says who, as far as this
// user may know.
func examinePorts(ctx context.Context, c *config.Config) []finding {
	var found []finding
	for _, at := range []struct{ key, address string }{{httpsKey, c.Listen.HTTPS}, {httpKey, c.Listen.HTTP}, {adminKey, c.Listen.Admin}} {
		if at.address == "" {
			continue
		}
		f := finding{"ports", at.key + " " + at.address, findingOK, "free, and may be listened on", ""}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", at.address)
		switch {
		case err == nil:
			l.Close()
		case errors.Is(err, syscall.EADDRINUSE):
			f.State, f.Words, f.Fix = usedPort(at.address)
		case errors.Is(err, syscall.EACCES):
			f.State, f.Words, f.Fix = findingWrong, "this user may not listen there", "give the program CAP_NET_BIND_SERVICE, or choose a port from 1024 on"
		default:
			cause := syscall.Errno(0)
			if errors.As(err, &cause) {
				err = cause
			}
			f.State, f.Words, f.Fix = findingWrong, oneLine(err), "give an address of this machine"
		}
		found = append(found, f)
	}
	return found
}

// usedPort says who listens at an address.
func usedPort(address string) (state, words, fix string) {
	_, port, _ := net.SplitHostPort(address)
	n, _ := strconv.ParseUint(port, 10, 16)
	name, pid := listenerOf(uint16(n))
	switch {
	case name == "":
		return findingWarn, "another process listens there, and this user may not see which", "nothing, if it is the gateway; else stop it or choose another address"
	case strings.HasPrefix(name, "dpopgate"):
		return findingOK, fmt.Sprintf("%s listens there (process %d)", name, pid), ""
	default:
		return findingWrong, fmt.Sprintf("%s listens there (process %d)", name, pid), "stop it, or choose another address"
	}
}

// listenerOf is the process that listens on a port, where /proc tells: on Linux, and of processes that this user may look
// at. Its name is empty when that is not known.
func listenerOf(port uint16) (name string, pid int) {
	sockets := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		file, err := os.Open(table)
		if err != nil {
			continue
		}
		for scan := bufio.NewScanner(file); scan.Scan(); {
			fields := strings.Fields(scan.Text())
			// local_address is ADDRESS:PORT in hex, st 0A is LISTEN, and the tenth field is the inode of the socket.
			if len(fields) > 9 && fields[3] == "0A" && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
				sockets["socket:["+fields[9]+"]"] = true
			}
		}
		file.Close()
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/[0-9]*")
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || !sockets[to] {
			continue
		}
		process := filepath.Dir(filepath.Dir(link))
		comm, err := os.ReadFile(filepath.Join(process, "comm"))
		if err != nil {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(process))
		return strings.TrimSpace(string(comm)), pid
	}
	return "", 0
}

// tolerableDrift is how far a clock may be from ours before it is worth a word: HTTP has whole seconds.
const tolerableDrift = 2 * time.Second

// examineClocks compares this machine's clock with that of the database, and with the Date that an upstream answers with.
func examineClocks(ctx context.Context, c *config.Config) []finding {
	var found []finding
	compare := func(about string, ask func(context.Context) (time.Time, error)) {
		ctx, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		before := time.Now()
		theirs, err := ask(ctx)
		if err != nil {
			found = append(found, finding{"clocks", about, findingWarn, "could not be asked: " + oneLine(err), "see what the connections say"})
			return
		}
		ours := before.Add(time.Since(before) / 2)
		found = append(found, clockFinding(about, theirs.Sub(ours), c.DPoP.MaxSkew.Std()))
	}
	if c.Store.Postgres != "" {
		compare("database", func(ctx context.Context) (time.Time, error) { return databaseTime(ctx, c) })
	}
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		u := c.Upstreams[name]
		if len(u.Targets) > 0 && !u.H2C {
			compare("upstream "+u.Targets[0], func(ctx context.Context) (time.Time, error) { return upstreamTime(ctx, u) })
		}
	}
	return found
}

// clockFinding is about a clock that is ahead of ours by so much, or behind if that is negative.
func clockFinding(about string, ahead, skew time.Duration) finding {
	f := finding{"clocks", about, findingOK, "agrees with this machine's clock", ""}
	if ahead.Abs() <= tolerableDrift {
		return f
	}
	word := "ahead of"
	if ahead < 0 {
		word = "behind"
	}
	f.State, f.Words = findingWarn, fmt.Sprintf("is %s %s this machine's clock", ahead.Abs().Round(time.Second), word)
	f.Fix = "set both by NTP: proofs are judged by this machine's clock"
	if ahead.Abs() > skew {
		f.State = findingWrong
	}
	return f
}

func databaseTime(ctx context.Context, c *config.Config) (time.Time, error) {
	patient := c.Store
	patient.Timeout = config.Duration(lookTimeout) // the clock is asked for, not how fast the database is
	store, err := openStore(ctx, patient, nil, nil)
	if err != nil {
		return time.Time{}, err
	}
	defer store.Close()
	return store.(*tokenstore.Postgres).Clock(ctx)
}

// upstreamTime is the Date of an upstream's answer to a HEAD of its health path, or of /. Its status does not matter.
func upstreamTime(ctx context.Context, u config.Upstream) (time.Time, error) {
	path := "/"
	if u.Health != nil {
		path = u.Health.Path
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, strings.TrimRight(u.Targets[0], "/")+path, nil)
	if err != nil {
		return time.Time{}, err
	}
	conf, err := proxy.UpstreamTLS(u.TLS)
	if err != nil {
		return time.Time{}, err
	}
	return askDate(r, conf)
}

func askDate(r *http.Request, conf *tls.Config) (time.Time, error) {
	transport := &http.Transport{TLSClientConfig: conf}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(r)
	if err != nil {
		return time.Time{}, err
	}
	res.Body.Close()
	return http.ParseTime(res.Header.Get("Date"))
}

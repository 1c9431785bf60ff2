package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// balancerConfig is a load balancer as README has it: it asks each instance whether it is ready, and when none says so
// it sends requests to any all the same, since an instance whose store is away still knows the tokens it has seen.
const balancerConfig = `
global
    maxconn 8000
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    retries 3
    option redispatch
frontend turns
    bind %[1]s
    use_backend any if { nbsrv(ready) eq 0 }
    default_backend ready
frontend kept
    bind %[2]s
    use_backend any if { nbsrv(loyal) eq 0 }
    default_backend loyal
backend ready
    balance roundrobin
    option httpchk GET /readyz
%[3]s
backend loyal
    balance hdr(Authorization)
    hash-type consistent
    option httpchk GET /readyz
%[3]s
backend any
    balance roundrobin
%[4]s
`

// newBalancer starts HAProxy in front of the fleet: at one address instances take turns, at the other each token has one
// of its own.
func newBalancer(ctx context.Context, folder, program, address, kept string, fleet []*instance) (*process, error) {
	var ready, all strings.Builder
	for _, i := range fleet {
		_, admin := splitAddress(i.admin)
		fmt.Fprintf(&ready, "    server %s %s check port %s inter 100ms fall 2 rise 1\n", i.name, i.address, admin)
		fmt.Fprintf(&all, "    server %s %s\n", i.name, i.address)
	}
	file := filepath.Join(folder, "haproxy.cfg")
	if err := os.WriteFile(file, fmt.Appendf(nil, balancerConfig, address, kept, ready.String(), all.String()), 0o600); err != nil {
		return nil, err
	}
	p, err := launch(folder, "haproxy", exec.Command(program, "-db", "-f", file))
	if err != nil {
		return nil, err
	}
	return p, p.await(ctx, "haproxy listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

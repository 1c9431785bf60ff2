package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// peers are the addresses of proxies that are believed about where a request came from.
type peers []netip.Prefix

// trusts says whether an address, with or without a port, is one of them.
func (p peers) trusts(address string) bool {
	if len(p) == 0 {
		return false
	}
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	addr, err := netip.ParseAddr(strings.Trim(address, "[]"))
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	for _, prefix := range p {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// origination is where a request came from, as far as that is believed.
type origination struct {
	host      string // that the client called
	client    string // address of the client, without a port
	chain     string // X-Forwarded-For up to our peer; empty when the peer is not trusted
	forwarded string // Forwarded up to our peer; likewise
	requestID string // given by a trusted peer; empty for none
	wrong     string // what the fields say that cannot be, in words; empty when all is well
}

// originOf reads a request's Forwarded (RFC 7239) and X-Forwarded-* fields if its peer is trusted, and nothing but its
// Host and the address of its socket otherwise.
func (p peers) originOf(r *http.Request) (o origination) {
	o.host, o.client = r.Host, r.RemoteAddr
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		o.client = host
	}
	if !p.trusts(r.RemoteAddr) {
		return o
	}
	o.chain = strings.Join(r.Header["X-Forwarded-For"], ", ")
	o.forwarded = strings.Join(r.Header["Forwarded"], ", ")
	said := strings.Split(o.chain, ",")
	hosts := r.Header["X-Forwarded-Host"]
	if o.chain == "" && len(hosts) == 0 && o.forwarded != "" {
		said, hosts = readForwarded(o.forwarded)
	}
	switch {
	case len(hosts) > 1 || len(hosts) == 1 && strings.Contains(hosts[0], ","):
		o.wrong = "two hosts are forwarded for this request"
	case len(hosts) == 1:
		o.host = hosts[0]
	}
	// From the right: each trusted proxy tells who it got the request from, and the first that is not one is the client.
	for i := len(said) - 1; i >= 0; i-- {
		addr, err := netip.ParseAddr(nodeAddress(said[i]))
		if err != nil {
			break
		}
		o.client = addr.Unmap().String()
		if !p.trusts(o.client) {
			break
		}
	}
	if ids := r.Header["X-Request-Id"]; len(ids) == 1 && len(ids[0]) <= 128 && !strings.ContainsFunc(ids[0], notIDChar) {
		o.requestID = ids[0]
	}
	return o
}

func notIDChar(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.=+/:", r))
}

// readForwarded takes the for parameters of all elements, and the host of the last, which our peer wrote (RFC 7239 §4).
func readForwarded(field string) (nodes, hosts []string) {
	for element := range strings.SplitSeq(field, ",") {
		hosts = nil
		for pair := range strings.SplitSeq(element, ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			value = strings.Trim(value, `"`)
			switch strings.ToLower(name) {
			case "for":
				nodes = append(nodes, value)
			case "host":
				hosts = append(hosts, value)
			}
		}
	}
	return nodes, hosts
}

// nodeAddress is the address of a node identifier (RFC 7239 §6), without port and brackets.
func nodeAddress(node string) string {
	node = strings.TrimSpace(node)
	if host, _, err := net.SplitHostPort(node); err == nil {
		return host
	}
	return strings.Trim(node, "[]")
}

// tell writes who sent the request into the header for the upstream, appending to what a trusted peer said.
func (o *origination) tell(h http.Header, room *[3]string, peer, host, scheme string) {
	if address, _, err := net.SplitHostPort(peer); err == nil {
		peer = address
	}
	from := peer
	if o.chain != "" {
		from = o.chain + ", " + peer
	}
	*room = [...]string{from, scheme, host}
	h["X-Forwarded-For"], h["X-Forwarded-Proto"], h["X-Forwarded-Host"] = room[0:1:1], room[1:2:2], room[2:3:3]
	if o.forwarded != "" {
		node := peer
		if strings.Contains(peer, ":") {
			node = `"[` + peer + `]"`
		}
		h["Forwarded"] = []string{o.forwarded + ", for=" + node + `;host="` + host + `";proto=` + scheme}
	}
}

package config

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const wantURL = "want a URL with scheme and host, such as https://api.example.com or http://127.0.0.1:9000"

// baseURL reads an absolute http or https URL that others are made from by adding a path. Its answer is canonical: host
// in lower case, no default port, no slash at the end.
func baseURL(s string) (*url.URL, *problem) {
	if hasCredentials(s) {
		return nil, &problem{"has a user or password in it", "leave them out; what an upstream wants goes into its headers"}
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, &problem{"is not a URL", wantURL}
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, &problem{"is not an http or https URL", wantURL}
	case u.Host == "":
		return nil, &problem{"has no host", wantURL}
	case u.User != nil:
		return nil, &problem{"has a user or password in it", "leave them out; what an upstream wants goes into its headers"}
	case strings.Contains(s, "?"):
		return nil, &problem{"has a query", "leave out everything from the ?"}
	case strings.Contains(s, "#"):
		return nil, &problem{"has a fragment", "leave out everything from the #"}
	}
	authority, p := canonicalAuthority(u)
	if p != nil {
		return nil, p
	}
	u.Host = authority
	if u.Path == "" || u.Path == "/" {
		u.Path, u.RawPath = "", ""
		return u, nil
	}
	if p := pathProblem(u.EscapedPath()); p != nil {
		return nil, p
	}
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/"), strings.TrimSuffix(u.RawPath, "/")
	return u, nil
}

// PublicHosts are the hosts of public_urls, each once, in their order: names in lower case, and addresses without brackets.
func (c *Config) PublicHosts() []string {
	var hosts []string
	for _, raw := range c.PublicURLs {
		if u, err := url.Parse(raw); err == nil && !slices.Contains(hosts, u.Hostname()) {
			hosts = append(hosts, u.Hostname())
		}
	}
	return hosts
}

// canonicalAuthority is host[:port] of a URL, without the port that its scheme implies.
func canonicalAuthority(u *url.URL) (string, *problem) {
	if strings.HasSuffix(u.Host, ":") {
		return "", &problem{"has a colon without a port", "leave the colon out"}
	}
	host, p := canonicalHost(u.Hostname())
	if p != nil {
		return "", p
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	port := u.Port()
	if port == "" {
		return host, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return "", &problem{"has an impossible port", "want a port from 1 to 65535"}
	}
	if u.Scheme == "http" && n == 80 || u.Scheme == "https" && n == 443 {
		return host, nil
	}
	return host + ":" + port, nil
}

// canonicalHost takes an IP address or a DNS name in letters, digits, - and _, and gives it in lower case.
// An internationalised name must be in its ASCII form (A-labels, RFC 5890), since that is what Host headers hold.
func canonicalHost(host string) (string, *problem) {
	if strings.Contains(host, ":") {
		ip, err := netip.ParseAddr(host)
		if err != nil || ip.Zone() != "" {
			return "", &problem{"has no valid IPv6 address", "want one such as [::1], without a zone"}
		}
		return ip.String(), nil
	}
	host = strings.ToLower(host)
	labels := strings.Split(host, ".")
	if last := labels[len(labels)-1]; last != "" && strings.Trim(last, "0123456789") == "" {
		if _, err := netip.ParseAddr(host); err != nil {
			return "", &problem{"has a host that ends in a number and is no IPv4 address", "want four numbers from 0 to 255"}
		}
		return host, nil
	}
	switch {
	case strings.ContainsFunc(host, func(r rune) bool { return r > 0x7f }):
		return "", &problem{"has letters outside ASCII in its host", "write an internationalised name in its ASCII form, xn--…"}
	case strings.HasSuffix(host, "."):
		return "", &problem{"has a host that ends in a dot", "leave the last dot out"}
	case len(host) > 253:
		return "", &problem{"has a host longer than 253 characters", "want a DNS name"}
	}
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" ||
			strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return "", &problem{"has no valid host", "want a DNS name or an IP address"}
		}
	}
	return host, nil
}

// isLoopback is true for localhost, 127.0.0.0/8 and ::1.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// pathProblem refuses a path that two readers could understand differently: the same rule that requests meet.
// The path is as written, with its escapes.
func pathProblem(path string) *problem {
	if !strings.HasPrefix(path, "/") {
		return &problem{"does not begin with /", "want a path such as /orders/"}
	}
	if strings.Contains(path, "//") {
		return &problem{"has an empty segment: //", "want single slashes"}
	}
	for _, segment := range strings.Split(path, "/") {
		name, err := url.PathUnescape(segment)
		if err != nil {
			return &problem{"has an invalid % escape", "write a % itself as %25"}
		}
		if strings.ContainsFunc(segment, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`\#?"<>`, r) }) {
			return &problem{"has a character that no path has", "escape it with %, or take it out"}
		}
		if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '/' || r == '\\' }) {
			return &problem{"has an escaped slash, backslash or control character", "such requests are refused before any route is looked for"}
		}
		if bare, _, _ := strings.Cut(name, ";"); bare == "." || bare == ".." {
			return &problem{"has a dot segment", "write the path that is meant"}
		}
	}
	return nil
}

package config

import (
	"net"
	"net/url"
	"strconv"
	"strings"
)

// checkReplay checks where used proofs are to be remembered. Its errors hold no part of a URL, which may have a password.
func (f *file) checkReplay(c *Config) {
	switch replay := string(c.DPoP.Replay); {
	case replay == "memory":
		if c.DPoP.ReplayOnError == "nonce" {
			f.reject("dpop.replay_on_error", "leave it out, or name a shared store in dpop.replay", "replay: memory is always there")
		}
	case replay == "postgres":
		if c.Store.Postgres == "" {
			f.reject("dpop.replay", "use memory, or give store.postgres", "postgres needs store.postgres")
		}
	default:
		if p := replayProblem(replay); p != nil {
			f.reject("dpop.replay", p.hint, "%s", p.message)
		}
	}
}

// replayURL is a URL such as rediss://user:password@host:6379,host:6379/0. With several hosts it is none for net/url.
type replayURL struct {
	scheme, userinfo, database string
	hosts                      []string // each perhaps with its port
}

func cutReplayURL(s string) (u replayURL, ok bool) {
	scheme, rest, ok := strings.Cut(s, "://")
	u.scheme = strings.ToLower(scheme)
	switch u.scheme {
	case "redis", "rediss", "valkey", "valkeys":
	default:
		return u, false
	}
	authority, database, _ := strings.Cut(rest, "/")
	u.database = database
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		u.userinfo, authority = authority[:at], authority[at+1:]
	}
	u.hosts = strings.Split(authority, ",")
	return u, ok
}

func replayProblem(s string) *problem {
	u, ok := cutReplayURL(s)
	if !ok {
		hint := didYouMean(s, []string{"memory", "postgres"})
		if hint == "" {
			hint = "want memory, postgres, or a redis://, rediss://, valkey:// or valkeys:// URL"
		}
		return &problem{"not a place to remember proofs in", hint}
	}
	if strings.ContainsAny(s, "?#") {
		return &problem{"the URL has a query or fragment", "leave out everything from the ? or #; in a password write them as %3F and %23"}
	}
	if strings.Contains(u.database, "@") {
		return &problem{"the URL has a / before an @", "in a user or password write it as %2F"}
	}
	if _, err := url.PathUnescape(u.userinfo); err != nil {
		return &problem{"the URL has an invalid % escape in its user or password", "write a % itself as %25"}
	}
	for _, host := range u.hosts {
		if !isHostPort(host) {
			return &problem{"the URL has no valid host", "want redis://host, redis://host:6379, or host:port,host:port of one cluster"}
		}
	}
	if _, err := strconv.ParseUint(u.database, 10, 16); err != nil && u.database != "" {
		return &problem{"the path of the URL is no database number", "want one such as /0, or none"}
	}
	if len(u.hosts) > 1 && strings.Trim(u.database, "0") != "" {
		return &problem{"the URL has several hosts and a database number", "leave the number out: a cluster has one database, 0"}
	}
	return nil
}

// isHostPort takes host, host:port, [IPv6] and [IPv6]:port.
func isHostPort(s string) bool {
	host := hostOf(s)
	if host == "" || strings.ContainsAny(host, " \t%@[]") {
		return false
	}
	if strings.HasSuffix(s, "]") || !strings.Contains(s, ":") {
		return true
	}
	_, port, _ := net.SplitHostPort(s)
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// hostOf is the host of host[:port]; empty when there is none.
func hostOf(s string) string {
	if strings.HasSuffix(s, "]") || !strings.Contains(s, ":") {
		return strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	}
	host, _, _ := net.SplitHostPort(s)
	return host
}

// sendsPasswordInClear says whether a replay store's URL has a password that goes to another machine without TLS.
func sendsPasswordInClear(s string) bool {
	u, ok := cutReplayURL(s)
	if !ok || u.userinfo == "" || u.scheme == "rediss" || u.scheme == "valkeys" {
		return false
	}
	for _, host := range u.hosts {
		if !isLoopback(hostOf(host)) {
			return true
		}
	}
	return false
}

package cache

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/valkey-io/valkey-go"
)

// parseValkeyURL reads a URL as OpenValkeyProofs documents it. net/url would refuse several hosts, and its errors quote the
// URL; none here holds any part of it.
func parseValkeyURL(s string) (o valkey.ClientOption, err error) {
	scheme, rest, found := strings.Cut(s, "://")
	switch strings.ToLower(scheme) {
	case "redis", "valkey":
	case "rediss", "valkeys":
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	default:
		found = false
	}
	if !found {
		return o, errors.New("not a URL of a replay store: want redis://, rediss://, valkey:// or valkeys://")
	}
	if strings.ContainsAny(rest, "?#") {
		return o, errors.New("the URL of the replay store has a query or fragment: leave out everything from the ? or #, " +
			"and write one in a password as %3F or %23")
	}
	authority, database, _ := strings.Cut(rest, "/")
	if strings.Contains(database, "@") {
		return o, errors.New("the URL of the replay store has a / before an @: write one in a user or password as %2F")
	}
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		if o.Username, o.Password, err = credentials(authority[:at]); err != nil {
			return o, err
		}
		authority = authority[at+1:]
	}
	for i, hostport := range strings.Split(authority, ",") {
		address, err := addressOf(hostport)
		if err != nil {
			return o, fmt.Errorf("host %d in the URL of the replay store %w", i+1, err)
		}
		o.InitAddress = append(o.InitAddress, address)
	}
	if o.TLSConfig != nil {
		o.TLSConfig.ServerName, _, _ = net.SplitHostPort(o.InitAddress[0])
	}
	if database != "" {
		n, err := strconv.ParseUint(database, 10, 16)
		if err != nil {
			return o, errors.New("the path in the URL of the replay store is no database number, such as /0")
		}
		o.SelectDB = int(n)
	}
	if len(o.InitAddress) > 1 && o.SelectDB != 0 {
		return o, errors.New("the URL of the replay store names several hosts, and a cluster has no other database than 0")
	}
	return o, nil
}

func credentials(userinfo string) (user, password string, err error) {
	user, password, _ = strings.Cut(userinfo, ":")
	user, userErr := url.PathUnescape(user)
	password, passwordErr := url.PathUnescape(password)
	if userErr != nil || passwordErr != nil {
		return "", "", errors.New("the user or password in the URL of the replay store has an invalid % escape: write a % itself as %25")
	}
	return user, password, nil
}

// addressOf is host:port of a host with or without a port.
func addressOf(s string) (string, error) {
	host, port := s, valkeyPort
	if strings.HasSuffix(s, "]") || !strings.Contains(s, ":") {
		host = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	} else {
		var err error
		if host, port, err = net.SplitHostPort(s); err != nil {
			return "", errors.New("is not host:port, or [IPv6 address]:port")
		}
	}
	if host == "" || strings.ContainsAny(host, " \t%@[]") {
		return "", errors.New("has no name or address")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", errors.New("has no port from 1 to 65535")
	}
	return net.JoinHostPort(host, port), nil
}

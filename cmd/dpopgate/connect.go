package main

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/proxy"
)

// connection is an attempt to reach what the gateway depends on.
type connection struct {
	What    string `json:"what"` // store, replay store, what tls is made from, or the name of an upstream
	Address string `json:"address"`
	Error   string `json:"error,omitempty"` // empty: it was reached
}

// tryAll reaches the stores and all targets of all upstreams, one after the other.
func tryAll(ctx context.Context, c *config.Config) []connection {
	tried := []connection{{"store", storeName(c.Store), textOf(tryStore(ctx, c))}}
	if at := replayName(c.DPoP.Replay); at != "memory" {
		tried = append(tried, connection{"replay store", at, textOf(tryReplay(ctx, c))})
	}
	if c.Misuse == "revoke" {
		tried = append(tried, connection{"misuse: revoke", storeName(c.Store), textOf(tryMisuse(ctx, c))})
	}
	tried = append(tried, tryCertificates(ctx, c)...)
	try := func(what, target string, u config.Upstream) {
		tried = append(tried, connection{what, target, textOf(tryTarget(ctx, target, u))})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		for _, target := range c.Upstreams[name].Targets {
			try(name, target, c.Upstreams[name])
		}
	}
	seen := map[string]bool{}
	for _, r := range c.Routes {
		if strings.Contains(r.Upstream, "://") && !seen[r.Upstream] {
			seen[r.Upstream] = true
			try("upstream", r.Upstream, config.DefaultUpstream())
		}
	}
	return tried
}

// tryStore asks for a row, and whether the table fits.
func tryStore(ctx context.Context, c *config.Config) error {
	store, err := openStore(ctx, c.Store, nil, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Ping(ctx); err != nil {
		return err
	}
	differences, err := store.Check(ctx)
	if err != nil {
		return err
	}
	for _, d := range differences {
		if d.Fatal {
			err = errors.Join(err, errors.New(d.String()))
		}
	}
	return err
}

// tryReplay asks for a claim that takes nothing. What could make the store forget counts as an error.
func tryReplay(ctx context.Context, c *config.Config) error {
	replay, err := openReplay(c, nil, nil)
	if err != nil {
		return err
	}
	defer replay.Close()
	doubts, err := replay.Check(ctx)
	for _, doubt := range doubts {
		err = errors.Join(err, errors.New(doubt))
	}
	return err
}

// replayName is the kind of a replay store: its URL may hold a password.
func replayName(replay config.Secret) string {
	scheme, _, _ := strings.Cut(string(replay), ":")
	return scheme
}

// tryTarget connects within the upstream's connect_timeout, TLS included, and sends nothing.
func tryTarget(ctx context.Context, target string, u config.Upstream) error {
	at, err := url.Parse(target)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, u.ConnectTimeout.Std())
	defer cancel()
	port := at.Port()
	dial := new(net.Dialer).DialContext
	if at.Scheme == "https" {
		conf, err := proxy.UpstreamTLS(u.TLS)
		if err != nil {
			return err
		}
		dial = (&tls.Dialer{Config: conf}).DialContext
	}
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[at.Scheme]
	}
	conn, err := dial(ctx, "tcp", net.JoinHostPort(at.Hostname(), port))
	if err != nil {
		return err
	}
	return conn.Close()
}

// textOf is an error on one line, empty for none.
func textOf(err error) string {
	if err == nil {
		return ""
	}
	return oneLine(err)
}

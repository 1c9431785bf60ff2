package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Warnings is what is allowed but worth a second look, one sentence each, without secrets.
func (c *Config) Warnings() []string {
	var warnings []string
	warn := func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }

	used := map[string]bool{}
	for i, r := range c.Routes {
		used[r.Upstream] = true
		if r.Public {
			warn("routes[%d] (%s) is public: no token is asked for", i, r.Match)
		}
		if r.Mode == "report" {
			warn("routes[%d] (%s) is in mode report: NOTHING IS REFUSED, whoever asks gets through", i, r.Match)
		}
		if slices.Contains(r.TokenTypes, "Bearer") && !r.Public {
			warn("routes[%d] (%s) takes Bearer tokens, which whoever steals them can use", i, r.Match)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		if !used[name] {
			warn("upstreams.%s is used by no route", name)
		}
	}
	if c.DPoP.Replay == "memory" && c.Store.Postgres != "" {
		warn("dpop.replay is memory, which is exact on one instance; several need postgres or redis, or nonce: required")
	}
	if c.DPoP.Replay == "memory" && c.DPoP.NonceKey != "" {
		warn("dpop.nonce_key is set while dpop.replay is memory: a proof with a nonce can be used once on each instance, and again after a crash; leave it out, or share the memory of used proofs")
	}
	if stale := c.Cache.StaleOnError; stale > 0 {
		warn("cache.stale_on_error is %s: with the store down, a token that was revoked is let through for up to %s", stale, stale+c.Cache.TTL)
	}
	if c.DPoP.ReplayOnError == "nonce" {
		warn("dpop.replay_on_error is nonce: with the replay store down, only clients that a load balancer keeps at one instance get through, and no route with nonce: off")
	}
	if sendsPasswordInClear(string(c.DPoP.Replay)) {
		warn("dpop.replay sends its password to another machine without TLS: rediss:// and valkeys:// have it")
	}
	if c.ForwardAuth.Path != "" {
		warn("forward_auth answers at %s: what %s says of a request is believed", c.ForwardAuth.Path, strings.Join(c.Listen.TrustedProxies, ", "))
	}
	if c.Identity.Authorization != "remove" {
		warn("identity.authorization is %s: upstreams see the token", c.Identity.Authorization)
	}
	if t := c.TLS; t != nil && t.ACME != nil && len(t.ACME.Domains) > 0 {
		for _, host := range c.PublicHosts() {
			if !slices.Contains(t.ACME.Domains, host) {
				warn("tls.acme.domains leaves out %s, which so has no certificate and cannot be reached", host)
			}
		}
	}
	return warnings
}

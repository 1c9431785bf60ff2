package proxy_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// conformance: OPS-08
// attack: 180
func TestOnlySecondsOfTheEpochCount(t *testing.T) {
	changes := map[string]time.Time{
		"Europe/Berlin":       time.Date(2026, 10, 25, 1, 0, 0, 0, time.UTC),
		"America/New_York":    time.Date(2026, 3, 8, 7, 0, 0, 0, time.UTC),
		"Australia/Lord_Howe": time.Date(2026, 4, 4, 15, 0, 0, 0, time.UTC),
		"UTC":                 time.Date(2016, 12, 31, 23, 59, 59, 0, time.UTC), // before a leap second
	}
	g, key := newAPI(t, "base")
	rec := bound(key.Thumbprint(), "items:read")
	rec.ExpiresAt = start.Add(24 * 365 * time.Hour)
	g.rows.put("T1", rec)
	for zone, change := range changes {
		location, err := time.LoadLocation(zone)
		require.NoError(t, err)
		for _, now := range []time.Time{change.Add(-time.Second), change, change.Add(time.Second), change.Add(1500 * time.Millisecond)} {
			s := g.sibling(0, func(o *proxy.Options) {
				o.Now = func() time.Time { return now.In(location) }
				o.Replay = cache.NewProofs(1<<20, o.Now)
			})
			for _, age := range []time.Duration{0, 60 * time.Second, -10 * time.Second} {
				s.passes(s.signed(key, dpop.Claims{IssuedAt: now.Truncate(time.Second).Add(-age)}))
			}
			s.refuses(s.signed(key, dpop.Claims{IssuedAt: now.Add(-61 * time.Second)}), 401, dpop.IATPast)
			s.refuses(s.signed(key, dpop.Claims{IssuedAt: now.Add(12 * time.Second)}), 401, dpop.IATFuture)
		}
	}
}

// conformance: OPS-04
func TestImpossibleTimesAreNotStartedWith(t *testing.T) {
	yaml, err := os.ReadFile("../testdata/vectors/rigs/base.yaml")
	require.NoError(t, err)
	for _, setting := range []string{
		"max_age: 0s", "max_age: -1s", "max_age: 60", "max_skew: -1s", "max_skew: -10s", "nonce_ttl: 0s", "nonce_ttl: -5m",
		"max_age: 10000000h", "max_skew: 10000000h",
	} {
		text := strings.Replace(string(yaml), `nonce: "off"`, `nonce: "off", `+setting, 1)
		require.Contains(t, text, setting)
		_, err := config.Parse("dpopgate.yaml", []byte(text), func(string) (string, bool) { return "http://127.0.0.1:1", true })
		name, _, _ := strings.Cut(setting, ":")
		assert.ErrorContains(t, err, "dpop."+name, setting)
	}
}

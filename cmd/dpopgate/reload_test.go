package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/config"
)

func TestReloadNamesWhatNeedsARestart(t *testing.T) {
	parse := func() *config.Config {
		c, err := config.Parse("starter", config.Starter(), func(string) (string, bool) { return "", false })
		require.NoError(t, err)
		return c
	}
	inPlace, stopped := needRestart(parse(), parse())
	assert.Empty(t, append(inPlace, stopped...))
	for key, change := range map[string]func(c *config.Config){
		"listen":               func(c *config.Config) { c.Listen.HTTP = ":1" },
		"tls":                  func(c *config.Config) { c.TLS = &config.TLS{Internal: true} },
		"store":                func(c *config.Config) { c.Store.Digest = "hmac-sha256" },
		"cache":                func(c *config.Config) { c.Cache.TTL++ },
		"dpop.replay_on_error": func(c *config.Config) { c.DPoP.ReplayOnError = "nonce" },
		"dpop.replay_memory":   func(c *config.Config) { c.DPoP.ReplayMemory++ },
		"dpop.key_tables":      func(c *config.Config) { c.DPoP.KeyTables = false },
		"log.format":           func(c *config.Config) { c.Log.Format = "text" },
		"tracing":              func(c *config.Config) { c.Tracing.OTLPEndpoint = "http://localhost" },
		"limits":               func(c *config.Config) { c.Limits.HeaderBytes++ },
	} {
		c := parse()
		change(c)
		inPlace, stopped = needRestart(parse(), c)
		assert.Equal(t, []string{key}, inPlace)
		assert.Empty(t, stopped)
	}
	c := parse()
	c.Log.Level, c.Log.Access, c.DPoP.MaxAge, c.Routes = "debug", false, 1, nil
	inPlace, stopped = needRestart(parse(), c)
	assert.Empty(t, append(inPlace, stopped...), "what a reload puts in force")
	c.DPoP.Replay = "postgres"
	inPlace, stopped = needRestart(parse(), c)
	assert.Empty(t, inPlace)
	assert.Equal(t, []string{"dpop.replay"}, stopped, "a new process would not know the proofs that were used")
}

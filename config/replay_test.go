package config_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/dpopgate/dpopgate/config"
)

func TestReplayTakesURLsOfStores(t *testing.T) {
	for _, url := range []string{
		"redis://localhost", "redis://localhost/", "valkey://10.0.0.1:7000/3", "REDISS://[::1]:6379", "redis://[::1]",
		"rediss://:p@ss@cache", "valkeys://us%3Aer:pa%2Fss@a:1,b,[fe80::1]", "redis://a,b/0",
	} {
		c := parse(t, base+sqlite+"dpop: {replay: '"+url+"'}\n"+route)
		assert.Equal(t, config.Secret(url), c.DPoP.Replay)
	}
}

func TestReplayPasswordInTheClearIsWarnedOf(t *testing.T) {
	warnings := func(url string) []string {
		return parse(t, base+sqlite+"dpop: {replay: '"+url+"'}\n"+route).Warnings()
	}
	for _, url := range []string{"redis://:secret@cache", "valkey://:secret@127.0.0.1,cache:6379"} {
		assert.Equal(t, []string{"dpop.replay sends its password to another machine without TLS: rediss:// and valkeys:// have it"}, warnings(url))
	}
	for _, url := range []string{"rediss://:secret@cache", "redis://cache", "redis://:secret@localhost", "redis://:secret@[::1]:6379"} {
		assert.Empty(t, warnings(url))
	}
}

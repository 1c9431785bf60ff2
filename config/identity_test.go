package config_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/dpopgate/dpopgate/config"
)

func TestPresetsNameTheHeaders(t *testing.T) {
	for preset, subject := range map[string]string{
		"x-auth":       "X-Auth-Subject",
		"remote-user":  "Remote-User",
		"auth-request": "X-Auth-Request-User",
		"oauth2-proxy": "X-Forwarded-User",
		"kong":         "X-Authenticated-Userid",
	} {
		c := parse(t, base+sqlite+route+"identity: {preset: "+preset+"}\n")
		names := c.Identity.Names()
		assert.Equal(t, subject, names.Subject)
		assert.Contains(t, config.PresetHeaders(), subject)
		assert.Contains(t, config.PresetHeaders(), names.Scope)
		assert.Contains(t, config.PresetHeaders(), names.Client)
	}
}

func TestSingleNamesOverrideThePreset(t *testing.T) {
	c := parse(t, base+sqlite+route+"identity: {subject: X-User, expires: \"\", metadata: {X-Device: device}}\n")
	assert.Equal(t, config.IdentityNames{
		Subject: "X-User", Scope: "X-Auth-Scope", Client: "X-Auth-Client",
		TokenID: "X-Auth-Token-Id", TokenType: "X-Auth-Token-Type",
		Metadata: map[string]string{"X-Device": "device"},
	}, c.Identity.Names())
}

func TestHeadersOfAFamilyAreRemovedThoughNeverSet(t *testing.T) {
	headers := config.PresetHeaders()
	assert.Contains(t, headers, "Remote-Groups")
	assert.Contains(t, headers, "X-Forwarded-Access-Token")
	assert.Contains(t, headers, "X-Consumer-Username")
	assert.NotContains(t, headers, "")
	assert.IsIncreasing(t, headers)
}

func TestWarningsNameWhatDeservesASecondLook(t *testing.T) {
	c := parse(t, base+"store: {postgres: \"${DATABASE_URL}\"}\n"+
		"cache: {stale_on_error: 10s}\nidentity: {authorization: keep}\n"+
		"upstreams: {orders: {targets: [http://10.0.0.5]}}\n"+route+
		"    token_types: [DPoP, Bearer]\n  - match: /public/\n    upstream: http://127.0.0.1:9000\n    public: true\n")
	assert.Equal(t, []string{
		"routes[0] (/) takes Bearer tokens, which whoever steals them can use",
		"routes[1] (/public/) is public: no token is asked for",
		"upstreams.orders is used by no route",
		"dpop.replay is memory, which is exact on one instance; several need postgres or redis, or nonce: required",
		"cache.stale_on_error is 10s: with the store down, a token that was revoked is let through for up to 40s",
		"identity.authorization is keep: upstreams see the token",
	}, c.Warnings())
	assert.Empty(t, parse(t, base+sqlite+route).Warnings())
}

package proxy_test

import (
	"os"
	"strings"
	"testing"

	"github.com/dpopgate/dpopgate/config"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A word that nobody knows must not turn a check off.
//
// conformance: DWN-10
func TestUnknownModesAreRefusedAtLoad(t *testing.T) {
	data, err := os.ReadFile("../testdata/vectors/rigs/mixed.yaml")
	require.NoError(t, err)
	for _, c := range []struct{ old, wrong, where string }{
		{"[DPoP, Bearer]", "[dpop]", "token_types"},
		{"[DPoP, Bearer]", "[DPOP, Bearer]", "token_types"},
		{"[DPoP, Bearer]", "[DPoP, none]", "token_types"},
		{"[DPoP, Bearer]", "[]", "token_types"},
		{"[DPoP, Bearer]", "[DPoP, DPoP]", "token_types"},
		{`nonce: "off"`, "nonce: Required", "nonce"},
		{`nonce: "off"`, "nonce: optional", "nonce"},
		{`nonce: "off"`, "nonce: true", "nonce"},
		{`nonce: "off"`, `nonce: "off", algorithms: [none]`, "algorithms"},
		{`nonce: "off"`, `nonce: "off", algorithms: [HS256]`, "algorithms"},
		{`nonce: "off"`, `nonce: "off", algorithms: [es256]`, "algorithms"},
		{`nonce: "off"`, `nonce: "off", algorithms: []`, "algorithms"},
	} {
		text := strings.Replace(string(data), c.old, c.wrong, 1)
		require.NotEqual(t, string(data), text)
		_, err := config.Parse("mixed.yaml", []byte(text), func(string) (string, bool) { return "http://127.0.0.1:1", true })
		assert.ErrorContains(t, err, c.where, c.wrong)
	}
}

package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/dpopgate/dpopgate/config"
)

func TestSecretsNeverPrint(t *testing.T) {
	path := filepath.Join("..", "testdata", "config", "good", "full.yaml")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	c, err := config.Parse(path, data, env)
	require.NoError(t, err)
	require.Contains(t, string(c.Store.Postgres), hunter2)

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v"} {
		fmt.Fprintf(&out, verb+"\n", c)
		fmt.Fprintf(&out, verb+"\n", *c)
		fmt.Fprintf(&out, verb+"\n", c.Store)
		fmt.Fprintf(&out, verb+"\n", c.Store.Postgres)
		fmt.Fprintf(&out, verb+"\n", c.Upstreams)
	}
	asJSON, err := json.Marshal(c)
	require.NoError(t, err)
	asYAML, err := yaml.Dump(c)
	require.NoError(t, err)
	out.Write(asJSON)
	out.Write(asYAML)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("config", "config", c, "secret", c.Store.Postgres)
	slog.New(slog.NewTextHandler(&out, nil)).Info("config", "config", c, "secret", c.Store.Postgres)
	fmt.Fprintln(&out, c.Warnings())

	assert.Contains(t, out.String(), "[secret]")
	for _, secret := range []string{string(c.Store.Postgres), string(c.Store.DigestKey)} {
		assert.NotContains(t, out.String(), secret)
		assert.NotContains(t, out.String(), fmt.Sprintf("%x", secret))
		assert.NotContains(t, out.String(), fmt.Sprintf("%X", secret))
	}
	assert.NotContains(t, out.String(), hunter2)
}

func TestUnsetSecretsPrintAsNothing(t *testing.T) {
	assert.Empty(t, fmt.Sprintf("%v%s%q%#v", config.Secret(""), config.Secret(""), config.Secret(""), config.Secret("")))
	text, err := json.Marshal(config.Secret(""))
	require.NoError(t, err)
	assert.Equal(t, `""`, string(text))
}

func TestSizesHaveOneCanonicalSpelling(t *testing.T) {
	for _, c := range []struct {
		text string
		size int64
		want string
	}{
		{"0", 0, "0"},
		{"123", 123, "123"},
		{"8KiB", 8 << 10, "8KiB"},
		{"64MiB", 64 << 20, "64MiB"},
		{"1024MiB", 1 << 30, "1GiB"},
		{"2TiB", 2 << 40, "2TiB"},
		{"10kB", 10_000, "10kB"},
		{"10MB", 10_000_000, "10MB"},
		{"3GB", 3_000_000_000, "3GB"},
		{"9223372036854775807", 1<<63 - 1, "9223372036854775807"},
	} {
		var s config.Size
		require.NoError(t, s.UnmarshalText([]byte(c.text)), c.text)
		assert.EqualValues(t, c.size, s, c.text)
		assert.Equal(t, c.want, s.String(), c.text)
		var again config.Size
		require.NoError(t, again.UnmarshalText([]byte(s.String())))
		assert.Equal(t, s, again)
	}
	for _, bad := range []string{
		"", "KiB", "-1", "+1", "1.5MiB", "1 MiB", " 1", "1K", "1mb", "1kib", "1PiB", "0x10", "1_000", "1e3", "８KiB",
		"9223372036854775808", "8388608TiB", "99999999999999999999999",
	} {
		var s config.Size
		assert.Error(t, s.UnmarshalText([]byte(bad)), bad)
		assert.Zero(t, s, bad)
	}
}

func TestDurationsHaveOneCanonicalSpelling(t *testing.T) {
	for text, want := range map[string]string{
		"0": "0s", "0s": "0s", "500ms": "500ms", "30s": "30s", "60s": "1m", "90s": "1m30s", "120m": "2h",
		"1h30m": "1h30m", "1h0m5s": "1h0m5s", "10s": "10s", "1h10m0s": "1h10m", "20h": "20h", "1.5s": "1.5s",
	} {
		var d config.Duration
		require.NoError(t, d.UnmarshalText([]byte(text)), text)
		assert.Equal(t, want, d.String(), text)
		again, err := time.ParseDuration(d.String())
		require.NoError(t, err)
		assert.Equal(t, d.Std(), again)
	}
	for _, bad := range []string{"", "5", "-1s", "1 s", "1d", "soon", "9999999h"} {
		var d config.Duration
		assert.Error(t, d.UnmarshalText([]byte(bad)), bad)
		assert.Zero(t, d, bad)
	}
}

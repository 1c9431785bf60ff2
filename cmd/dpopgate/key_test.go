package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
)

func TestKeyNewWritesAPrivateFileOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client.jwk")
	made := shell{}.run(t, "key", "new", "-o", path)
	require.Equal(t, exitOK, made.code, made.stderr)
	assert.Empty(t, made.stdout)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	before, err := os.ReadFile(path)
	require.NoError(t, err)

	thumbprint := shell{}.run(t, "key", "thumbprint", path)
	require.Equal(t, exitOK, thumbprint.code, thumbprint.stderr)
	assert.Equal(t, "thumbprint "+thumbprint.stdout+
		"next: dpopgate token issue --client UUID --scope SCOPE --key "+path+"\n", made.stderr)

	again := shell{}.run(t, "key", "new", "-o", path)
	assert.Equal(t, exitFailure, again.code)
	assert.Contains(t, again.stderr, "is there already, and a key is never overwritten")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, before, after)
}

func TestKeyThumbprintReadsStdin(t *testing.T) {
	made := shell{}.run(t, "key", "new", "--alg", "EdDSA")
	require.Equal(t, exitOK, made.code, made.stderr)
	read := shell{stdin: made.stdout}.run(t, "key", "thumbprint", "-")
	require.Equal(t, exitOK, read.code, read.stderr)
	assert.Contains(t, made.stderr, "--jkt "+read.stdout)
}

func TestKeyCommandsSayWhatIsWrong(t *testing.T) {
	secret := `{"kty":"EC","crv":"P-256","d":"c2VjcmV0"}`
	for name, c := range map[string]struct {
		stdin string
		args  []string
		code  int
		want  string
	}{
		"unknown algorithm": {args: []string{"key", "new", "--alg", "HS256"}, code: exitUsage, want: `--alg "HS256": want one of ES256`},
		"empty file name":   {args: []string{"key", "new", "-o", ""}, code: exitUsage, want: "-o wants the name of a file"},
		"no such file":      {args: []string{"key", "thumbprint", "none.jwk"}, code: exitFailure, want: "reading the key: open none.jwk: no such file"},
		"not a key":         {stdin: secret, args: []string{"key", "thumbprint", "-"}, code: exitFailure, want: "reading the key in stdin: neither a JWK nor a PEM key"},
		"too large":         {stdin: strings.Repeat(" ", maxSmall+1), args: []string{"key", "thumbprint", "-"}, code: exitFailure, want: "stdin holds more than 64 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			got := shell{stdin: c.stdin}.run(t, c.args...)
			assert.Equal(t, c.code, got.code)
			assert.Contains(t, got.stderr, c.want)
			assert.Equal(t, 1, strings.Count(got.stderr, "\n"), got.stderr)
			assert.NotContains(t, got.stderr, "c2VjcmV0")
		})
	}
}

func TestProofPassesTheVerifier(t *testing.T) {
	const token, nonce = "a-token", "a-nonce"
	for _, alg := range []string{"ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "RS256"} {
		t.Run(alg, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "client.jwk")
			require.Equal(t, exitOK, shell{}.run(t, "key", "new", "--alg", alg, "-o", path).code)
			got := shell{stdin: token + "\n"}.run(t, "proof", "--key", path, "--method", "POST",
				"--url", "https://api.example.com/orders/1?page=2#top", "--token", "-", "--nonce", nonce)
			require.Equal(t, exitOK, got.code, got.stderr)

			verifier := dpop.Verifier{
				Algorithms:   dpop.Algorithms{dpop.Algorithm(alg)},
				MaxAge:       time.Minute,
				MaxSkew:      time.Second,
				MaxProofSize: 8 << 10,
				Replay:       cache.NewProofs(1<<20, nil),
			}
			proof, err := verifier.Parse(strings.TrimSuffix(got.stdout, "\n"))
			require.NoError(t, err)
			assert.Equal(t, nonce, proof.Nonce)
			origin, err := dpop.ParseOrigin("https://api.example.com")
			require.NoError(t, err)
			accepted, err := verifier.Check(proof, dpop.Request{
				Method: "POST", Target: origin.Target("/orders/1"), Token: token, Nonce: dpop.NonceOff, Now: time.Now(),
			})
			require.NoError(t, err)
			require.NoError(t, proof.VerifySignature())
			require.NoError(t, verifier.Claim(t.Context(), proof, accepted))
			assert.Equal(t, shell{}.run(t, "key", "thumbprint", path).stdout, string(proof.Thumbprint)+"\n")
		})
	}
}

func TestProofSaysWhatIsWrong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client.jwk")
	require.Equal(t, exitOK, shell{}.run(t, "key", "new", "-o", path).code)
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"flags missing":     {[]string{"--key", path}, exitUsage, "dpopgate proof wants --method and --url"},
		"method lower case": {[]string{"--key", path, "--method", "get", "--url", "https://a.example"}, exitUsage, "want GET"},
		"URL relative":      {[]string{"--key", path, "--method", "GET", "--url", "/orders"}, exitUsage, "--url: not an absolute http or https URL"},
		"both from stdin":   {[]string{"--key", "-", "--method", "GET", "--url", "https://a.example", "--token", "-"}, exitUsage, "cannot both be read from stdin"},
		"token empty":       {[]string{"--key", path, "--method", "GET", "--url", "https://a.example", "--token", ""}, exitFailure, "the token is empty"},
		"token of two":      {[]string{"--key", path, "--method", "GET", "--url", "https://a.example", "--token", "one two"}, exitFailure, "the token is not one word"},
	} {
		t.Run(name, func(t *testing.T) {
			got := shell{}.run(t, append([]string{"proof"}, c.args...)...)
			assert.Equal(t, c.code, got.code)
			assert.Empty(t, got.stdout)
			assert.Contains(t, got.stderr, c.want)
			assert.NotContains(t, got.stderr, "one two")
		})
	}
}

package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// gRPC's own client and server, which testdata/grpc pins, with a gateway between them.
type grpcPair struct {
	*httpsGateway
	program string  // the client
	heard   *output // the server's address, and a line for each call
	root    string  // file of the CA that the gateway's certificate is of
}

// startGRPC starts a gateway and, behind it, a server in cleartext or with TLS.
func startGRPC(t *testing.T, secure bool, nonce string) *grpcPair {
	t.Helper()
	p := &grpcPair{program: program(t, "DPOPGATE_TEST_GRPC_CLIENT"), heard: &output{changed: make(chan struct{}, 1)}}
	ca := newLocalCA(t)
	rootFile := filepath.Join(t.TempDir(), "root.pem")
	require.NoError(t, os.WriteFile(rootFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.root.Raw}), 0o600))
	p.root = rootFile
	scheme, settings, args := "http", "h2c: true", []string{}
	if secure {
		files := issueFiles(t, ca, "legacy.example.test")
		scheme, settings = "https", fmt.Sprintf("tls: {ca_file: %q, server_name: legacy.example.test}", rootFile)
		args = []string{"-cert", files.CertFile, "-key", files.KeyFile}
	}
	server := exec.Command(program(t, "DPOPGATE_TEST_GRPC_SERVER"), args...)
	server.Stdout, server.Stderr = p.heard, os.Stderr
	require.NoError(t, server.Start())
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	at := p.heard.await(t, regexp.MustCompile(`^(127\.0\.0\.1:\d+)\n`))[1]

	files := issueFiles(t, ca, "api.example.test")
	p.httpsGateway = newHTTPSGateway(t, fmt.Sprintf("{certificate: {cert_file: %q, key_file: %q}}", files.CertFile, files.KeyFile), "", "api.example.test")
	p.routes = "  - {match: POST /grpc.testing.TestService/, upstream: calls, scopes: [a], nonce: " + nonce + "}"
	p.more = fmt.Sprintf("upstreams:\n  calls: {targets: [%q], %s}\nlimits: {drain_delay: 0s}\ncache: {ttl: 10ms}\n", scheme+"://"+at, settings)
	p.roots = x509.NewCertPool()
	p.roots.AddCert(ca.root)
	p.start(t)
	return p
}

// calls starts the client with calls to make.
func (p *grpcPair) calls(t *testing.T, keyFile, token string, names ...string) (said *output, wait func() error) {
	t.Helper()
	client := exec.Command(p.program, append([]string{"-address", p.https, "-authority", strings.TrimPrefix(p.at("api.example.test"), "https://"), "-roots", p.root, "-key", keyFile}, names...)...)
	said = &output{changed: make(chan struct{}, 1)}
	client.Stdin, client.Stdout, client.Stderr = strings.NewReader(token), said, said
	require.NoError(t, client.Start())
	t.Cleanup(func() { client.Process.Kill(); client.Wait() })
	return said, client.Wait
}

func TestGRPCGoesThrough(t *testing.T) {
	for name, secure := range map[string]bool{"h2c": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startGRPC(t, secure, map[bool]string{false: "required", true: "auto"}[secure])
			_, keyFile, token := p.credentials(t)

			t.Run("in all kinds of calls", func(t *testing.T) {
				names := []string{
					"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "custom_metadata",
					"status_code_and_message", "special_status_message", "timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
				}
				said, wait := p.calls(t, keyFile, token, names...)
				require.NoError(t, wait(), said.String())
				assert.Equal(t, strings.Join(names, " passed\n")+" passed\n", said.String())
				lines := strings.Split(strings.TrimSpace(p.heard.String()), "\n")[1:]
				assert.GreaterOrEqual(t, len(lines), len(names))
				for _, line := range lines {
					assert.Regexp(t, `^/grpc\.testing\.TestService/\w+ \[7d0c3a52-4a0e-4b57-9f0e-6d1a0c6d2b11\] \[a\] 0$`, line, "who calls, without the credentials")
				}
			})

			t.Run("and no thief", func(t *testing.T) {
				heard := p.heard.String()
				said, wait := p.calls(t, newClientKey(t), token, "refused")
				require.NoError(t, wait(), said.String())
				assert.Equal(t, "refused Unauthenticated \"invalid_token: the token is bound to another key\"\n", said.String())
				assert.Equal(t, heard, p.heard.String(), "what the server was told")
			})

			t.Run("until the token ends", func(t *testing.T) {
				said, wait := p.calls(t, keyFile, token, "empty_unary", "hold") // the first one brings a nonce
				said.await(t, regexp.MustCompile(`(?m)^open$`))
				revoked := shell{stdin: token}.run(t, "token", "revoke", "-c", p.path, "-")
				require.Equal(t, exitOK, revoked.code, revoked.stderr)
				require.NoError(t, wait(), said.String())
				assert.Equal(t, "empty_unary passed\nopen\nended Unauthenticated \"the token is unknown, expired or revoked\"\n", said.String())
				said, wait = p.calls(t, keyFile, token, "refused")
				require.NoError(t, wait(), said.String())
				assert.Contains(t, said.String(), "refused Unauthenticated ")
			})
		})
	}
}

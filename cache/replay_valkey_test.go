package cache_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/valkey-io/valkey-go"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// valkeyVariable names the environment variable with the URL of a running server.
const valkeyVariable = "DPOPGATE_TEST_REDIS"

// valkeyURL is the server that all tests share. Without it a test fails in CI and is skipped elsewhere.
func valkeyURL(t testing.TB) string {
	t.Helper()
	server := os.Getenv(valkeyVariable)
	if server == "" {
		lacking(t, valkeyVariable+" is not set: ./test starts a Redis server and sets it")
	}
	return server
}

func lacking(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func openValkeyProofs(t testing.TB, url string, o cache.ValkeyProofsOptions) *cache.ValkeyProofs {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = patient
	}
	p, err := cache.OpenValkeyProofs(url, o)
	require.NoError(t, err)
	closeLater(t, p)
	return p
}

// openPair opens two instances that share a server, with little slack: a key is then free soon after its end.
func openPair(url string, slack time.Duration) openReplay {
	return func(t testing.TB, now func() time.Time) []dpop.Replay {
		one, other := openValkeyProofs(t, url, cache.ValkeyProofsOptions{Now: now}), openValkeyProofs(t, url, cache.ValkeyProofsOptions{Now: now})
		one.SetSlack(slack)
		other.SetSlack(slack)
		return []dpop.Replay{one, other}
	}
}

func TestValkeyProofs(t *testing.T) {
	testReplay(t, openPair(valkeyURL(t), 500*time.Millisecond))
}

// attack: 179
func TestValkeyProofsOutage(t *testing.T) {
	u, err := url.Parse(valkeyURL(t))
	require.NoError(t, err)
	link := tokenstoretest.NewRelay(t, u.Host)
	u.Host = link.Address()
	testReplayOutage(t, link, func(t *testing.T) dpop.Replay {
		return openValkeyProofs(t, u.String(), cache.ValkeyProofsOptions{Timeout: 200 * time.Millisecond})
	})
}

// The server's clock counts: an instance whose own is behind by any amount takes nothing that was forgotten. A server
// agrees to set what is to expire in its past, each time anew.
func TestValkeyProofsRefusesWhatTheServerMayHaveForgotten(t *testing.T) {
	behind := newClock()
	behind.set(time.Now().Add(-time.Hour))
	r := newReplay(openPair(valkeyURL(t), time.Minute)(t, behind.now)...)
	for range 4 {
		fresh, err := r.Claim(t.Context(), r.key(1), behind.now().Add(time.Minute))
		assert.ErrorIs(t, err, cache.ErrClocks)
		assert.False(t, fresh)
	}
	r = newReplay(openPair(valkeyURL(t), 2*time.Hour)(t, behind.now)...)
	assert.True(t, r.claim(t, r.key(1), behind.now().Add(time.Minute)))
	assert.False(t, r.claim(t, r.key(1), behind.now().Add(time.Minute)))
}

// server is a Redis or Valkey server of one test.
type server struct {
	address string
	start   func()
	process *os.Process
}

// newServer starts a server with some more options.
func newServer(t *testing.T, options ...string) *server {
	t.Helper()
	program := ""
	for _, name := range []string{"valkey-server", "redis-server"} {
		if path, err := exec.LookPath(name); err == nil && program == "" {
			program = path
		}
	}
	if program == "" {
		lacking(t, "neither valkey-server nor redis-server is installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &server{address: l.Addr().String()}
	l.Close()
	_, port, _ := net.SplitHostPort(s.address)
	dir := t.TempDir()
	s.start = func() {
		c := exec.Command(program, append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no"}, options...)...)
		var out bytes.Buffer
		c.Stdout = &out
		require.NoError(t, c.Start())
		s.process = c.Process
		gone := make(chan struct{})
		go func() { c.Wait(); close(gone) }()
		t.Cleanup(func() { c.Process.Kill(); <-gone })
		require.Eventually(t, func() bool {
			conn, err := net.Dial("tcp", s.address)
			if err == nil {
				conn.Close()
			}
			return err == nil
		}, patient, 5*time.Millisecond)
	}
	s.start()
	return s
}

func (s *server) url() string { return "redis://" + s.address }

// run has the server run a command, as its default user.
func (s *server) run(t *testing.T, command ...string) {
	t.Helper()
	c, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{s.address}, DisableCache: true, ForceSingleClient: true})
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.Do(t.Context(), c.B().Arbitrary(command...).Build()).Error())
}

// Killed without having saved anything, the server has forgotten all. Instances still know what they took themselves.
func TestValkeyProofsSurvivesItsServer(t *testing.T) {
	s := newServer(t)
	var log bytes.Buffer
	p := openValkeyProofs(t, s.url(), cache.ValkeyProofsOptions{Timeout: 500 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
	r := newReplay(p)
	until := time.Now().Add(time.Hour)
	assert.True(t, r.claim(t, r.key(1), until))

	require.NoError(t, s.process.Kill())
	require.Eventually(t, func() bool { return p.Ping(t.Context()) != nil }, patient, time.Millisecond)
	won, failed := race(r, r.key(2), until)
	assert.Zero(t, won)
	assert.EqualValues(t, 200, failed)
	fresh, err := r.Claim(t.Context(), r.key(1), until)
	require.Error(t, err)
	assert.False(t, fresh)

	s.start()
	recovers(t, r, 10)
	assert.False(t, r.claim(t, r.key(1), until))
	assert.True(t, r.claim(t, r.key(2), until), "a failed claim took nothing")
	assert.Equal(t, 1, strings.Count(log.String(), "replay store does not answer"))
	assert.Equal(t, 1, strings.Count(log.String(), "replay store answers"))
}

// attack: 179
func TestValkeyProofsWaitsForNoFrozenServer(t *testing.T) {
	s := newServer(t)
	warm := newReplay(openValkeyProofs(t, s.url(), cache.ValkeyProofsOptions{Timeout: 100 * time.Millisecond}))
	recovers(t, warm, 10)
	require.NoError(t, s.process.Signal(syscall.SIGSTOP))
	cold := newReplay(openValkeyProofs(t, s.url(), cache.ValkeyProofsOptions{Timeout: 100 * time.Millisecond}))
	for _, r := range []*replay{warm, cold} {
		won, failed := race(r, r.key(1), time.Now().Add(time.Minute))
		assert.Zero(t, won)
		assert.EqualValues(t, 200, failed)
	}
	require.NoError(t, s.process.Signal(syscall.SIGCONT))
	recovers(t, warm, 100)
	recovers(t, cold, 100)
}

func TestValkeyProofsOpensWithoutItsServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l.Close()
	p := openValkeyProofs(t, "redis://user:s3cret@"+l.Addr().String(), cache.ValkeyProofsOptions{})
	fresh, err := p.Claim(t.Context(), dpop.ReplayKey{}, time.Now().Add(time.Minute))
	require.ErrorContains(t, err, "claiming a proof: connecting to the replay store: ")
	assert.NotContains(t, err.Error(), "s3cret")
	assert.False(t, fresh)
	require.NoError(t, p.Close())
	_, err = p.Claim(t.Context(), dpop.ReplayKey{}, time.Now().Add(time.Minute))
	assert.Error(t, err)
}

func TestValkeyProofsNeedsTwoCommands(t *testing.T) {
	s := newServer(t)
	s.run(t, "ACL", "SETUSER", "gate", "on", ">p@ss/word:?", "~dpopgate:proof:*", "+set", "+pttl")
	s.run(t, "ACL", "SETUSER", "reader", "on", ">secret", "~dpopgate:proof:*", "+pttl")
	s.run(t, "ACL", "SETUSER", "default", "off")
	as := func(userinfo string) *cache.ValkeyProofs {
		return openValkeyProofs(t, "redis://"+userinfo+"@"+s.address, cache.ValkeyProofsOptions{})
	}
	gate := as("gate:p%40ss%2fword:%3F")
	require.NoError(t, gate.Ping(t.Context()))
	r := newReplay(gate)
	assert.True(t, r.claim(t, r.key(1), time.Now().Add(time.Minute)))
	assert.False(t, r.claim(t, r.key(1), time.Now().Add(time.Minute)))
	doubts, err := gate.Check(t.Context())
	require.NoError(t, err)
	assert.Contains(t, strings.Join(doubts, "\n"), "does not answer INFO")

	assert.ErrorContains(t, as("reader:secret").Ping(t.Context()), "the user needs the commands SET and PTTL on dpopgate:proof:*")
	err = as("gate:wrong-s3cret").Ping(t.Context())
	assert.ErrorContains(t, err, "WRONGPASS")
	assert.NotContains(t, err.Error(), "s3cret")
	assert.ErrorContains(t, openValkeyProofs(t, s.url(), cache.ValkeyProofsOptions{}).Ping(t.Context()), "NOAUTH")
}

func TestValkeyProofsTellsWhatCouldForget(t *testing.T) {
	s := newServer(t, "--appendonly", "yes")
	p := openValkeyProofs(t, s.url(), cache.ValkeyProofsOptions{})
	check := func(p *cache.ValkeyProofs) string {
		doubts, err := p.Check(t.Context())
		require.NoError(t, err)
		return strings.Join(doubts, "\n")
	}
	assert.Empty(t, check(p))
	s.run(t, "CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
	assert.Empty(t, check(p), "without maxmemory there is no eviction")
	s.run(t, "CONFIG", "SET", "maxmemory", "100mb")
	assert.Equal(t, s.address+": maxmemory-policy is volatile-ttl: it forgets used proofs when its memory is full; set noeviction", check(p))
	s.run(t, "CONFIG", "SET", "maxmemory-policy", "noeviction")
	s.run(t, "CONFIG", "SET", "appendonly", "no")
	assert.Contains(t, check(p), s.address+": appendonly is no")
	behind := newClock()
	behind.set(time.Now().Add(-time.Hour))
	assert.Contains(t, check(openValkeyProofs(t, s.url(), cache.ValkeyProofsOptions{Now: behind.now})), "differ by 1h0m")
}

func TestValkeyProofsIsFullWhenTheServerIs(t *testing.T) {
	s := newServer(t, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
	p := openValkeyProofs(t, s.url(), cache.ValkeyProofsOptions{})
	fresh, err := p.Claim(t.Context(), dpop.ReplayKey{}, time.Now().Add(time.Minute))
	assert.ErrorIs(t, err, dpop.ErrReplayFull)
	assert.False(t, fresh)
}

func TestValkeyProofsLeavesAReplica(t *testing.T) {
	s := newServer(t)
	p := openValkeyProofs(t, s.url(), cache.ValkeyProofsOptions{})
	r := newReplay(p)
	recovers(t, r, 10)
	s.run(t, "REPLICAOF", "127.0.0.1", "1")
	assert.ErrorContains(t, p.Ping(t.Context()), "this server is a replica: name the primary")
	_, err := r.Claim(t.Context(), r.key(1), time.Now().Add(time.Minute))
	assert.Error(t, err)
	s.run(t, "REPLICAOF", "NO", "ONE")
	recovers(t, r, 100)
}

func TestValkeyProofsOnACluster(t *testing.T) {
	s := newServer(t, "--cluster-enabled", "yes")
	s.run(t, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	one := openValkeyProofs(t, s.url(), cache.ValkeyProofsOptions{})
	recovers(t, newReplay(one), 1) // the cluster needs a moment
	t.Run("one seed", func(t *testing.T) { testReplay(t, openPair(s.url(), 500*time.Millisecond)) })
	t.Run("two seeds", func(t *testing.T) {
		dead, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		dead.Close()
		r := newReplay(openValkeyProofs(t, "redis://"+dead.Addr().String()+","+s.address, cache.ValkeyProofsOptions{}))
		recovers(t, r, 1)
	})
}

func TestValkeyProofsOverTLS(t *testing.T) {
	certFile, keyFile, roots := selfSigned(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	secure := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(secure)
	newServer(t, "--tls-port", port, "--tls-cert-file", certFile, "--tls-key-file", keyFile, "--tls-auth-clients", "no")

	p := openValkeyProofs(t, "rediss://localhost:"+port, cache.ValkeyProofsOptions{})
	assert.ErrorContains(t, p.Ping(t.Context()), "certificate", "it is checked")
	p = openValkeyProofs(t, "valkeys://localhost:"+port, cache.ValkeyProofsOptions{})
	p.Trust(roots)
	r := newReplay(p)
	recovers(t, r, 10)
	p = openValkeyProofs(t, "rediss://127.0.0.1:"+port, cache.ValkeyProofsOptions{})
	p.Trust(roots)
	assert.ErrorContains(t, p.Ping(t.Context()), "127.0.0.1", "it is for localhost")
}

// selfSigned is a certificate for localhost.
func selfSigned(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	parsed, err := x509.ParseCertificate(cert)
	require.NoError(t, err)
	roots = x509.NewCertPool()
	roots.AddCert(parsed)
	return write("cert.pem", "CERTIFICATE", cert), write("key.pem", "PRIVATE KEY", der), roots
}

// Some servers repeat a command that they do not know, and the first of all commands holds the password.
func TestValkeyProofsNeverShowsThePassword(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4096)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					said := strings.NewReplacer("\r", " ", "\n", " ").Replace(string(buf[:n]))
					if _, err := c.Write([]byte(strings.Repeat("-ERR what is "+said+"\r\n", strings.Count(said, "*")))); err != nil {
						return
					}
				}
			}()
		}
	}()
	p := openValkeyProofs(t, "redis://:s3cret@"+l.Addr().String(), cache.ValkeyProofsOptions{})
	err = p.Ping(context.Background())
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "s3cret")

	for url, want := range map[string]string{
		"":                                "not a URL of a replay store",
		"s3cret":                          "not a URL of a replay store",
		"http://:s3cret@host":             "not a URL of a replay store",
		"redis:s3cret@host":               "not a URL of a replay store",
		"redis://:s3cret":                 "host 1 in the URL of the replay store has no name or address",
		"redis://:s3cret@":                "host 1 in the URL of the replay store has no name or address",
		"redis://:s3cret@host:port":       "host 1 in the URL of the replay store has no port from 1 to 65535",
		"redis://:s3cret@a:1,b:0":         "host 2 in the URL of the replay store has no port from 1 to 65535",
		"redis://:s3cret@a,,b":            "host 2 in the URL of the replay store has no name or address",
		"redis://:s3cret@::1":             "host 1 in the URL of the replay store is not host:port",
		"redis://:s3cret%zz@host":         "has an invalid % escape",
		"redis://:s3cret/x@host":          "has a / before an @",
		"redis://:s3cret?x@host":          "has a query or fragment",
		"redis://:s3cret@host/s3cret":     "is no database number",
		"redis://:s3cret@host/-1":         "is no database number",
		"redis://:s3cret@a,b/1":           "a cluster has no other database than 0",
		"rediss://:s3cret@host?tls=false": "has a query or fragment",
	} {
		_, err := cache.OpenValkeyProofs(url, cache.ValkeyProofsOptions{})
		if assert.ErrorContains(t, err, want, url) {
			assert.NotContains(t, err.Error(), "s3cret")
		}
	}
}

func TestValkeyURLsAreRead(t *testing.T) {
	for url, want := range map[string]cache.ValkeyTarget{
		"redis://localhost":                  {Addresses: []string{"localhost:6379"}},
		"valkey://localhost/":                {Addresses: []string{"localhost:6379"}},
		"REDIS://10.0.0.1:7000/3":            {Addresses: []string{"10.0.0.1:7000"}, Database: 3},
		"redis://[::1]:7000":                 {Addresses: []string{"[::1]:7000"}},
		"redis://[::1]":                      {Addresses: []string{"[::1]:6379"}},
		"rediss://:pa%2Fss@cache.example":    {Addresses: []string{"cache.example:6379"}, Password: "pa/ss", ServerName: "cache.example"},
		"valkeys://us%3Aer:p:w@a:1,b,[::1]":  {Addresses: []string{"a:1", "b:6379", "[::1]:6379"}, User: "us:er", Password: "p:w", ServerName: "a"},
		"redis://user:at@the%20rate@host/15": {Addresses: []string{"host:6379"}, User: "user", Password: "at@the rate", Database: 15},
	} {
		got, err := cache.ParseValkeyURL(url)
		require.NoError(t, err, url)
		assert.Equal(t, want, got, url)
	}
}

func BenchmarkValkeyProofs(b *testing.B) {
	server := valkeyURL(b)
	benchmarkReplay(b, func(b testing.TB, now func() time.Time) []dpop.Replay {
		return []dpop.Replay{openValkeyProofs(b, server, cache.ValkeyProofsOptions{Now: now})}
	})
}

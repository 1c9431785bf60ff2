package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/dpop"
)

// poster sends signed POSTs, one after the other, on a connection that it keeps for as long as it is let. It never sends
// one twice.
type poster struct {
	p     *process
	key   *dpop.Key
	token string
	dial  func() (net.Conn, error)
	conn  net.Conn
	in    *bufio.Reader
}

func (c *poster) proof() string {
	proof, err := c.key.Sign(dpop.Claims{Method: "POST", URL: c.p.url + "/orders/", Token: c.token})
	if err != nil {
		panic(err)
	}
	return proof
}

// post sends one POST. An error means that it may be lost: nobody could send it again and be sure that it is done once.
func (c *poster) post(id, proof string) (status int, body []byte, err error) {
	if c.conn == nil {
		if c.conn, err = c.dial(); err != nil {
			return 0, nil, err
		}
		c.in = bufio.NewReader(c.conn)
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	_, host, _ := bytes.Cut([]byte(c.p.url), []byte("://"))
	var r bytes.Buffer
	fmt.Fprintf(&r, "POST /orders/ HTTP/1.1\r\nHost: %s\r\nAuthorization: DPoP %s\r\nDPoP: %s\r\nContent-Length: %d\r\n\r\n%s", host, c.token, proof, len(id), id)
	c.conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.conn.Write(r.Bytes()); err != nil {
		return 0, nil, err
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, nil, err
	}
	if body, err = io.ReadAll(res.Body); err != nil {
		return 0, nil, err
	}
	if res.Close {
		c.close()
	}
	return res.StatusCode, body, nil
}

func (c *poster) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// ledger is an upstream that writes down each POST by its body.
type ledger struct {
	mu   sync.Mutex
	seen map[string]int
}

func newLedger(t *testing.T) (url string, l *ledger) {
	t.Helper()
	l = &ledger{seen: map[string]int{}}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		id, _ := io.ReadAll(r.Body)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.seen[string(id)]++
	}))
	t.Cleanup(s.Close)
	return s.URL, l
}

// fromEnvironment is a number in the environment, for a longer run.
func fromEnvironment(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text, ok := os.LookupEnv(name)
	if !ok {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}

// trusting makes a client trust the local CA of a process.
func (p *process) trusting(t *testing.T, protocols ...string) *tls.Config {
	t.Helper()
	root, err := os.ReadFile(rootFile(filepath.Join(filepath.Dir(p.path), "ca")))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(root))
	return &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: protocols}
}

func dialTLS(address string, c *tls.Config) func() (net.Conn, error) {
	return func() (net.Conn, error) { return tls.Dial("tcp", address, c) }
}

// Clients that keep their connections send POSTs through one hand-over after the other, half of them without a pause and
// half with one of 200 ms. Each arrives once, none is lost or refused, and every tenth proof is shown again at once, on a
// connection of its own, to whichever process takes that: nobody lets it through.
//
// DPOPGATE_TEST_POSTS and DPOPGATE_TEST_HANDOVERS make it longer.
//
// attack: 183
func TestHandOverLosesNothing(t *testing.T) {
	posts, handOvers := fromEnvironment(t, "DPOPGATE_TEST_POSTS", 300), fromEnvironment(t, "DPOPGATE_TEST_HANDOVERS", 2)
	for name, scheme := range map[string]string{"cleartext": "http", "TLS": "https"} {
		t.Run(name, func(t *testing.T) {
			upstream, ledger := newLedger(t)
			p := newProcess(t, scheme, "limits: {drain_delay: 1s}\nroutes:\n  - {match: POST /orders/, upstream: "+upstream+", scopes: [a]}")
			p.start(t)
			dial := func() (net.Conn, error) { return net.Dial("tcp", p.address()) }
			if scheme == "https" {
				dial = dialTLS(p.address(), p.trusting(t))
			}
			var sent, replays atomic.Int64
			var workers sync.WaitGroup
			over := make(chan struct{})
			end := sync.OnceFunc(func() { close(over); workers.Wait() })
			defer end()
			for worker := range 8 {
				key, token := p.credentials(t, "a")
				pause := time.Duration(worker%2) * 200 * time.Millisecond
				workers.Go(func() {
					c := &poster{p: p, key: key, token: token, dial: dial}
					defer c.close()
					for i := 0; ; i++ {
						select {
						case <-over:
							if sent.Load() >= int64(posts) || t.Failed() {
								return
							}
						default:
						}
						sent.Add(1)
						proof := c.proof()
						status, body, err := c.post(fmt.Sprintf("%d-%d", worker, i), proof)
						if !assert.NoError(t, err) || !assert.Equal(t, http.StatusOK, status, "%s", body) {
							return
						}
						if i%10 == 0 {
							replays.Add(1)
							thief := &poster{p: p, key: key, token: token, dial: dial}
							status, body, err := thief.post("stolen", proof)
							thief.close()
							if !assert.NoError(t, err) || !assert.Equal(t, http.StatusUnauthorized, status, "%s", body) {
								return
							}
						}
						time.Sleep(pause)
					}
				})
			}
			for range handOvers {
				p.handOver(t)
			}
			end()
			assert.Len(t, ledger.seen, int(sent.Load()), "what the upstream saw")
			for id, times := range ledger.seen {
				assert.Equal(t, 1, times, id)
			}
			t.Logf("%d POSTs, %d replays, %d hand-overs", sent.Load(), replays.Load(), handOvers)
			p.signal(t, syscall.SIGTERM)
			p.await(t, `\nended\n`)
			assert.NotContains(t, p.log.String(), `"level":"ERROR"`)
			assert.NotContains(t, p.log.String(), "cut off")
		})
	}
}

// Over HTTP/2 a connection ends with a GOAWAY, which says what was not served and is to be sent again. Nothing that was
// is.
func TestHandOverLosesNothingOverHTTP2(t *testing.T) {
	handOvers := fromEnvironment(t, "DPOPGATE_TEST_HANDOVERS", 2)
	upstream, ledger := newLedger(t)
	p := newProcess(t, "https", "limits: {drain_delay: 1s}\nroutes:\n  - {match: POST /orders/, upstream: "+upstream+", public: true}")
	p.start(t)
	transport := &http.Transport{TLSClientConfig: p.trusting(t), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	var sent atomic.Int64
	var workers sync.WaitGroup
	over := make(chan struct{})
	end := sync.OnceFunc(func() { close(over); workers.Wait() })
	defer end()
	for worker := range 8 {
		workers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				sent.Add(1)
				res, err := (&http.Client{Transport: transport}).Post(p.url+"/orders/", "text/plain", bytes.NewReader(fmt.Appendf(nil, "%d-%d", worker, i)))
				if !assert.NoError(t, err) {
					return
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if !assert.Equal(t, http.StatusOK, res.StatusCode) || !assert.Equal(t, 2, res.ProtoMajor) {
					return
				}
				time.Sleep(time.Duration(worker%2) * 200 * time.Millisecond)
			}
		})
	}
	for range handOvers {
		p.handOver(t)
	}
	end()
	assert.Len(t, ledger.seen, int(sent.Load()), "what the upstream saw")
	for id, times := range ledger.seen {
		assert.Equal(t, 1, times, id)
	}
	t.Logf("%d POSTs, %d hand-overs", sent.Load(), handOvers)
}

package cache_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
)

// client signs proofs, and verifies them with the help of a memory.
type client struct {
	t    testing.TB
	key  *dpop.Key
	with *dpop.Verifier
}

func newClient(t testing.TB, m dpop.Headers, alg dpop.Algorithm) client {
	key, err := dpop.NewKey(alg)
	require.NoError(t, err)
	return client{t, key, &dpop.Verifier{Algorithms: dpop.Algorithms{alg}, MaxProofSize: 8 << 10, Headers: m}}
}

// come has n more proofs of the client verified.
func (c client) come(n int) {
	for range n {
		raw, err := c.key.Sign(dpop.Claims{Method: "GET", URL: "https://api.example.test/"})
		require.NoError(c.t, err)
		p, err := c.with.Parse(raw)
		require.NoError(c.t, err)
		require.NoError(c.t, c.with.VerifySignature(p))
	}
}

// header is how the client spells the header of its proofs.
func (c client) header() string {
	raw, err := c.key.Sign(dpop.Claims{Method: "GET", URL: "https://api.example.test/"})
	require.NoError(c.t, err)
	text, _, _ := strings.Cut(raw, ".")
	return text
}

func TestHeadersRemembersWhoWasVerified(t *testing.T) {
	m := cache.NewHeaders(cache.HeadersOptions{Tables: true})
	for _, alg := range []dpop.Algorithm{dpop.ES256, dpop.ES384, dpop.EdDSA, dpop.RS256} {
		t.Run(string(alg), func(t *testing.T) {
			c := newClient(t, m, alg)
			text := c.header()
			raw, err := c.key.Sign(dpop.Claims{Method: "GET", URL: "https://api.example.test/"})
			require.NoError(t, err)
			_, err = c.with.Parse(raw)
			require.NoError(t, err)
			assert.Nil(t, m.Recall(text), "a proof that was only read")
			c.come(1)
			known := m.Recall(text)
			require.NotNil(t, known)
			assert.Equal(t, c.key.Thumbprint(), known.Header().Thumbprint)
			assert.Equal(t, alg, known.Header().Algorithm)
			for _, other := range []string{"", text[1:], text + "A", text[:len(text)-1]} {
				assert.Nil(t, m.Recall(other), "another spelling")
			}
			for _, n := range []int{1, 1, 3} {
				c.come(n)
			}
			assert.Equal(t, alg == dpop.ES256, cache.HasTable(known), "from the third proof on")
		})
	}
	assert.True(t, cache.UsesTables(m))
}

func TestHeadersBuildsNoTableForWhoComesTwice(t *testing.T) {
	m := cache.NewHeaders(cache.HeadersOptions{Tables: true})
	c := newClient(t, m, dpop.ES256)
	c.come(2)
	assert.False(t, cache.HasTable(m.Recall(c.header())))
	c.come(1)
	assert.True(t, cache.HasTable(m.Recall(c.header())))
}

func TestHeadersBuildsNoTableUnlessTold(t *testing.T) {
	m := cache.NewHeaders(cache.HeadersOptions{})
	c := newClient(t, m, dpop.ES256)
	c.come(5)
	require.NotNil(t, m.Recall(c.header()))
	assert.False(t, cache.HasTable(m.Recall(c.header())))
}

func TestHeadersBuildsNoTableInFIPSMode(t *testing.T) {
	if os.Getenv("DPOPGATE_TEST_IN_FIPS_MODE") != "" {
		m := cache.NewHeaders(cache.HeadersOptions{Tables: true})
		c := newClient(t, m, dpop.ES256)
		c.come(5)
		fmt.Println("table:", cache.HasTable(m.Recall(c.header())))
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestHeadersBuildsNoTableInFIPSMode$", "-test.v")
	cmd.Env = append(os.Environ(), "DPOPGATE_TEST_IN_FIPS_MODE=1", "GODEBUG=fips140=on")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "table: false")
}

// A flood of clients, each with a token of its own, pushes out nobody who is there, and finds room again once those are
// gone.
func TestHeadersKeepsWhoIsThere(t *testing.T) {
	clock := newClock()
	m := cache.NewHeaders(cache.HeadersOptions{Now: clock.now})
	honest := newClient(t, m, dpop.ES256)
	honest.come(1)
	stranger := newClient(t, cache.NewHeaders(cache.HeadersOptions{}), dpop.ES256)
	stranger.come(1)
	read := stranger.with.Headers.Recall(stranger.header()).Header()
	flood := func(round string) (kept int) {
		for i := range 4 * cache.MaxHeaders {
			m.Keep(fmt.Sprint(round, i), read, "", nil)
		}
		for i := range 4 * cache.MaxHeaders {
			if m.Recall(fmt.Sprint(round, i)) != nil {
				kept++
			}
		}
		return kept
	}
	first := flood("a")
	assert.Greater(t, first, cache.MaxHeaders*9/10)
	assert.Less(t, first, cache.MaxHeaders, "one place was taken")
	assert.NotNil(t, m.Recall(honest.header()))
	assert.Zero(t, flood("b"), "while all places are in use")

	clock.advance(20 * time.Second)
	assert.NotNil(t, m.Recall(honest.header()), "which is a use")
	clock.advance(20 * time.Second)
	assert.Greater(t, flood("c"), cache.MaxHeaders*9/10)
	assert.NotNil(t, m.Recall(honest.header()), "who was there 20 s ago")
}

func TestHeadersRemembersNoLongHeader(t *testing.T) {
	m := cache.NewHeaders(cache.HeadersOptions{})
	c := newClient(t, m, dpop.ES256)
	c.come(1)
	read := m.Recall(c.header()).Header()
	for _, n := range []int{1536, 1537} {
		text := strings.Repeat("A", n)
		m.Keep(text, read, "", nil)
		assert.Equal(t, n == 1536, m.Recall(text) != nil, "%d", n)
	}
}

// What is built wrong must not decide anything: neither let in, nor keep out.
func TestHeadersGivesUpTablesThatAreWrong(t *testing.T) {
	t.Run("a table that refuses", func(t *testing.T) {
		var log bytes.Buffer
		m := cache.NewHeaders(cache.HeadersOptions{Tables: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
		c := newClient(t, m, dpop.ES256)
		c.come(3)
		cache.BreakTable(m.Recall(c.header()))
		c.come(1)
		assert.False(t, cache.UsesTables(m))
		c.come(3)
		assert.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), log.String())
	})
	t.Run("a table that accepts", func(t *testing.T) {
		var log bytes.Buffer
		m := cache.NewHeaders(cache.HeadersOptions{Tables: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
		c, thief := newClient(t, m, dpop.ES256), newClient(t, nil, dpop.ES256)
		c.come(3)
		thief.with = c.with
		cache.SwapTable(m.Recall(c.header()), thief.key)
		forged := signedBy(t, thief.key, c.header())
		for n := 0; cache.UsesTables(m); n++ {
			require.Less(t, n, 100_000, "none was looked at")
			p, err := c.with.Parse(forged)
			require.NoError(t, err)
			c.with.VerifySignature(p)
		}
		p, err := c.with.Parse(forged)
		require.NoError(t, err)
		assert.Error(t, c.with.VerifySignature(p))
		assert.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), log.String())
		c.come(2)
	})
}

func TestHeadersMayBeUsedConcurrently(t *testing.T) {
	m := cache.NewHeaders(cache.HeadersOptions{Tables: true})
	clients := make([]client, 4)
	for i := range clients {
		clients[i] = newClient(t, m, dpop.ES256)
	}
	var all sync.WaitGroup
	for range 4 {
		for _, c := range clients {
			all.Go(func() { c.come(10) })
		}
	}
	all.Wait()
	for _, c := range clients {
		assert.NotNil(t, m.Recall(c.header()))
	}
	assert.True(t, cache.UsesTables(m))
}

package tokenstore_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// attack: 172
func TestAFrozenDatabaseIsAnErrorInTime(t *testing.T) {
	dsn := guestDatabase(t)
	record := insert(t, openPostgres(t, dsn, tokenstore.PostgresOptions{}), nil)
	r, through := tokenstoretest.RelayTo(t, dsn)
	var log syncBuffer
	store := openPostgres(t, through, tokenstore.PostgresOptions{Timeout: 100 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
	warm(t, store, record.Digest)

	silences := func() int { return strings.Count(log.String(), "token store does not answer") }
	before := silences() // on a busy machine it can be late by itself
	r.Freeze()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			_, err := store.Lookup(context.Background(), record.Digest)
			assert.Error(t, err)
			assert.NotErrorIs(t, err, tokenstore.ErrNotFound)
		})
	}
	all.Wait() // without a bound of its own each of these would wait as long as the relay
	_, err := store.Lookup(context.Background(), record.Digest)
	assert.Error(t, err)
	assert.Equal(t, before+1, silences())

	r.Thaw()
	warm(t, store, record.Digest)
	assert.Contains(t, log.String(), "token store answers")
}

// A pool full of connections that the server has dropped costs no request.
func TestBrokenConnectionsAreReplaced(t *testing.T) {
	dsn := guestDatabase(t)
	record := insert(t, openPostgres(t, dsn, tokenstore.PostgresOptions{}), nil)
	r, through := tokenstoretest.RelayTo(t, dsn)
	store := openPostgres(t, through+"&pool_max_conns=4", tokenstore.PostgresOptions{})
	for range 3 {
		crowd(t, store, record.Digest)
		store.Later(time.Second)
		r.Cut()
		_, err := store.Lookup(t.Context(), record.Digest)
		require.NoError(t, err)
	}
}

// crowd looks a token up many times at once.
func crowd(t *testing.T, store tokenstore.Store, d tokenstore.Digest) {
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			_, err := store.Lookup(t.Context(), d)
			assert.NoError(t, err)
		})
	}
	all.Wait()
}

// The first requests after a start come all at once, and a server without TLS takes two dials for each connection.
func TestACrowdAtTheStartIsServed(t *testing.T) {
	dsn := guestDatabase(t)
	record := insert(t, openPostgres(t, dsn, tokenstore.PostgresOptions{}), nil)
	for _, mode := range []string{"sslmode=disable", "sslmode=prefer"} {
		_, through := tokenstoretest.RelayTo(t, dsn)
		crowd(t, openPostgres(t, strings.Replace(through, "sslmode=disable", mode, 1), tokenstore.PostgresOptions{}), record.Digest)
	}
}

// attack: 174
func TestADeadDatabaseIsDialledTenTimesASecond(t *testing.T) {
	for name, answer := range map[string]string{
		"closes":                 "",
		"has too many clients":   "E\x00\x00\x00\x22SFATAL\x00C53300\x00Mtoo many clients\x00\x00",
		"speaks something else":  "HTTP/1.1 400 Bad Request\r\n\r\n",
		"refuses TLS and closes": "N",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer l.Close()
			var mu sync.Mutex
			var dials []time.Time
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					mu.Lock()
					dials = append(dials, time.Now())
					mu.Unlock()
					go func() {
						defer c.Close()
						c.Read(make([]byte, 1024))
						io.WriteString(c, answer)
					}()
				}
			}()
			store := openPostgres(t, "postgres://user:secret@"+l.Addr().String()+"/db", tokenstore.PostgresOptions{})
			hammer, stop := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer stop()
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					for hammer.Err() == nil {
						if err := store.Ping(hammer); assert.Error(t, err) {
							assert.NotContains(t, err.Error(), "secret")
						}
					}
				})
			}
			all.Go(func() {
				for hammer.Err() == nil {
					assert.Error(t, store.Watch(hammer, func(tokenstore.Change) {}))
				}
			})
			all.Wait()
			mu.Lock()
			defer mu.Unlock()
			assert.GreaterOrEqual(t, len(dials), 4, "it goes on trying")
			assert.LessOrEqual(t, len(dials), 20, "ten in each of two seconds")
		})
	}
}

// warm looks a token up until that works.
func warm(t *testing.T, store tokenstore.Store, d tokenstore.Digest) {
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		_, err := store.Lookup(context.Background(), d)
		assert.NoError(c, err)
	}, patient, 10*time.Millisecond)
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

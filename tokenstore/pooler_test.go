package tokenstore_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// pooler starts a PgBouncer in transaction mode before the server of a DSN, and returns the DSN that leads through it.
func pooler(t *testing.T, dsn string) string {
	program := os.Getenv("DPOPGATE_TEST_PGBOUNCER")
	if program == "" {
		require.Empty(t, os.Getenv("CI"), "DPOPGATE_TEST_PGBOUNCER names no program")
		t.Skip("DPOPGATE_TEST_PGBOUNCER names no program: ./test finds or installs it")
	}
	server, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	folder := t.TempDir()
	users, config := filepath.Join(folder, "users"), filepath.Join(folder, "pgbouncer.ini")
	require.NoError(t, os.WriteFile(users, fmt.Appendf(nil, "%q %q\n", server.User, server.Password), 0o600))
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "[databases]\n* = host=%s port=%d user=%s password=%s\n"+
		"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\nauth_type = plain\nauth_file = %s\n"+
		"pool_mode = transaction\ndefault_pool_size = 2\n", server.Host, server.Port, server.User, server.Password, port, users), 0o600))
	args := []string{config}
	if os.Geteuid() == 0 { // it refuses to run as root
		args = []string{"-u", "nobody", config}
	}
	var said bytes.Buffer
	bouncer := exec.Command(program, args...)
	bouncer.Stderr = &said
	bouncer.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, bouncer.Start())
	t.Cleanup(func() {
		bouncer.Process.Kill()
		bouncer.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	through := url.URL{
		Scheme: "postgres", User: url.UserPassword(server.User, server.Password),
		Host: fmt.Sprintf("127.0.0.1:%d", port), Path: server.Database, RawQuery: "sslmode=disable",
	}
	return through.String()
}

// Behind a pooler that gives each transaction another session, lookups work without prepared statements, one by one and
// together, while the server itself is listened to.
func TestLookupsGoThroughAPoolerInTransactionMode(t *testing.T) {
	_, dsn, digests := announcing(t, 20)
	through := pooler(t, dsn)
	for _, mode := range []string{"exec", "simple_protocol"} {
		store := openPostgres(t, withSetting(through, "default_query_exec_mode", mode), tokenstore.PostgresOptions{Listen: dsn})
		warm(t, store, digests[0])
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				for range 20 {
					for _, a := range store.LookupAll(context.Background(), digests) {
						assert.NoError(t, a.Err)
					}
					r, err := store.Lookup(context.Background(), digests[i])
					if assert.NoError(t, err) {
						assert.Equal(t, digests[i], r.Digest)
					}
				}
			})
		}
		all.Wait()
		listen(t, store) // to the server itself
	}
}

// Of several servers the one is used that takes writes; when that has gone, so is the next.
func TestAnotherServerOfTheSameDSNTakesOver(t *testing.T) {
	dsn := guestDatabase(t)
	record := insert(t, openPostgres(t, dsn, tokenstore.PostgresOptions{}), nil)
	first, through := tokenstoretest.RelayTo(t, dsn)
	second, _ := tokenstoretest.RelayTo(t, dsn)
	u, err := url.Parse(through)
	require.NoError(t, err)
	u.Host = first.Address() + "," + second.Address()
	store := openPostgres(t, u.String()+"&target_session_attrs=read-write", tokenstore.PostgresOptions{})
	warm(t, store, record.Digest)
	assert.Zero(t, second.Dials())
	first.Close()
	warm(t, store, record.Digest)
	assert.Positive(t, second.Dials())
}

package tokenstore_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/tokenstore"
	"github.com/dpopgate/dpopgate/tokenstore/tokenstoretest"
)

// standby starts a read replica of the server of a DSN, which shows every change so much later, and returns its DSN. It is
// made with the programs that the server was installed with, so that the server must be of this machine.
func standby(t *testing.T, dsn string, lag time.Duration) string {
	t.Helper()
	bin := query(t, dsn, "SELECT setting FROM pg_config WHERE name = 'BINDIR'")[0]
	if _, err := os.Stat(filepath.Join(bin, "pg_basebackup")); err != nil {
		require.Empty(t, os.Getenv("CI"), "the server's programs are not on this machine")
		t.Skip("the server's programs are not on this machine")
	}
	cfg, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	folder, err := os.MkdirTemp("", "standby")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(folder) })
	credential := unprivileged(t, folder)
	data := filepath.Join(folder, "data")
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir = folder
		cmd.Env = append(os.Environ(), "PGPASSWORD="+cfg.Password)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
		return cmd
	}
	out, err := command("pg_basebackup", "-D", data, "-R", "-X", "stream", "-c", "fast", "--no-sync",
		"-h", cfg.Host, "-p", strconv.Itoa(int(cfg.Port)), "-U", cfg.User).CombinedOutput()
	require.NoError(t, err, "%s", out)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	server := command("postgres", "-D", data, "-p", strconv.Itoa(port), "-k", folder, "-c", "listen_addresses=127.0.0.1",
		"-c", fmt.Sprintf("recovery_min_apply_delay=%dms", lag.Milliseconds()),
		"-c", "max_connections=1000") // no less than the primary's
	var said bytes.Buffer
	server.Stderr = &said
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		server.Process.Signal(syscall.SIGINT)
		server.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	here := fmt.Sprintf("host=127.0.0.1 port=%d user=%s password='%s' dbname=%s sslmode=disable", port, cfg.User, cfg.Password, cfg.Database)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		conn, err := pgx.Connect(context.Background(), here)
		if assert.NoError(c, err) {
			conn.Close(context.Background())
		}
	}, patient, 50*time.Millisecond)
	return here
}

// unprivileged gives a folder to somebody who may run a server: PostgreSQL refuses to as root. It is nil when that is us.
func unprivileged(t *testing.T, folder string) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	who, err := osuser.Lookup("postgres")
	if err != nil {
		who, err = osuser.Lookup("nobody")
	}
	require.NoError(t, err)
	uid, err := strconv.Atoi(who.Uid)
	require.NoError(t, err)
	gid, err := strconv.Atoi(who.Gid)
	require.NoError(t, err)
	require.NoError(t, os.Chown(folder, uid, gid))
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// Lookups go to a replica that is seconds behind. Nobody who looks a token up after the notice of its revocation gets the
// old record from there, and once the replica has caught up it is asked again.
//
// attack: 176
func TestAReplicaThatLagsShowsNoRevokedToken(t *testing.T) {
	_, dsn, digests := announcing(t, 2)
	const lag = 3 * time.Second
	behind := standby(t, dsn, lag)
	r, primary := tokenstoretest.RelayTo(t, dsn)
	store := openPostgres(t, behind, tokenstore.PostgresOptions{Listen: primary})
	e := listen(t, store)
	for _, d := range digests {
		_, err := store.Lookup(t.Context(), d)
		require.NoError(t, err)
	}
	tokenstoretest.Exec(t, dsn, fmt.Sprintf(`DELETE FROM oauth_access_tokens WHERE digest = '\x%s'`, digests[0]))
	e.hears(t, digests[0])
	_, err := store.Lookup(t.Context(), digests[0])
	require.ErrorIs(t, err, tokenstore.ErrNotFound)
	_, err = openPostgres(t, behind, tokenstore.PostgresOptions{}).Lookup(t.Context(), digests[0])
	require.NoError(t, err, "the replica has not heard of it")
	_, err = store.Lookup(t.Context(), digests[1])
	require.NoError(t, err)

	require.Eventually(t, func() bool { return !store.Behind() }, patient, 10*time.Millisecond)
	r.Freeze() // so that an answer can come from the replica only
	_, err = store.Lookup(t.Context(), digests[0])
	assert.ErrorIs(t, err, tokenstore.ErrNotFound)
	_, err = store.Lookup(t.Context(), digests[1])
	assert.NoError(t, err)
}

func TestAReplicaCannotAnnounce(t *testing.T) {
	_, dsn, _ := announcing(t, 0)
	store := openPostgres(t, standby(t, dsn, 0), tokenstore.PostgresOptions{})
	for _, err := range []error{watch(t, store).fails(t), store.CheckRevocation(t.Context())} {
		require.ErrorIs(t, err, tokenstore.ErrNoNotices)
		assert.ErrorContains(t, err, "store.listen must name the primary")
	}
}

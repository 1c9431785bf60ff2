package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// postgres is the token store of the fleet: a server of its own, to be frozen and killed.
type postgres struct {
	programs string // folder
	folder   string
	address  string
	password string
	as       *syscall.Credential // it refuses to run as root
	process  *process
}

// newPostgres makes a database cluster and starts it.
func newPostgres(ctx context.Context, folder, programs string) (*postgres, error) {
	p := &postgres{programs: programs, folder: filepath.Join(folder, "postgres"), address: freeAddress(), password: rand.Text()}
	if err := os.Mkdir(p.folder, 0o700); err != nil {
		return nil, err
	}
	secret := filepath.Join(p.folder, "password")
	if err := os.WriteFile(secret, []byte(p.password), 0o600); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		uid, gid, err := unprivileged()
		if err != nil {
			return nil, err
		}
		p.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		for _, path := range []string{p.folder, secret} {
			if err := os.Chown(path, uid, gid); err != nil {
				return nil, err
			}
		}
	}
	initdb := p.command(ctx, "initdb", "-D", "data", "-U", "postgres", "-E", "UTF8", "--locale=C", "-A", "scram-sha-256", "--pwfile=password", "--no-sync")
	initdb.Dir = p.folder
	if said, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, said)
	}
	return p, p.start(ctx)
}

// command is one of Postgres's programs, as the user that the cluster belongs to.
func (p *postgres) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.programs, program), args...)
	if p.as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.as}
	}
	return cmd
}

// unprivileged is a user for what does not run as root.
func unprivileged() (uid, gid int, err error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return 0, 0, err
		}
	}
	if uid, err = strconv.Atoi(u.Uid); err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	return uid, gid, err
}

// dsn leads to the server by another address, such as a relay's.
func (p *postgres) dsn(address string) string {
	return fmt.Sprintf("postgres://postgres:%s@%s/postgres?sslmode=disable", p.password, address)
}

// start returns once the server answers. What is committed outlives a kill of its processes, which is all that happens to
// them here: nothing waits for the disk.
func (p *postgres) start(ctx context.Context) (err error) {
	host, port := splitAddress(p.address)
	server := p.command(context.Background(), "postgres", "-D", "data", "-p", port, "-k", p.folder, "-c", "listen_addresses="+host,
		"-c", "max_connections=200", "-c", "fsync=off", "-c", "synchronous_commit=on")
	if p.process, err = launch(p.folder, "postgres", server); err != nil {
		return err
	}
	return p.process.await(ctx, "postgres answers", func() bool {
		conn, err := p.connect(ctx)
		if err != nil {
			return false
		}
		conn.Close(ctx)
		return true
	})
}

// connect goes to the server itself.
func (p *postgres) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return pgx.Connect(ctx, p.dsn(p.address))
}

// exec runs statements on a connection of its own.
func (p *postgres) exec(ctx context.Context, statements ...string) error {
	conn, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// freeze stops every process of the server where it is; connections stay open, and new ones are made by the kernel.
func (p *postgres) freeze() { p.process.signal(syscall.SIGSTOP, true) }

// thaw ends a freeze.
func (p *postgres) thaw() { p.process.signal(syscall.SIGCONT, true) }

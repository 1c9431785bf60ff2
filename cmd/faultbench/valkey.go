package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// valkey is the memory of used proofs that the fleet shares, Valkey or Redis, as a fleet needs it: with an append-only
// file that is written before an answer is given, so that it has forgotten nothing when it comes back. It is its process
// that is killed here, and not the machine, so nothing waits for the disk: a fleet that must survive that, too, wants
// appendfsync always.
type valkey struct {
	program, folder, address string
	process                  *process
}

func newValkey(ctx context.Context, folder, program string) (*valkey, error) {
	v := &valkey{program: program, folder: filepath.Join(folder, "valkey"), address: freeAddress()}
	if err := os.Mkdir(v.folder, 0o700); err != nil {
		return nil, err
	}
	return v, v.start(ctx)
}

// start returns once the server has read its file and answers.
func (v *valkey) start(ctx context.Context) (err error) {
	host, port := splitAddress(v.address)
	v.process, err = launch(v.folder, "valkey", exec.Command(v.program, "--port", port, "--bind", host, "--dir", v.folder,
		"--save", "", "--appendonly", "yes", "--appendfsync", "no"))
	if err != nil {
		return err
	}
	return v.process.await(ctx, "valkey answers", v.answers)
}

func (v *valkey) answers() bool {
	conn, err := net.Dial("tcp", v.address)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	io.WriteString(conn, "PING\r\n")
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.HasPrefix(line, "+PONG")
}

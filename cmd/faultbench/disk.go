package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
)

// fullDisk is about a gateway of its own with an embedded store, for the same public URL. No file of it, and none of the
// commands that work on its store, can grow: tokens can be neither issued nor revoked, and both commands have to say so,
// while everything else is as ever.
func (s *script) fullDisk(ctx context.Context) error {
	i := &instance{name: "embedded", binary: s.binary, folder: s.folder, config: filepath.Join(s.folder, "embedded.yaml"), address: freeAddress(), admin: freeAddress()}
	if err := i.configure(fmt.Sprintf("public_urls: [%q]\nlisten: {http: %q, admin: %q}\nstore: {sqlite: %q}\nlimits: {drain_delay: 0s}\nroutes: [{match: /orders/, upstream: \"http://%s\", scopes: [orders]}]\n",
		s.ledger.url, i.address, i.admin, filepath.Join(s.folder, "tokens.db"), s.upstream.address)); err != nil {
		return err
	}
	tokens := []*token{}
	for range 2 {
		t, err := s.issueEmbedded(ctx, i)
		if err != nil {
			return err
		}
		tokens = append(tokens, t)
	}
	if _, err := i.start(ctx); err != nil {
		return err
	}
	defer i.process.stop(syscall.SIGTERM)
	limit := func(to string) error {
		return run(ctx, "prlimit", "--pid", strconv.Itoa(i.process.pid), "--fsize="+to+":")
	}
	w := &wire{address: i.address}
	defer w.close()
	use := func(times int) {
		for n := range times {
			t := tokens[n%len(tokens)]
			s.crowd.request(w, i, "embedded", http.MethodPost, t, 0, "")
			r := s.ledger.newRequest(illegal, "a token without its key", http.MethodPost, t, i)
			s.ledger.send(w, r, sending{proof: signed(s.thieves[0].key, s.ledger.claims(r, ordersPath))})
		}
	}
	use(20)
	if err := limit("4096"); err != nil {
		return err
	}
	full := []string{"prlimit", "--fsize=4096", i.binary}
	if _, err := s.issueEmbedded(ctx, i, full...); err == nil {
		return errors.New("a token was issued on a full disk")
	}
	if err := run(ctx, append(full, "token", "revoke", "-c", i.config, "--jti", tokens[0].id.String())...); err == nil {
		return errors.New("a token was revoked on a full disk")
	}
	use(100)
	if err := limit("unlimited"); err != nil {
		return err
	}
	tokens[0].ending.Store(time.Now().UnixNano())
	if err := run(ctx, i.binary, "token", "revoke", "-c", i.config, "--jti", tokens[0].id.String()); err != nil {
		return fmt.Errorf("once there is room again: %w", err)
	}
	tokens[0].ended.Store(time.Now().UnixNano())
	sleep(ctx, s.bounds.notice+100*time.Millisecond)
	use(20)
	return nil
}

// issueEmbedded has the program issue a token into the store of an instance.
func (s *script) issueEmbedded(ctx context.Context, i *instance, command ...string) (*token, error) {
	key, err := s.issuer.key()
	if err != nil {
		return nil, err
	}
	if command == nil {
		command = []string{i.binary}
	}
	args := append(command, "token", "issue", "-c", i.config, "--client", s.issuer.client.String(), "--user", uuid.NewString(),
		"--scope", "orders", "--jkt", string(key.Thumbprint()), "--json")
	said, err := exec.CommandContext(ctx, args[0], args[1:]...).Output()
	if err != nil {
		return nil, err
	}
	var issued struct {
		Token  string        `json:"access_token"`
		JTI    uuid.UUID     `json:"jti"`
		Client uuid.UUID     `json:"client_id"`
		User   uuid.NullUUID `json:"user_id"`
	}
	if err := json.Unmarshal(said, &issued); err != nil {
		return nil, fmt.Errorf("token issue --json: %w", err)
	}
	return &token{text: issued.Token, key: key, id: issued.JTI, client: issued.Client, user: issued.User}, nil
}

// run runs a command, whose error says what it said.
func run(ctx context.Context, command ...string) error {
	said, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(string(said)))
	}
	return nil
}

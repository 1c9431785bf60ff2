package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/dpopgate/dpopgate/dpop"
)

// demoCredentials are what a running demo leaves for `call`, in a file that only its user may read and that goes away
// with the demo.
type demoCredentials struct {
	Token string          `json:"token"`
	Key   json.RawMessage `json:"key"` // a private JWK
}

// demoCredentialsPath is where the credentials of a demo on that port are.
func demoCredentialsPath(port string) string {
	folder, err := os.UserCacheDir()
	if err != nil { // no home folder, as in a container
		folder = filepath.Join(os.TempDir(), "dpopgate-"+strconv.Itoa(os.Getuid()))
	} else {
		folder = filepath.Join(folder, "dpopgate")
	}
	return filepath.Join(folder, "dpopgate-demo-"+port+".json")
}

// writeDemoCredentials leaves credentials for a demo on that port. What a demo that was killed has left there is
// replaced: whoever listens on the port is the one whose credentials count. remove takes them away.
func writeDemoCredentials(port string, c demoCredentials) (remove func(), err error) {
	path := demoCredentialsPath(port)
	folder := filepath.Dir(path)
	there := folder
	for !exists(there) {
		there = filepath.Dir(there)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	data, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	remove = func() {
		os.Remove(path)
		os.Remove(folder) // unless there is more in it
		for made := filepath.Dir(folder); len(made) > len(there); made = filepath.Dir(made) {
			os.Remove(made)
		}
	}
	os.Remove(path)
	// O_EXCL follows no link that somebody else may have put there in a shared folder.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		remove()
		return nil, err
	}
	return remove, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil || filepath.Dir(path) == path
}

// readDemoCredentials are the key and the token of the demo at a URL: plain http on this machine. They go nowhere else.
func readDemoCredentials(u *url.URL) (*dpop.Key, string, error) {
	if u.Scheme != "http" || !isLoopbackHost(u.Hostname()) {
		return nil, "", usagef("--key and --token are missing: only a demo on this machine, on http://localhost, needs neither")
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	data, err := os.ReadFile(demoCredentialsPath(port))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", fmt.Errorf("no demo of yours runs on port %s: start dpopgate demo, or give --key and --token", port)
	case err != nil:
		return nil, "", fmt.Errorf("reading what the demo has left: %w", err)
	}
	var c demoCredentials
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, "", errors.New("reading what the demo has left: not JSON; start the demo again")
	}
	key, err := dpop.ReadKey(c.Key)
	if err != nil {
		return nil, "", fmt.Errorf("reading what the demo has left: %w", err)
	}
	return key, c.Token, nil
}

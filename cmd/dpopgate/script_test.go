package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"dpopgate": main, "benchpeer": benchPeer})
}

// TestScripts plays the scripts of testdata/scripts: the program as people run it, with the commands below beside it.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "../../testdata/scripts",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", "atexit_sleep_ms=10") // the race detector's default adds a second to each command
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"address":  scriptAddress,
			"upstream": scriptUpstream,
			"fetch":    scriptFetch,
			"signal":   scriptSignal,
			"keep":     scriptKeep,
			"mode":     scriptMode,
		},
	})
}

// scriptAddress is `address NAME…`: sets each variable to an address that is free.
func scriptAddress(ts *testscript.TestScript, _ bool, names []string) {
	for _, name := range names {
		ts.Setenv(name, freeAddress())
	}
}

// scriptUpstream is `upstream NAME`: starts a server that answers with what it was asked, and sets the variable to its
// URL, NAME_ADDRESS to its address, and NAME_SEEN to a file with a line for each request.
func scriptUpstream(ts *testscript.TestScript, _ bool, args []string) {
	seen := ts.MkAbs(args[0] + ".seen")
	ts.Check(os.WriteFile(seen, nil, 0o600))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.OpenFile(seen, os.O_APPEND|os.O_WRONLY, 0o600)
		if err == nil {
			fmt.Fprintln(f, r.Method, r.RequestURI)
			f.Close()
		}
		fmt.Fprintln(w, r.Method, r.RequestURI)
		r.Header.Write(w)
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
	ts.Setenv(args[0]+"_ADDRESS", s.Listener.Addr().String())
	ts.Setenv(args[0]+"_SEEN", seen)
}

// scriptFetch is `fetch STATUS URL [HEADER…]`: asks until the answer has that status, as a server that has just been
// started needs a moment, and prints the answer. It fails after ten seconds.
func scriptFetch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fetch STATUS URL [HEADER…]")
	}
	var last string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		r, err := http.NewRequest(http.MethodGet, args[1], nil)
		ts.Check(err)
		for _, header := range args[2:] {
			name, value, _ := strings.Cut(header, ": ")
			r.Header.Set(name, value)
			if name == "Host" {
				r.Host = value
			}
		}
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			last = err.Error()
			continue
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		ts.Check(err)
		if last = res.Status; strings.HasPrefix(last, args[0]+" ") {
			var out strings.Builder
			fmt.Fprintln(&out, res.Status)
			if res.Close {
				fmt.Fprintln(&out, "Connection: close")
			}
			res.Header.Write(&out)
			_, err := io.WriteString(ts.Stdout(), out.String()+string(body))
			ts.Check(err)
			return
		}
	}
	ts.Fatalf("%s never answered %s, last was: %s", args[1], args[0], last)
}

// scriptSignal is `signal TERM|HUP`: sends it to all that runs in the background.
func scriptSignal(ts *testscript.TestScript, _ bool, args []string) {
	sig := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}[args[0]]
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(sig))
	}
}

// scriptKeep is `keep NAME stdout`: sets the variable to the last output without the newline at its end.
func scriptKeep(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

// scriptMode is `mode OCTAL FILE`: fails when the file's mode is another.
func scriptMode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if mode := fmt.Sprintf("%o", info.Mode().Perm()); mode != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], mode, args[0])
	}
}

package main

import (
	"encoding/xml"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// notPassed are the cases of h2spec that the listener does not pass, by section and title, each with why. All are choices of
// Go's net/http that refuse what a server might take or refuse in another way: none lets a request through.
var notPassed = map[string]string{
	"http2/6.5.3: Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE":                                          "a setting twice in one frame ends the connection, though RFC 9113 §6.5.3 has the last one count",
	"http2/8.1.2.2: Sends a HEADERS frame that contains the connection-specific header field":                     "answered with 400, where RFC 9113 §8.1.1 has a stream error",
	`http2/8.1.2.2: Sends a HEADERS frame that contains the TE header field with any value other than "trailers"`: "answered with 400, where RFC 9113 §8.1.1 has a stream error",
}

func TestHTTP2ListenerConforms(t *testing.T) {
	t.Parallel()
	program(t, "DPOPGATE_TEST_H2SPEC")
	var asked atomic.Int64
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		io.WriteString(w, "an answer long enough for windows that hold a part of it")
	}))
	t.Cleanup(upstream.Close)
	g := newHTTPSGateway(t, "{internal: true, internal_storage: "+filepath.Join(t.TempDir(), "ca")+"}", upstream.URL, "127.0.0.1")
	g.routes = "  - {match: /, upstream: " + upstream.URL + ", public: true}"
	g.start(t)

	failures := g.runH2spec(t, 146)
	for name, failure := range failures {
		if notPassed[name] == "" {
			assert.Empty(t, failure, name)
		}
	}
	for name := range notPassed {
		assert.NotEmpty(t, failures[name], "%s passes now, or is gone: take it off the list", name)
	}
	assert.Positive(t, asked.Load(), "h2spec's good requests arrive")

	asked.Store(0)
	g.runH2spec(t, 2, "http2/8.1.2.2") // only requests that must not pass
	assert.Zero(t, asked.Load(), "a malformed request reached the upstream")
}

// runH2spec runs the cases of these sections, or all, strict ones too, and tells of each how it failed: expected, then seen;
// empty for those that passed. A case that h2spec skips has failed.
func (g *httpsGateway) runH2spec(t *testing.T, cases int, sections ...string) map[string]string {
	t.Helper()
	host, port, err := net.SplitHostPort(g.https)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "report.xml")
	arguments := append([]string{"--tls", "--insecure", "--strict", "--timeout", "5", "-h", host, "-p", port, "-j", path}, sections...)
	said, err := exec.CommandContext(t.Context(), program(t, "DPOPGATE_TEST_H2SPEC"), arguments...).CombinedOutput()
	var exit *exec.ExitError // failures make it one
	if err != nil {
		require.ErrorAs(t, err, &exit, "%s", said)
	}
	data, err := os.ReadFile(path)
	require.NoError(t, err, "%s", said)
	var report struct {
		Cases []struct {
			Section string    `xml:"package,attr"`
			Title   string    `xml:"classname,attr"`
			Failure string    `xml:"failure"`
			Error   string    `xml:"error"`
			Skipped *struct{} `xml:"skipped"`
		} `xml:"testsuite>testcase"`
	}
	require.NoError(t, xml.Unmarshal(data, &report))
	require.Len(t, report.Cases, cases, "%s", said)
	failures := make(map[string]string)
	for _, c := range report.Cases {
		failure := c.Failure + c.Error
		if c.Skipped != nil {
			failure = "skipped"
		}
		failures[c.Section+": "+c.Title] += failure
	}
	return failures
}

package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fireAt sends shots that want a body, over two connections.
func fireAt(t *testing.T, h http.HandlerFunc, count int, want answered) error {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL + "/orders?page=2")
	require.NoError(t, err)
	senders := address{url: u}.senders(2)
	for _, s := range senders {
		t.Cleanup(s.close)
	}
	shots := make([]shot, count)
	for i := range shots {
		shots[i] = shot{token: "T1", proof: "P1", want: want}
	}
	took, err := fire(context.Background(), senders, shots, 0)
	if err == nil {
		require.Len(t, took, count)
	}
	return err
}

func TestLoadTakesOneAnswerOnly(t *testing.T) {
	t.Parallel()
	right := func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, []string{"DPoP T1", "P1", "/orders?page=2"}, []string{r.Header.Get("Authorization"), r.Header.Get("DPoP"), r.RequestURI})
		io.WriteString(w, "right")
	}
	require.NoError(t, fireAt(t, right, 20, answered{200, "right"}))
	require.NoError(t, fireAt(t, right, 20, answered{}))
	require.ErrorContains(t, fireAt(t, right, 20, answered{200, "another"}), "an answer was 200 right, want 200 another")
	require.ErrorContains(t, fireAt(t, right, 20, answered{status: 401}), "an answer was 200 right, want 401")
	wrong := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
	require.ErrorContains(t, fireAt(t, wrong, 20, answered{}), "an answer was 503")
	require.ErrorContains(t, fireAt(t, wrong, 20, answered{200, ""}), "an answer was 503")
}

func TestLoadReadsEveryFramingOfAnAnswer(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"chunked": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "ri")
			w.(http.Flusher).Flush()
			io.WriteString(w, "ght")
		},
		"closed after each": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			io.WriteString(w, "right")
		},
		"until the end": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if assert.NoError(t, err) {
				io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nright")
				conn.Close()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, fireAt(t, h, 20, answered{200, "right"}))
		})
	}
}

// A server may close a connection that is kept open whenever it wants to, but not before it has answered once.
func TestLoadComesBackToAServerThatHangsUp(t *testing.T) {
	t.Parallel()
	hangUp := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if assert.NoError(t, err) {
				io.WriteString(conn, answer)
				conn.Close()
			}
		}
	}
	require.NoError(t, fireAt(t, hangUp("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright"), 20, answered{200, "right"}))
	require.ErrorIs(t, fireAt(t, hangUp(""), 20, answered{}), errNoAnswer)
	require.Error(t, fireAt(t, hangUp("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nrig"), 20, answered{}))
	require.Error(t, fireAt(t, hangUp("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\nright"), 20, answered{}))
}

func TestSampleUpstreamSaysWhatItWasTold(t *testing.T) {
	t.Parallel()
	for request, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n":                                        upstreamBody("", false),
		"GET / HTTP/1.1\r\nHost: x\r\nX-Auth-Subject: alice\r\n\r\n":               upstreamBody("alice", false),
		"GET / HTTP/1.1\r\nx-auth-subject: alice\r\nauthorization: DPoP T\r\n\r\n": upstreamBody("alice", true),
		"GET / HTTP/1.1\r\nDPoP: P\r\n\r\n":                                        upstreamBody("", true),
	} {
		subject, credentials, err := readBenchRequest(bufio.NewReader(strings.NewReader(request)))
		require.NoError(t, err)
		assert.Equal(t, want, upstreamBody(subject, credentials))
	}
	for _, field := range []string{"Content-Length: 5", "Transfer-Encoding: chunked"} {
		_, _, err := readBenchRequest(bufio.NewReader(strings.NewReader("POST / HTTP/1.1\r\n" + field + "\r\n\r\nhello")))
		assert.ErrorIs(t, err, errBenchBody)
	}
}

// Ratios are those within a round, so that what slows a whole round down changes none.
func TestRatiosAreTakenWithinRounds(t *testing.T) {
	t.Parallel()
	lanes := []*lane{{name: "plain"}, {name: "checked"}}
	for i, slow := range []time.Duration{1, 1, 50, 2, 1} {
		took := []time.Duration{slow, 2 * slow}
		lanes[0].rounds = append(lanes[0].rounds, laneRound{cpu: 100 * slow, took: took})
		lanes[1].rounds = append(lanes[1].rounds, laneRound{cpu: (180 + 10*time.Duration(i)) * slow, took: took})
	}
	rows := results(lanes)
	assert.Equal(t, 1.0, rows[0].Ratio)
	assert.InDelta(t, 2.0, rows[1].Ratio, 1e-9)
	assert.InDelta(t, 1.9, rows[1].Low, 1e-9)
	assert.InDelta(t, 2.1, rows[1].High, 1e-9)
	assert.Equal(t, 10, rows[1].Requests)
	assert.Equal(t, 5, rows[1].Rounds)
	assert.Equal(t, time.Duration(100), rows[1].P99)
}

// An upstream that sees what was refused, or not all that was let through, is no basis for a figure.
func TestLanesCountWhatTheUpstreamSaw(t *testing.T) {
	t.Parallel()
	var seen uint64
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	l := &lane{to: address{url: u}, seen: func() (uint64, error) { seen += 3; return seen, nil }}
	l.senders = l.to.senders(1)
	l.forward = true
	_, err = l.shoot(t.Context(), make([]shot, 3))
	require.NoError(t, err)
	_, err = l.shoot(t.Context(), make([]shot, 4))
	require.ErrorContains(t, err, "the upstream has seen 3 of 4 requests, want 4")
	l.forward = false
	_, err = l.shoot(t.Context(), make([]shot, 3))
	require.ErrorContains(t, err, "the upstream has seen 3 of 3 requests, want 0")
}

func TestProgressDrawsOnOneLineAndClearsIt(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	p := &progress{out: &out}
	p.at(5, 10, "making keys")
	p.at(6, 10, "too soon to be drawn")
	p.clear()
	p.clear()
	first, rest, _ := strings.Cut(out.String(), "making keys")
	assert.Equal(t, "\r"+strings.Repeat("█", 15)+strings.Repeat("░", 15)+"  50%  ", first)
	assert.Equal(t, "\r"+strings.Repeat(" ", 48)+"\r", rest)
	new(progress).at(1, 2, "nobody sees this")
}

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
)

// benchUpstream is the legacy API behind all that a bench compares. It speaks just enough HTTP/1.1 to cost as little as
// can be, since it runs beside the load, and answers each request with what it was told about the caller.
type benchUpstream struct{ seen atomic.Uint64 }

// upstreamBody is how a request looked to the upstream: who called, and whether it was shown credentials.
func upstreamBody(subject string, credentials bool) string {
	return fmt.Sprintf(`{"subject":%q,"credentials":%t,"orders":[{"id":"1001","item":"Espresso machine","total":"249.00 EUR"}]}`, subject, credentials)
}

func (u *benchUpstream) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go u.answer(conn)
	}
}

var (
	subjectField   = []byte("x-auth-subject")
	credentialWord = [][]byte{[]byte("authorization"), []byte("dpop")}
	errBenchBody   = errors.New("this upstream reads no bodies")
)

func (u *benchUpstream) answer(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 16<<10)
	var out []byte
	for {
		subject, credentials, err := readBenchRequest(in)
		if err != nil {
			return
		}
		u.seen.Add(1)
		body := upstreamBody(subject, credentials)
		out = fmt.Appendf(out[:0], "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
}

// readBenchRequest reads the head of a request, which must have no body.
func readBenchRequest(in *bufio.Reader) (subject string, credentials bool, err error) {
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return "", false, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return subject, credentials, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case first:
		case bytes.EqualFold(name, subjectField):
			subject = string(value)
		case bytes.EqualFold(name, credentialWord[0]), bytes.EqualFold(name, credentialWord[1]):
			credentials = true
		case bytes.EqualFold(name, []byte("transfer-encoding")), bytes.EqualFold(name, []byte("content-length")) && string(value) != "0":
			return "", false, errBenchBody
		}
	}
}

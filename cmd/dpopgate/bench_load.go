package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// roundTime is the longest that one round may take.
const roundTime = 2 * time.Minute

// streamsPerConnection is how many of the load's requests share a connection over HTTP/2.
const streamsPerConnection = 8

// sender sends one request after the other. The body that it returns is good until the next.
type sender interface {
	begin(deadline time.Time)
	send(s *shot) (status int, body []byte, err error)
	close()
}

// address is where requests go: what a load needs to know of a URL.
type address struct {
	url   *url.URL
	tls   *tls.Config // nil: cleartext
	http2 bool
}

// senders are as many as connections, one stream each.
func (a address) senders(count int) []sender {
	all := make([]sender, count)
	var shared *http.Transport
	for i := range all {
		if !a.http2 {
			all[i] = &http1{to: a, dial: a.dial}
			continue
		}
		if i%streamsPerConnection == 0 {
			shared = &http.Transport{TLSClientConfig: a.tls, Protocols: new(http.Protocols), DisableCompression: true}
			shared.Protocols.SetHTTP2(true)
		}
		all[i] = &http2{to: a, transport: shared}
	}
	return all
}

func (a address) dial() (net.Conn, error) {
	host := a.url.Host
	if a.url.Port() == "" {
		host = net.JoinHostPort(a.url.Hostname(), map[string]string{"http": "80", "https": "443"}[a.url.Scheme])
	}
	d := &net.Dialer{Timeout: 10 * time.Second}
	if a.tls == nil {
		return d.Dial("tcp", host)
	}
	conf := a.tls.Clone()
	conf.ServerName, conf.NextProtos = a.url.Hostname(), []string{"http/1.1"}
	return tls.DialWithDialer(d, "tcp", host, conf)
}

// http1 is a connection that costs the load as little as can be: what it uses is missing elsewhere.
type http1 struct {
	to       address
	dial     func() (net.Conn, error)
	deadline time.Time
	conn     net.Conn
	used     bool
	in       *bufio.Reader
	out      []byte
	body     []byte
}

func (c *http1) begin(deadline time.Time) {
	c.deadline = deadline
	if c.conn != nil {
		c.conn.SetDeadline(deadline)
	}
}

func (c *http1) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// send sends a request once more if the server has closed the connection meanwhile, as it may at any time.
func (c *http1) send(s *shot) (int, []byte, error) {
	for {
		if c.conn == nil {
			conn, err := c.dial()
			if err != nil {
				return 0, nil, err
			}
			conn.SetDeadline(c.deadline)
			c.conn, c.used, c.in = conn, false, bufio.NewReaderSize(conn, 16<<10)
		}
		reused := c.used
		c.used = true
		status, err := c.exchange(s)
		if err == nil {
			return status, c.body, nil
		}
		c.close()
		if !reused || !errors.Is(err, errNoAnswer) {
			return 0, nil, err
		}
	}
}

var errNoAnswer = errors.New("the server closed the connection instead of an answer")

func (c *http1) exchange(s *shot) (status int, err error) {
	c.out = append(c.out[:0], "GET "...)
	c.out = append(c.out, c.to.url.RequestURI()...)
	c.out = append(c.out, " HTTP/1.1\r\nHost: "...)
	c.out = append(c.out, c.to.url.Host...)
	if s.token != "" {
		c.out = append(c.out, "\r\nAuthorization: DPoP "...)
		c.out = append(c.out, s.token...)
		c.out = append(c.out, "\r\nDPoP: "...)
		c.out = append(c.out, s.proof...)
	}
	c.out = append(c.out, "\r\nUser-Agent: dpopgate-bench\r\nAccept: */*\r\n\r\n"...)
	if _, err := c.conn.Write(c.out); err != nil {
		return 0, errNoAnswer
	}
	if _, err := c.in.Peek(1); err != nil {
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			return 0, err
		}
		return 0, errNoAnswer
	}
	return c.read()
}

// read reads an answer, its body into c.body.
func (c *http1) read() (status int, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil || len(line) < len("HTTP/1.1 200") {
		return 0, errors.Join(errors.New("an answer without a status line"), err)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, errors.New("an answer without a status")
	}
	length, chunked, ends := int64(-1), false, false
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, fmt.Errorf("reading the header of an answer: %w", err)
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			length, err = strconv.ParseInt(string(value), 10, 64)
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		case bytes.EqualFold(name, []byte("Connection")):
			ends = bytes.EqualFold(value, []byte("close"))
		}
		if err != nil || length > maxBenchBody {
			return 0, errors.New("an answer whose length is too large, or no number")
		}
	}
	switch {
	case chunked:
		c.body, err = readAtMost(c.body, httputil.NewChunkedReader(c.in))
		if err == nil {
			_, err = c.in.ReadSlice('\n') // the empty line after the last chunk
		}
	case length >= 0:
		c.body = append(c.body[:0], make([]byte, length)...)
		_, err = io.ReadFull(c.in, c.body)
	default:
		c.body, err = readAtMost(c.body, c.in)
		ends = true
	}
	if ends {
		c.close()
	}
	return status, err
}

// maxBenchBody bounds an answer, in bytes.
const maxBenchBody = 1 << 20

func readAtMost(into []byte, from io.Reader) ([]byte, error) {
	b := bytes.NewBuffer(into[:0])
	n, err := b.ReadFrom(io.LimitReader(from, maxBenchBody+1))
	if err == nil && n > maxBenchBody {
		err = errors.New("an answer that is too large")
	}
	return b.Bytes(), err
}

// http2 is a stream of a connection that others share.
type http2 struct {
	to        address
	transport *http.Transport
	deadline  time.Time
	body      []byte
}

func (c *http2) begin(deadline time.Time) { c.deadline = deadline }
func (c *http2) close()                   { c.transport.CloseIdleConnections() }

func (c *http2) send(s *shot) (int, []byte, error) {
	ctx, cancel := context.WithDeadline(context.Background(), c.deadline)
	defer cancel()
	r := (&http.Request{Method: http.MethodGet, URL: c.to.url, Header: http.Header{"User-Agent": {"dpopgate-bench"}}}).WithContext(ctx)
	if s.token != "" {
		r.Header["Authorization"], r.Header["Dpop"] = []string{"DPoP " + s.token}, []string{s.proof}
	}
	res, err := c.transport.RoundTrip(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	c.body, err = readAtMost(c.body, res.Body)
	return res.StatusCode, c.body, err
}

// fire sends all shots, each sender as fast as it is answered or, unless every is 0, one shot by any of them in that time.
// It says how long each took, and fails with the first answer that is not what it must be.
func fire(ctx context.Context, senders []sender, shots []shot, every time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	deadline, _ := ctx.Deadline()
	took := make([]time.Duration, len(shots))
	errs := make([]error, len(senders))
	began := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for i, s := range senders {
		s.begin(deadline)
		wg.Go(func() {
			for ctx.Err() == nil {
				n := int(next.Add(1) - 1)
				if n >= len(shots) {
					return
				}
				time.Sleep(time.Until(began.Add(time.Duration(n) * every)))
				shot, began := &shots[n], time.Now()
				status, body, err := s.send(shot)
				took[n] = time.Since(began)
				if err == nil && !shot.want.holds(status, body) {
					err = fmt.Errorf("an answer was %d %s, want %v", status, visible(clip(string(body))), shot.want)
				}
				if err != nil {
					errs[i] = err
					cancel()
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return nil, err
		}
	}
	return took, context.Cause(ctx)
}

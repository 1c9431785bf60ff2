package cache

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/valkey-io/valkey-go"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/dpopgate/dpopgate/tokenstore"
)

const (
	// proofsPrefix is what the names of all keys begin with.
	proofsPrefix = "dpopgate:proof:"
	// ownMemory bounds what an instance itself remembers when the options do not say.
	ownMemory = 64 << 20
	// redialPause is how long a server that could not be reached is left alone.
	redialPause = 100 * time.Millisecond
	valkeyPort  = "6379"
)

var errRedial = errors.New("not tried again so soon after the last attempt")

// ValkeyProofsOptions are what the URL cannot say. The zero value is good.
type ValkeyProofsOptions struct {
	Timeout time.Duration    // of one Claim or Ping; 0: tokenstore.DefaultTimeout
	Memory  int64            // bytes that this instance's own memory of its claims may take; 0: 64 MiB
	Log     *slog.Logger     // told when the server stops answering and when it answers again; nil: nobody is
	Now     func() time.Time // the clock; nil: time.Now
}

// ValkeyProofs is a dpop.Replay on a Valkey server, a Redis server from 6.2 on, or a cluster of either, shared by all
// instances. A proof is one key, set if it is not there (SET NX) and gone by itself soon after the proof's end.
//
// It is as exact as the server's memory. A server that evicts keys, or restarts without an append-only file, forgets; so
// does a replica that takes over, of what had not reached it. What Check can see of that it tells. Besides, every instance
// remembers its own claims: one that the server has forgotten can be made again on another instance only.
//
// The user of the URL needs the commands SET and PTTL on dpopgate:proof:*, and for Check also INFO and TIME.
type ValkeyProofs struct {
	options valkey.ClientOption
	timeout time.Duration
	now     func() time.Time
	slack   time.Duration
	own     *Proofs
	spoken  spoken

	mu      sync.Mutex
	client  valkey.Client // nil: not connected yet
	opening chan struct{} // closed when the attempt under way ends; nil: none is
	failure error         // of the last attempt
	closed  bool
	rest    map[string]time.Time // addresses that could not be reached, and until when they are left alone
}

// OpenValkeyProofs makes the store for a URL, redis:// or valkey://, with TLS rediss:// or valkeys://:
//
//	valkeys://user:password@host:6379,host:6379/0
//
// User, password, port and database may be left out. Several hosts are members of one cluster. OpenValkeyProofs does not
// connect: the server may come up later, and until then each Claim is an error. An error never holds any part of the URL.
func OpenValkeyProofs(url string, o ValkeyProofsOptions) (*ValkeyProofs, error) {
	p := &ValkeyProofs{timeout: o.Timeout, now: clockOf(o.Now), slack: slack, rest: map[string]time.Time{}}
	if p.timeout <= 0 {
		p.timeout = tokenstore.DefaultTimeout
	}
	if o.Memory <= 0 {
		o.Memory = ownMemory
	}
	p.own = NewProofs(o.Memory, p.now)
	p.spoken.log = loggerOf(o.Log)
	var err error
	if p.options, err = parseValkeyURL(url); err != nil {
		return nil, fmt.Errorf("opening replay store: %w", err)
	}
	p.options.DialCtxFn = p.dial
	p.options.Dialer.Timeout = p.timeout
	p.options.ConnWriteTimeout = p.timeout // it bounds reading as well
	p.options.ClientName = "dpopgate"
	p.options.DisableCache = true // nothing is read twice
	p.options.DisableRetry = true // a claim is not repeated: it would meet itself
	p.options.ReadBufferEachConn, p.options.WriteBufferEachConn = 16<<10, 16<<10
	return p, nil
}

// Close closes all connections and fails the claims under way.
func (p *ValkeyProofs) Close() error {
	p.mu.Lock()
	client := p.client
	p.closed, p.client = true, nil
	p.mu.Unlock()
	if client != nil {
		client.Close()
	}
	return nil
}

// Claim implements dpop.Replay. It is never repeated on the wire. dpop.ErrReplayFull says that the server is out of memory
// and, as it should, evicts nothing.
func (p *ValkeyProofs) Claim(ctx context.Context, k dpop.ReplayKey, until time.Time) (fresh bool, err error) {
	if !p.now().Before(until) {
		return false, nil
	}
	taken := false // to be read only once do has seen the end of the function
	err = p.do(ctx, "claiming a proof", func(ctx context.Context, c valkey.Client) (err error) {
		taken, err = p.set(ctx, c, k, until)
		return err
	})
	if err != nil || !taken {
		return false, err
	}
	// When there is no room for it in our own memory, the word of the server alone counts.
	fresh, err = p.own.Claim(ctx, k, until)
	return fresh || err != nil, nil
}

// set takes the key if it is not there. A server whose clock is past the time at which it is to forget the key would take
// it each time anew, and keep it not at all; so it is asked how long it will.
func (p *ValkeyProofs) set(ctx context.Context, c valkey.Client, k dpop.ReplayKey, until time.Time) (fresh bool, err error) {
	name := proofsPrefix + base64.RawURLEncoding.EncodeToString(k[:])
	replies := c.DoMulti(ctx,
		c.B().Set().Key(name).Value("1").Nx().PxatMillisecondsTimestamp(until.Add(2*p.slack).UnixMilli()).Build(),
		c.B().Pttl().Key(name).Build(),
	)
	if err := replies[0].Error(); valkey.IsValkeyNil(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	left, err := replies[1].AsInt64()
	if err != nil {
		return false, err
	}
	if left < p.slack.Milliseconds() {
		return false, errClocks
	}
	return true, nil
}

// Ping asks for a write that changes nothing, with the rights and the time of a Claim.
func (p *ValkeyProofs) Ping(ctx context.Context) error {
	const name = proofsPrefix + "ping" // never there
	return p.do(ctx, "asking the replay store", func(ctx context.Context, c valkey.Client) error {
		replies := c.DoMulti(ctx,
			c.B().Set().Key(name).Value("1").Xx().PxMilliseconds(1).Build(),
			c.B().Pttl().Key(name).Build(),
		)
		if err := replies[0].Error(); err != nil && !valkey.IsValkeyNil(err) {
			return err
		}
		return replies[1].Error()
	})
}

// Check does what Ping does, and then says what could make a server forget used proofs: one sentence each.
func (p *ValkeyProofs) Check(ctx context.Context) (doubts []string, err error) {
	if err := p.Ping(ctx); err != nil {
		return nil, err
	}
	var found []string
	err = p.do(ctx, "checking the replay store", func(ctx context.Context, c valkey.Client) error {
		for address, node := range c.Nodes() {
			more, err := p.doubtsAbout(ctx, node)
			if err != nil {
				return err
			}
			for _, doubt := range more {
				found = append(found, address+": "+doubt)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

func (p *ValkeyProofs) doubtsAbout(ctx context.Context, node valkey.Client) (doubts []string, err error) {
	info, err := node.Do(ctx, node.B().Info().Build()).ToString()
	if refusal, ok := valkey.IsValkeyErr(err); ok {
		return []string{"what it would forget is not known: it does not answer INFO (" + refusal.Error() + ")"}, nil
	}
	if err != nil {
		return nil, err
	}
	if policy := infoField(info, "maxmemory_policy"); policy != "noeviction" && infoField(info, "maxmemory") != "0" {
		doubts = append(doubts, "maxmemory-policy is "+policy+": it forgets used proofs when its memory is full; set noeviction")
	}
	if infoField(info, "aof_enabled") == "0" {
		doubts = append(doubts, "appendonly is no: after a restart of its own it has forgotten used proofs; set yes, and appendfsync always to lose none")
	}
	clock, err := node.Do(ctx, node.B().Time().Build()).AsIntSlice()
	if err != nil || len(clock) != 2 {
		return doubts, err
	}
	return append(doubts, clockDoubt(time.Unix(clock[0], clock[1]*1000).Sub(p.now()))...), nil
}

// infoField is a field of what INFO says.
func infoField(info, name string) string {
	_, rest, _ := strings.Cut(info, "\n"+name+":")
	value, _, _ := strings.Cut(rest, "\r\n")
	return value
}

// do runs f within the timeout and until ctx ends, on a goroutine of its own: where the client library waits for a
// connection that another call is making, it does so without a bound. That call does not end with the request it is for.
func (p *ValkeyProofs) do(ctx context.Context, doing string, f func(context.Context, valkey.Client) error) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.timeout)
	done := make(chan error, 1)
	go func() {
		defer cancel()
		c, err := p.connect(bounded)
		if err == nil {
			err = f(bounded, c)
			p.leaveReplica(c, err)
		}
		done <- err
	}()
	var err error
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case <-bounded.Done():
		select {
		case err = <-done: // it is what ended bounded
		default:
			err = bounded.Err()
		}
	case err = <-done:
	}
	refusal, refused := valkey.IsValkeyErr(err)
	if err == nil || refused || errors.Is(err, errClocks) {
		p.spoken.hear(nil)
	} else {
		p.spoken.hear(p.withoutPassword(err))
	}
	if refused {
		err = explainValkey(refusal)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, p.withoutPassword(err))
	}
	return nil
}

// connect is the client, which then looks after its connections by itself, but has to reach the server once to begin with.
func (p *ValkeyProofs) connect(ctx context.Context) (valkey.Client, error) {
	p.mu.Lock()
	if p.client != nil || p.closed {
		defer p.mu.Unlock()
		if p.closed {
			return nil, valkey.ErrClosing
		}
		return p.client, nil
	}
	if p.opening == nil {
		p.opening = make(chan struct{})
		go p.open(p.opening)
	}
	opening := p.opening
	p.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-opening:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client == nil {
		return nil, fmt.Errorf("connecting to the replay store: %w", cmp.Or(p.failure, errRedial))
	}
	return p.client, nil
}

func (p *ValkeyProofs) open(done chan struct{}) {
	defer close(done)
	c, err := valkey.NewClient(p.options)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opening = nil
	if err == nil && p.closed {
		go c.Close()
		err = valkey.ErrClosing
	}
	if p.failure = err; err == nil {
		p.client = c
	}
}

// leaveReplica gives up a client whose server has become a replica: its name may lead to the new primary by now.
func (p *ValkeyProofs) leaveReplica(c valkey.Client, err error) {
	if refusal, ok := valkey.IsValkeyErr(err); !ok || !strings.HasPrefix(refusal.Error(), "READONLY") {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client == c {
		p.client = nil
		go c.Close()
	}
}

// dial is how the client connects. An address that could not be reached is left alone for a moment: else every claim
// dials, and so do they all at once when the server comes back.
func (p *ValkeyProofs) dial(ctx context.Context, address string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
	p.mu.Lock()
	resting := time.Now().Before(p.rest[address])
	p.mu.Unlock()
	if resting {
		return nil, errRedial
	}
	c, err := dialValkey(ctx, address, d, config)
	p.mu.Lock()
	defer p.mu.Unlock()
	if delete(p.rest, address); err != nil {
		p.rest[address] = time.Now().Add(redialPause)
	}
	return c, err
}

func dialValkey(ctx context.Context, address string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
	if config == nil {
		return d.DialContext(ctx, "tcp", address)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	// Members of a cluster may announce themselves by IP address: their certificate is still for the name in the URL.
	if net.ParseIP(host) == nil {
		config = config.Clone()
		config.ServerName = host
	}
	secure := tls.Dialer{NetDialer: d, Config: config}
	return secure.DialContext(ctx, "tcp", address)
}

var tooOld = regexp.MustCompile(`(?i)^(ERR )?syntax error`)

// explainValkey adds to some of the server's answers what is to be done about them.
func explainValkey(refusal *valkey.ValkeyError) error {
	switch text := refusal.Error(); {
	case strings.HasPrefix(text, "OOM"):
		return fmt.Errorf("%w (%w)", dpop.ErrReplayFull, refusal)
	case strings.HasPrefix(text, "READONLY"):
		return fmt.Errorf("this server is a replica: name the primary (%w)", refusal)
	case strings.HasPrefix(text, "NOPERM"):
		return fmt.Errorf("the user needs the commands SET and PTTL on %s* (%w)", proofsPrefix, refusal)
	case tooOld.MatchString(text):
		return fmt.Errorf("this server is too old: Valkey, or Redis from 6.2 on, is needed (%w)", refusal)
	}
	return refusal
}

// withoutPassword is err, unless it holds the password: some servers repeat the commands that they do not know.
func (p *ValkeyProofs) withoutPassword(err error) error {
	if password := p.options.Password; password != "" && strings.Contains(err.Error(), password) {
		return errors.New("the server's answer is not shown, since it holds the password")
	}
	return err
}

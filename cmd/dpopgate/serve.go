package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/config"
	"github.com/dpopgate/dpopgate/proxy"
	"github.com/dpopgate/dpopgate/tokenstore"
)

func newServeCommand(e *env) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: "Runs the gateway until SIGTERM or SIGINT: /readyz then says no while requests are still served for\n" +
			"limits.drain_delay, and those under way get limits.drain_timeout to finish; a second signal stops at once.\n" +
			"SIGHUP reads the file again; if that one is bad, the gateway goes on with what it has.\n" +
			"SIGUSR2 starts the program anew, which takes over once it is ready, on the same sockets; if it never is, the\n" +
			"gateway goes on. The log is on stderr. dpopgate help deploy has the rest.",
		Example: "  dpopgate serve -c /etc/dpopgate/dpopgate.yaml",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			given, err := e.inherit()
			if err != nil {
				return err
			}
			if given.predecessor != nil {
				return takeOver(cmd.Context(), path, given, e)
			}
			defer given.sockets.close()
			seen := config.Fingerprint(path)
			c, err := loadConfig(path)
			if err != nil {
				return err
			}
			s, err := newServer(cmd.Context(), path, c, nil, e)
			if err != nil {
				return err
			}
			defer s.close()
			s.sockets, s.reloads.seen = given.sockets, seen
			return s.run(cmd.Context(), e)
		},
	}
	configFlag(cmd, &path)
	return cmd
}

// server is the gateway with all that it stands on, wired as the config says.
type server struct {
	path    string
	config  *config.Config // what was started with, as far as it cannot change while running
	log     *slog.Logger
	level   *slog.LevelVar
	access  *accessLog
	audit   *auditLog
	misuse  *prometheus.CounterVec
	tracing *tracing // nil: off
	store   tokenstore.Store
	tokens  *cache.Tokens
	replay  sharedReplay         // nil: this process remembers used proofs by itself
	watched *cache.WatchedProofs // replay, when there is something to fall back to without it
	gateway *proxy.Gateway
	ready   *readiness
	metrics *metrics
	tally   *tally
	// reloaded is how the last reload ended; nil: there was none.
	reloaded atomic.Pointer[reloadOutcome]
	guard    *adminGuard
	watch    *watch         // nil until the store is watched
	certs    *certificates  // nil: cleartext
	proofs   *relayedProofs // nil: replay is not
	started  time.Time      // proofs older than this are not trusted while replay is nil
	// nonceKey makes nonces where the config has no key for them.
	nonceKey []byte
	sockets  sockets // that it was given and does not listen on yet
	heir     *Heir   // nil: it has taken over from nobody
	reloads  reloads
	init     initSystem
}

// newServer wires a server. Nothing listens yet, and the database need not be up: until it is, requests that need it
// are answered with 503 and /readyz says no. What another process has left, if anything, is used.
func newServer(ctx context.Context, path string, c *config.Config, left *Bequest, e *env) (*server, error) {
	if left == nil {
		left = &Bequest{Started: wholeSecond(e.started), NonceKey: make([]byte, 32)}
		rand.Read(left.NonceKey)
	}
	s := &server{path: path, config: c, started: left.Started, nonceKey: left.NonceKey, init: e.init}
	s.log, s.level = newLogger(e.stderr, c.Log)
	takeStandardLog(s.log)
	s.access = &accessLog{log: s.log}
	s.access.all.Store(c.Log.Access)
	s.access.sample.Store(int64(c.Log.Sample))
	var err error
	if s.audit, err = openAudit(c.Log.Audit, e, s.log); err != nil {
		return nil, err
	}
	if s.tracing, err = newTracing(ctx, c.Tracing, e, s.log); err != nil {
		s.close()
		return nil, err
	}
	if err := s.wire(ctx, s.access.Write); err != nil {
		return nil, err
	}
	s.metrics.watchTracing(s.tracing)
	s.metrics.watchAudit(s.audit)
	if s.guard, err = newAdminGuard(c, s.log); err != nil {
		s.close()
		return nil, err
	}
	if s.certs, err = newCertificates(ctx, c, s.log, s.again); err != nil {
		s.close()
		return nil, err
	}
	if s.certs != nil {
		s.ready.watchCertificates(s.certs)
		s.metrics.watchCertificates(s.certs)
	}
	return s, nil
}

// wire opens the stores and builds the gateway on them. events hears of each request.
func (s *server) wire(ctx context.Context, events func(*proxy.Event)) (err error) {
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	c := s.config
	s.metrics, s.tally = newMetrics(), newTally(time.Now)
	s.misuse = s.metrics.newMisuse()
	if s.store, err = openStore(ctx, c.Store, s.log, s.again); err != nil {
		return err
	}
	s.ready = newReadiness(c.Store.Timeout.Std())
	s.ready.watch("store", s.store.Ping)
	s.tokens, err = cache.NewTokens(s.metrics.timeStore(s.store), cache.TokensOptions{
		MaxSize:      int64(c.Cache.MaxSize),
		TTL:          c.Cache.TTL.Std(),
		NegativeTTL:  c.Cache.NegativeTTL.Std(),
		StaleOnError: c.Cache.StaleOnError.Std(),
		Timeout:      c.Store.Timeout.Std(),
	})
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	s.metrics.watchTokens(s.tokens)
	o := proxy.Options{
		Tokens:   s.tokens,
		Fresh:    s.store,
		Digester: digesterOf(c.Store),
		NonceKey: s.nonceKey,
		Leaving:  s.ready.draining.Load,
		Headers:  cache.NewHeaders(cache.HeadersOptions{Tables: c.DPoP.KeyTables, Log: s.log}),
		Log:      s.log,
		Misuse:   s.misused,
		Events:   func(e *proxy.Event) { s.metrics.observe(e); s.tally.observe(e); events(e) },
	}
	if s.replay, err = openReplay(c, s.log, s.again); err != nil {
		return fmt.Errorf("dpop.replay: %w", err)
	}
	proofs := cache.NewProofs(int64(c.DPoP.ReplayMemory), nil)
	switch {
	case s.replay == nil:
		s.metrics.watchProofs(proofs)
		s.proofs = &relayedProofs{own: proofs}
		o.Replay, o.Started = s.proofs, s.started
	case c.DPoP.ReplayOnError == "nonce":
		s.metrics.watchProofs(proofs)
		o.Replay, o.Fallback = s.fallBack(proofs)
	default:
		s.ready.watch("replay store", s.replay.Ping)
		o.Replay = s.metrics.timeReplay(s.replay)
	}
	s.metrics.watchPools(s.store, s.replay)
	if s.tracing != nil {
		o.Tracing = s.tracing
	}
	if s.gateway, err = proxy.New(c, o); err == nil {
		s.metrics.expect(s.gateway.Routes())
		s.watchReloads()
		s.watchStore()
		s.ready.watchUpstreams(s.gateway.Upstreams)
		s.metrics.watchUpstreams(s.gateway.Upstreams)
	}
	return err
}

// again reads the file as it is now.
func (s *server) again() (*config.Config, error) { return config.Load(s.path) }

// close lets go of everything that was opened, outermost first.
func (s *server) close() {
	if s.watch != nil {
		s.watch.close()
	}
	if s.certs != nil {
		s.certs.source.close()
	}
	if s.guard != nil {
		s.guard.close()
	}
	if s.gateway != nil {
		s.gateway.Close()
	}
	if s.tokens != nil {
		s.tokens.Close()
	}
	if s.watched != nil {
		s.watched.Close()
	}
	if s.replay != nil {
		if err := s.replay.Close(); err != nil {
			s.log.Error("closing the replay store", "error", err)
		}
	}
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.log.Error("closing the store", "error", err)
		}
	}
	s.tracing.close()
	s.audit.close()
}

// wholeSecond rounds up. iat has whole seconds: one of the second in which the process began says nothing about which
// came first, so the first that can be trusted is that of the next second.
func wholeSecond(t time.Time) time.Time {
	if whole := t.Truncate(time.Second); !whole.Equal(t) {
		return whole.Add(time.Second)
	}
	return t
}

// run serves until a signal, an error or the end of ctx.
func (s *server) run(ctx context.Context, e *env) error {
	signals, stop := e.signals(append(stopping, syscall.SIGHUP, syscall.SIGUSR2)...)
	defer stop()
	if !s.await(ctx, signals) {
		return nil
	}
	listeners, err := s.listen(ctx)
	if err != nil {
		return err
	}
	if s.certs != nil {
		s.certs.source.start(boundAddresses{https: addressOf(listeners, httpsKey), http: addressOf(listeners, httpKey)})
	}
	if s.heir != nil {
		if err := s.heir.await(ctx, s, signals); err != nil {
			closeAll(listeners)
			return err
		}
	}
	failed := serveAll(listeners)
	if s.heir != nil {
		close(s.heir.serving)
	}
	s.announce(listeners, e)
	s.init.notify(daemon.SdNotifyReady)
	alive, rest := s.init.alive()
	defer rest()
	look := time.NewTicker(configInterval)
	defer look.Stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var over chan succession // nil: no new process is being started
	s.audit.write(auditStarted, slog.String("version", thisBuild().Version), slog.String("config", s.path), slog.Int("pid", os.Getpid()))
	defer s.audit.write(auditStopped, slog.Int("pid", os.Getpid()))
	for {
		select {
		case <-alive:
			s.init.notify(daemon.SdNotifyWatchdog)
		case <-look.C:
			s.lookAtConfig()
		case err := <-failed:
			closeAll(listeners)
			return err
		case <-ctx.Done():
			closeAll(listeners)
			return nil
		case next := <-over:
			over = nil
			if next.err != nil && !errors.Is(next.err, errLost) {
				s.log.Error("not handed over, this process goes on", "error", oneLine(next.err))
				continue
			}
			s.leave(listeners, next, signals, failed)
			return next.err
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP:
				s.reload(sig.String())
			case sig == syscall.SIGUSR2 && over == nil:
				over = make(chan succession, 1)
				s.log.Info("handing over", "signal", sig.String())
				go func() {
					pid, err := s.handOver(ctx, listeners, e.restart)
					over <- succession{pid, err}
				}()
			case sig != syscall.SIGUSR2:
				s.init.notify(daemon.SdNotifyStopping)
				s.drain(listeners, sig.String(), signals, failed)
				return nil
			}
		}
	}
}

// await waits for the moment from which on proofs are trusted, where there is one, and says whether to go on. Nobody is
// listened to before: a client with a proof of the second in which this process began would be asked to make another, for nothing.
func (s *server) await(ctx context.Context, signals <-chan os.Signal) bool {
	if s.replay != nil {
		return true
	}
	moment := time.After(time.Until(s.started))
	for {
		select {
		case <-moment:
			return true
		case <-ctx.Done():
			return false
		case sig := <-signals:
			// The files are looked at soon anyway, and there is nothing to hand over yet.
			if sig != syscall.SIGHUP && sig != syscall.SIGUSR2 {
				return false
			}
		}
	}
}

// listen binds all addresses of the config, or none.
func (s *server) listen(ctx context.Context) ([]*listener, error) {
	var all []*listener
	room := newConnections(s.config.Limits.MaxConnections)
	for _, want := range s.servers() {
		if want.address == "" {
			continue
		}
		socket, err := s.sockets.take(ctx, want.key, want.address)
		if err != nil {
			closeAll(all)
			return nil, err
		}
		l := &listener{socket, socket, want.key, want.server}
		if want.key != adminKey {
			l.Listener = room.bound(socket)
		}
		all = append(all, l)
	}
	if s.heir != nil { // the config may have changed since then
		s.sockets.close()
	} else if err := s.sockets.unused(); err != nil {
		closeAll(all)
		return nil, err
	}
	return all, nil
}

// served is a server for an address of the config.
type served struct {
	key, address string
	server       *http.Server
}

// servers are what is behind each address.
func (s *server) servers() []served {
	c := s.config
	gateway := s.metrics.counting(s.gateway)
	admin := served{adminKey, c.Listen.Admin, s.adminServer()}
	if s.certs == nil {
		return []served{{httpKey, c.Listen.HTTP, newHTTPServer(gateway, c.Limits, s.log, httpKey)}, admin}
	}
	redirect := newCleartext(c.PublicURLs, s.certs.solver())
	return []served{
		{httpsKey, c.Listen.HTTPS, newHTTPSServer(gateway, s.certs.tlsConfig(), c.Limits, s.log)},
		{httpKey, c.Listen.HTTP, newHTTPServer(redirect, c.Limits, s.log, httpKey)},
		admin,
	}
}

// addressOf is the bound address of a config key; empty for none.
func addressOf(listeners []*listener, key string) string {
	for _, l := range listeners {
		if l.key == key {
			return l.Addr().String()
		}
	}
	return ""
}

// announce says what is served where, in the log, and for a person at a terminal in two lines.
func (s *server) announce(listeners []*listener, e *env) {
	attrs := []any{"version", thisBuild().Version, "config", s.path, "public_urls", s.config.PublicURLs}
	at := map[string]string{}
	for _, l := range listeners {
		at[l.key] = l.Addr().String()
		attrs = append(attrs, l.key, at[l.key])
	}
	s.log.Info("serving", append(attrs, "store", storeName(s.config.Store), "routes", len(s.config.Routes), "pid", os.Getpid())...)
	for _, warning := range s.config.Warnings() {
		s.log.Warn("config allows what is worth a second look", "what", warning)
	}
	if !e.terminal {
		return
	}
	fmt.Fprintf(e.stdout, "dpopgate serves %s on %s: %s\n", strings.Join(s.config.PublicURLs, " "), cmp.Or(at[httpsKey], at[httpKey]), plural(len(s.config.Routes), "route"))
	if admin := at[adminKey]; admin != "" {
		fmt.Fprintf(e.stdout, "Its status is at %s. ", s.guard.url(admin))
	}
	fmt.Fprintln(e.stdout, "Ctrl-C drains, twice stops at once.")
}

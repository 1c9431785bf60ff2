// Package config is the file format: its types, defaults, expansion, validation and errors.
//
// The field comments are the manual of the file: the JSON Schema and the editor help are made from them.
package config

// Config is the whole file, expanded, defaulted and validated. It is read-only once loaded.
type Config struct {
	// The URLs that clients use, and so the only bases an htu may have (RFC 9449 §4.3). A request for another host
	// is refused with 421. A path here is a prefix that the load balancer in front strips before the gateway sees
	// the request. http:// is taken only for loopback hosts.
	PublicURLs []string `yaml:"public_urls"`
	// Where the gateway listens.
	Listen Listen `yaml:"listen"`
	// Who may use listen.admin. Without this block it takes no credentials, and only a loopback address.
	Admin Admin `yaml:"admin"`
	// Certificates: exactly one of acme, certificate and internal. Without this block, cleartext on listen.http.
	TLS *TLS `yaml:"tls"`
	// Where the tokens are: exactly one of sqlite and postgres.
	Store Store `yaml:"store"`
	// The short memory for looked-up tokens, by digest.
	Cache Cache `yaml:"cache"`
	// The rules for proofs (RFC 9449).
	DPoP DPoP `yaml:"dpop"`
	// What the upstream is told about the caller.
	Identity Identity `yaml:"identity"`
	// Named pools of upstream servers. A route may also give a URL outright.
	Upstreams map[string]Upstream `yaml:"upstreams"`
	// Who may call what. The most specific pattern wins; no match is 404.
	Routes []Route `yaml:"routes"`
	// The decision alone, for a proxy that asks.
	ForwardAuth ForwardAuth `yaml:"forward_auth"`
	// Protected resource metadata (RFC 9728).
	Metadata Metadata `yaml:"metadata"`
	// What to do about a live bound token that is shown as Bearer, or with a valid proof by another key than its own: log it,
	// or log it and revoke the token too, which needs the right to delete rows. A client that makes itself a new key and goes
	// on with the old token is no thief, but cannot be told from one: it ends a token that it could not use any more. Clients
	// with several keys must not mix up their tokens. In mode report nothing is revoked.
	Misuse string `yaml:"misuse" default:"log" enum:"log,revoke"`
	// Logging.
	Log Log `yaml:"log"`
	// Tracing.
	Tracing Tracing `yaml:"tracing"`
	// Bounds of the listeners, and the timing of a shutdown.
	Limits Limits `yaml:"limits"`
}

// Listen says where the gateway listens. Addresses are host:port; an empty one is not listened on.
type Listen struct {
	// The service over TLS; needs tls.
	HTTPS string `yaml:"https" default:":443"`
	// With tls: ACME HTTP-01 and a redirect to https. Without: the service itself.
	HTTP string `yaml:"http" default:":80"`
	// /healthz, /readyz, /metrics, the status page at /, and what dpopgate report reads. Any but a loopback address needs
	// admin.auth. Empty turns it off.
	Admin string `yaml:"admin" default:"127.0.0.1:9180"`
	// CIDRs of proxies whose X-Forwarded-* and Forwarded are believed; from all others they are dropped.
	TrustedProxies []string `yaml:"trusted_proxies"`
}

// Admin says who may use listen.admin, and how.
type Admin struct {
	// Who is let in. Probes are never asked: /healthz, and /readyz without its details.
	Auth AdminAuth `yaml:"auth"`
	// The certificate that listen.admin serves, reread when it changes. None: cleartext.
	TLS *Certificate `yaml:"tls"`
}

// AdminAuth is what lets somebody in. With both, either does.
type AdminAuth struct {
	// A secret of at least 16 bytes, sent as Authorization: Bearer; browsers ask for it as the password, for any name.
	Bearer Secret `yaml:"bearer"`
	// A PEM file with the CAs of client certificates that are let in. Needs admin.tls.
	ClientCA string `yaml:"client_ca"`
}

// TLS says where certificates come from: exactly one of acme, certificate and internal.
type TLS struct {
	// Certificates from an ACME server (RFC 8555), ordered and renewed by themselves. Accepts its terms of service.
	ACME *ACME `yaml:"acme"`
	// A certificate from files, reread when they change.
	Certificate *Certificate `yaml:"certificate"`
	// Certificates from an own local CA, for development. dpopgate trust shows how to make clients trust it.
	Internal bool `yaml:"internal"`
	// The folder where internal keeps its root certificate and its key.
	InternalStorage string `yaml:"internal_storage" default:"./certificates/internal"`
	// How long browsers are to remember that the hosts are to be reached over https only (HSTS, RFC 6797), such as 8760h.
	// 0: they are not told.
	HSTS Duration `yaml:"hsts" default:"0s"`
}

// ACME is an account at an ACME server.
type ACME struct {
	// The account's e-mail address, which the CA may write to. Empty: an account without one.
	Email string `yaml:"email"`
	// The hosts to get certificates for, out of those of public_urls. Empty: all of them.
	Domains []string `yaml:"domains"`
	// The ACME directory URL, https. Empty: Let's Encrypt.
	Directory string `yaml:"directory"`
	// What the CA has given for binding the account to one that exists with it (external account binding, RFC 8555 §7.3.4).
	EAB *EAB `yaml:"eab"`
	// A PEM file to trust for that directory.
	CARoot string `yaml:"ca_root"`
	// A folder, or "store" for the Postgres of store.
	Storage string `yaml:"storage" default:"./certificates"`
	// Encrypts what storage: store keeps, private keys above all: at least 16 bytes, the same on the whole fleet.
	StorageKey Secret `yaml:"storage_key"`
}

// EAB is an external account binding (RFC 8555 §7.3.4).
type EAB struct {
	// The key identifier, as the CA gave it.
	KeyID string `yaml:"key_id"`
	// The HMAC key, base64url as the CA gave it.
	HMACKey Secret `yaml:"hmac_key"`
}

// Certificate is a certificate and its key on disk, both PEM.
type Certificate struct {
	// The certificate chain, leaf first.
	CertFile string `yaml:"cert_file"`
	// The private key.
	KeyFile string `yaml:"key_file"`
}

// Store is where the tokens are. Exactly one of SQLite and Postgres is set.
type Store struct {
	// The file of the embedded store: one machine, no server. A relative path starts at the working directory.
	SQLite string `yaml:"sqlite"`
	// Any libpq URL or DSN. SELECT on the one table is enough to serve. When the server turns its user and password down
	// while the gateway runs, those two are read again, such as from a ${file:}; all else of it needs a restart.
	Postgres Secret `yaml:"postgres"`
	// The DSN of the server that announces revocations (dpopgate migrate --revocation), where store.postgres leads to a
	// read replica of it or through a pooler: LISTEN needs the primary itself, and no PgBouncer in transaction mode.
	// Lookups go there, too, while the replica is behind an announcement. Empty: store.postgres.
	Listen Secret `yaml:"listen"`
	// The token table, optionally with its schema. Postgres only.
	Table string `yaml:"table" default:"public.oauth_access_tokens"`
	// How the digest column was made: SHA-256(token), or HMAC-SHA-256(digest_key, token).
	Digest string `yaml:"digest" default:"sha256" enum:"sha256,hmac-sha256"`
	// The HMAC key, the raw bytes; hmac-sha256 only.
	DigestKey Secret `yaml:"digest_key"`
	// The bound of one lookup.
	Timeout Duration `yaml:"timeout" default:"500ms"`
}

// Cache bounds the memory and the age of looked-up tokens.
type Cache struct {
	// The bound of the memory for looked-up tokens.
	MaxSize Size `yaml:"max_size" default:"64MiB"`
	// The longest that a revocation can go unseen when no notification arrives. 0: no caching.
	TTL Duration `yaml:"ttl" default:"30s"`
	// How long an unknown token is remembered as unknown. 0: not at all.
	NegativeTTL Duration `yaml:"negative_ttl" default:"2s"`
	// With the store down or too slow, how long past ttl a cached token still serves: never past its expiry, and never once
	// the store or a notice has said anything else of it. While nobody listens, as when the database is gone, a revocation
	// can so go unseen for ttl and this together. 0: never.
	StaleOnError Duration `yaml:"stale_on_error" default:"0s"`
}

// DPoP holds the rules for proofs (RFC 9449 §4.3, §9, §11).
type DPoP struct {
	// The JWS algorithms taken, in the order in which challenges list them.
	Algorithms []string `yaml:"algorithms" default:"ES256,ES384,ES512,EdDSA,Ed25519,PS256,PS384,PS512,RS256" enum:"ES256,ES384,ES512,EdDSA,Ed25519,PS256,PS384,PS512,RS256,RS384,RS512"`
	// How old an iat may be. Raised by a reload, it holds for proofs made from then on; raised by SIGUSR2, or by any
	// restart while replay is shared, one that was used just before could be used again: reload instead.
	MaxAge Duration `yaml:"max_age" default:"60s"`
	// How far ahead of our clock an iat may be.
	MaxSkew Duration `yaml:"max_skew" default:"10s"`
	// Server nonces (RFC 9449 §9). auto asks for one only when iat cannot be trusted: outside the window, or older than
	// this process while replay is memory. required always asks. off never does.
	Nonce string `yaml:"nonce" default:"auto" enum:"off,auto,required"`
	// How long a nonce is good, at the most. With a good nonce the iat window is not applied.
	NonceTTL Duration `yaml:"nonce_ttl" default:"5m"`
	// The key that nonces are made with, shared by a fleet. Empty: a random key per process.
	NonceKey Secret `yaml:"nonce_key"`
	// Where used proofs are remembered: memory, postgres, or a redis://, rediss://, valkey:// or valkeys:// URL.
	Replay Secret `yaml:"replay" default:"memory"`
	// While a shared replay store cannot answer: refuse every proof with 503, or ask for a nonce that one instance alone
	// takes, whose proofs it remembers by itself, as replay: memory does, in replay_memory. That is as exact, but a client
	// has to reach the same instance twice in a row, so the load balancer must keep clients where they are; and all
	// instances have to have the same setting. Routes with nonce: off refuse.
	ReplayOnError string `yaml:"replay_on_error" default:"refuse" enum:"refuse,nonce"`
	// The bound of replay: memory. Full is 503, never forgetting.
	ReplayMemory Size `yaml:"replay_memory" default:"256MiB"`
	// The longest DPoP header taken.
	MaxProofSize Size `yaml:"max_proof_size" default:"8KiB"`
	// Build a table of 6 KiB for each client whose ES256 key comes often, which halves the work of checking its signatures.
	// The headers of up to 16,384 clients are remembered in any case, those tables in up to 96 MiB. crypto/ecdsa verifies
	// again whatever a table refuses. Without effect in FIPS 140-3 mode.
	KeyTables bool `yaml:"key_tables" default:"true"`
}

// Identity names the headers that tell the upstream who calls. An empty name means that header is not sent.
// Incoming headers and trailers of these names, and of every preset's, are always removed, in any spelling.
type Identity struct {
	// The family of header names; single names below override it. x-auth is X-Auth-Subject, -Scope, -Client, -Token-Id,
	// -Token-Type and -Expires. remote-user, auth-request and oauth2-proxy are the same endings, with User for Subject,
	// after Remote-, X-Auth-Request- and X-Forwarded-. kong is X-Authenticated-Userid, X-Authenticated-Scope and, for the
	// client, X-Credential-Identifier.
	Preset string `yaml:"preset" default:"x-auth" enum:"x-auth,remote-user,auth-request,oauth2-proxy,kong"`
	// The user_id of the token. A client-only token has no subject header.
	Subject *string `yaml:"subject"`
	// The scopes, space-separated, in the stored order.
	Scope *string `yaml:"scope"`
	// The client_id.
	Client *string `yaml:"client"`
	// The stored jti, never the token.
	TokenID *string `yaml:"token_id"`
	// DPoP or Bearer.
	TokenType *string `yaml:"token_type"`
	// The end of the token's life in Unix seconds.
	Expires *string `yaml:"expires"`
	// Header name to top-level member of the stored metadata.
	Metadata map[string]string `yaml:"metadata"`
	// A short-lived signed JWT of all that.
	Assertion Assertion `yaml:"assertion"`
	// The client's Authorization: remove it, keep it and DPoP as sent, or send the token as Bearer without the proof.
	Authorization string `yaml:"authorization" default:"remove" enum:"remove,keep,bearer"`
}

// Assertion is a signed JWT for the upstream: an upstream that checks it need not trust its network. It is good for 30
// seconds and one request: beside the identity it holds the method, the path and the request id.
type Assertion struct {
	// The header that carries it, such as X-Auth-Assertion. Empty: none is sent.
	Header string `yaml:"header"`
	// The signing key, a private JWK or PEM, P-256 or Ed25519: dpopgate key new makes one. It is read again on reload; the
	// one before stays at /.well-known/dpopgate/jwks.json for ten minutes. A relative path starts at the working directory.
	KeyFile string `yaml:"key_file"`
	// The aud claim. Empty: the upstream as the route names it, so that no upstream can use what another one got.
	Audience string `yaml:"audience"`
}

// Upstream is a pool of servers that serve the same.
type Upstream struct {
	// http or https URLs of the servers.
	Targets []string `yaml:"targets"`
	// How a target is chosen.
	Balance string `yaml:"balance" default:"least_conn" enum:"least_conn,round_robin"`
	// Active health checks.
	Health *Health `yaml:"health"`
	// The bound of connecting, TLS handshake included.
	ConnectTimeout Duration `yaml:"connect_timeout" default:"2s"`
	// The bound of the wait for the response header. Streams after that are not cut.
	ResponseTimeout Duration `yaml:"response_timeout" default:"30s"`
	// Headers that the upstream itself wants, such as its own credentials.
	Headers map[string]Secret `yaml:"headers"`
	// TLS towards the targets.
	TLS *UpstreamTLS `yaml:"tls"`
	// Cleartext HTTP/2, for gRPC.
	H2C bool `yaml:"h2c"`
}

// Health is an active health check.
type Health struct {
	// The path asked for.
	Path string `yaml:"path" default:"/healthz"`
	// The pause between two checks of a target.
	Interval Duration `yaml:"interval" default:"5s"`
	// The bound of one check.
	Timeout Duration `yaml:"timeout" default:"1s"`
	// Failures in a row that take a target out.
	UnhealthyAfter int `yaml:"unhealthy_after" default:"2"`
	// Successes in a row that bring it back.
	HealthyAfter int `yaml:"healthy_after" default:"1"`
}

// UpstreamTLS is the TLS client side towards an upstream.
type UpstreamTLS struct {
	// The CAs to trust, PEM. Empty: the system's.
	CAFile string `yaml:"ca_file"`
	// A client certificate, PEM.
	CertFile string `yaml:"cert_file"`
	// Its key, PEM.
	KeyFile string `yaml:"key_file"`
	// The name to ask for and to check. Empty: the target's host.
	ServerName string `yaml:"server_name"`
}

// Route is one rule: who may call what.
type Route struct {
	// A net/http ServeMux pattern, "[METHOD ][HOST]/PATH".
	Match string `yaml:"match"`
	// A name from upstreams, or a URL.
	Upstream string `yaml:"upstream"`
	// Scopes that the token must have, all of them.
	Scopes []string `yaml:"scopes"`
	// Scopes of which the token must have at least one.
	AnyScope []string `yaml:"any_scope"`
	// Audiences served here; a token that names audiences must name one of them, a token that names none is for any.
	// Empty: the public URL.
	Audience []string `yaml:"audience"`
	// The client_ids allowed. Empty: all.
	Clients []string `yaml:"clients"`
	// Refuse client-only tokens (user_id NULL).
	RequireUser bool `yaml:"require_user"`
	// Overrides dpop.nonce here.
	Nonce string `yaml:"nonce" enum:"off,auto,required"`
	// Token types let through. Bearer lets through tokens stored as Bearer; a bound one sent as Bearer never passes.
	TokenTypes []string `yaml:"token_types" default:"DPoP" enum:"DPoP,Bearer"`
	// A path prefix taken off before forwarding.
	StripPrefix string `yaml:"strip_prefix"`
	// Send the client's Host instead of the target's.
	PreserveHost bool `yaml:"preserve_host"`
	// enforce, or report: check everything, refuse nothing, and log and count what would have been refused, by client. The
	// upstream is told who calls only where all checks passed. A request that is let through cannot be asked for a nonce.
	Mode string `yaml:"mode" default:"enforce" enum:"enforce,report"`
	// Requests per window.
	RateLimit *RateLimit `yaml:"rate_limit"`
	// The longest request body. 0: no bound.
	MaxBody Size `yaml:"max_body"`
	// Browser clients of other origins.
	CORS *CORS `yaml:"cors"`
	// Let Upgrade: websocket through.
	WebSocket bool `yaml:"websocket"`
	// Let %2F inside a segment through as it came.
	EncodedSlashes bool `yaml:"encoded_slashes"`
	// No token asked for; identity headers are still removed.
	Public bool `yaml:"public"`
}

// RateLimit is a token bucket per caller. It is counted once every other check has passed.
type RateLimit struct {
	// What a caller is: the user of the token (for one without a user, its client), the client, the token, or the address,
	// of which IPv6 counts by networks of 64 bits. A public route has only ip.
	Per string `yaml:"per" enum:"subject,client,token,ip"`
	// Requests per window.
	Requests int `yaml:"requests"`
	// The window.
	Window Duration `yaml:"window" default:"1s"`
	// How many may come at once. 0: requests.
	Burst int `yaml:"burst"`
}

// CORS lets browser pages of other origins call.
type CORS struct {
	// Origins such as https://app.example.com; "*" is any.
	Origins []string `yaml:"origins"`
}

// ForwardAuth answers other proxies' auth requests. Only listen.trusted_proxies may ask; a proxy among them must not pass
// requests of clients for this path on.
type ForwardAuth struct {
	// The path to answer at, such as /_dpopgate/verify, with one more segment for the kind of proxy: /nginx, /caddy,
	// /traefik, /haproxy, and /envoy with the original path behind it. dpopgate init --for writes their configs. Empty: off.
	Path string `yaml:"path"`
}

// Metadata is what the protected resource metadata (RFC 9728) says beyond the policy itself.
type Metadata struct {
	// Issuer URLs.
	AuthorizationServers []string `yaml:"authorization_servers"`
	// A human-readable name.
	ResourceName string `yaml:"resource_name"`
	// The URL of the documentation.
	Documentation string `yaml:"documentation"`
}

// Log says what is logged and how.
type Log struct {
	// The least severe level logged.
	Level string `yaml:"level" default:"info" enum:"debug,info,warn,error"`
	// json or text.
	Format string `yaml:"format" default:"json" enum:"json,text"`
	// One line for each request.
	Access bool `yaml:"access" default:"true"`
	// Of the requests that pass, how many share one line: 1 logs all of them, 100 every hundredth on average. Those that are
	// refused, that fail, or that mode report would refuse are always logged.
	Sample int `yaml:"sample" default:"1"`
	// Where security events go in JSON, one line each: stderr, stdout, or a file, which is appended to and opened anew on
	// SIGHUP. Empty: misuse and replays are in the log, and of the rest what the log says anyway. Commands that issue or
	// revoke tokens write to it when it is a file. A disk that is full stops no request: see dpopgate_audit_failures_total.
	Audit string `yaml:"audit"`
}

// Tracing says where traces go.
type Tracing struct {
	// The OTLP/HTTP endpoint of a collector of traces, such as http://127.0.0.1:4318; /v1/traces is added where there is no
	// path. Empty: OTEL_EXPORTER_OTLP_ENDPOINT and _TRACES_ENDPOINT decide, and without them there are no traces. The other
	// OTEL_* variables (headers, sampler, service name, batches) hold in any case. What a request is part of (traceparent) is
	// believed of listen.trusted_proxies alone; others begin a trace of their own, with a link. The upstream is told.
	OTLPEndpoint string `yaml:"otlp_endpoint"`
}

// Limits bounds the listeners and times a shutdown.
type Limits struct {
	// The longest request header.
	HeaderBytes Size `yaml:"header_bytes" default:"32KiB"`
	// The bound of reading it.
	HeaderTimeout Duration `yaml:"header_timeout" default:"10s"`
	// How long an idle connection is kept.
	IdleTimeout Duration `yaml:"idle_timeout" default:"2m"`
	// After SIGTERM, or after a new process has taken over: how long the gateway goes on serving while /readyz already says
	// no and each answer says that its connection is not to be used again. Idle connections stay open meanwhile.
	DrainDelay Duration `yaml:"drain_delay" default:"5s"`
	// After that: how long running requests may take to finish.
	DrainTimeout Duration `yaml:"drain_timeout" default:"30s"`
	// The most connections at a time, admin left out; more wait to be accepted. 0: no bound.
	MaxConnections int `yaml:"max_connections"`
}

package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
)

// exchangeKey is the context key under which the hooks of ReverseProxy find their exchange.
type exchangeKey struct{}

func exchangeOf(r *http.Request) *exchange { return r.Context().Value(exchangeKey{}).(*exchange) }

// exchangeContext is context.WithValue for that key.
type exchangeContext struct {
	context.Context
	x *exchange
}

func (c *exchangeContext) Value(key any) any {
	if key == (exchangeKey{}) {
		return c.x
	}
	return c.Context.Value(key)
}

// forward is step 8.
func (x *exchange) forward(w http.ResponseWriter, r *http.Request, s *streams) {
	x.sent = x.o.Now()
	x.own.ctx = exchangeContext{r.Context(), x}
	var ctx context.Context = &x.own.ctx
	if r.ContentLength < 0 || r.ContentLength > longBody {
		ctx, x.stream.cancel = context.WithCancel(ctx)
		defer x.stream.cancel()
		x.body.upload = newUpload(x.route.upstream.made.config.ResponseTimeout.Std(), x.stream.cancel)
		defer x.body.upload.end()
	}
	r = r.WithContext(ctx)
	if r.ContentLength != 0 {
		x.receive(r)
	}
	defer x.release()
	if x.record != nil && !x.route.report {
		s.add(x)
		defer x.leaveStreams()
	}
	x.upgrade = x.route.webSocket && asksForWebSocket(r)
	x.out.relay(x)
	x.route.upstream.proxy.ServeHTTP(w, r)
	if x.answered != nil && len(x.answered.Trailer) > 0 {
		x.table.identity.cleanResponse(w.Header()) // of the trailer, which is sent now; the header is gone
	}
	if x.out.parted {
		part(w.Header(), x.ended())
	}
}

// longBody is the length from which on a request's body may take its time: below it, it fits into the buffers on the way.
const longBody = 64 << 10

// rewrite makes the upstream's request. ReverseProxy has taken the hop-by-hop fields out by now, those that the client
// named in Connection too, so nothing set here can be taken out again.
func rewrite(p *httputil.ProxyRequest) {
	x := exchangeOf(p.In)
	up := x.route.upstream
	// Opaque is sent as it is: path and query leave as they came, also where net/url would spell them in another way.
	// The upstream's RoundTrip puts the target in front.
	path := x.path[len(x.route.stripPrefix):]
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	x.own.url = url.URL{
		Opaque:     path,
		RawQuery:   x.query,
		ForceQuery: p.In.URL.ForceQuery,
	}
	p.Out.URL = &x.own.url
	p.Out.Host = ""
	if x.route.preserveHost {
		p.Out.Host = x.from.host
	}
	p.Out.Trailer = nil
	h := p.Out.Header
	x.table.identity.clean(h)
	delete(h, "Connection")
	delete(h, "Upgrade")
	delete(h, "Te")
	if isGRPC(h) {
		h["Te"] = []string{"trailers"} // without which its servers take the way to be broken
	}
	if h["Expect"] != nil {
		delete(h, "Expect")
		if p.Out.Body != nil {
			h["Expect"] = []string{"100-continue"} // the only one there is, and net/http has looked at it
		}
	}
	if x.upgrade {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{webSocket}
	}
	x.from.tell(h, &x.own.forwarded, p.In.RemoteAddr, x.origin.host, x.origin.scheme)
	h["X-Request-Id"] = x.own.id[:]
	if x.record != nil {
		x.table.identity.set(h, &x.own.identity, x.record, x.token)
		x.assert(h, p.Out.Method, path)
	}
	for name, value := range up.headers {
		h.Set(name, value)
	}
	sendOnce(p.Out, up.http1.Load())
}

// private is the Cache-Control of an answer to a token whose upstream says nothing about caches: no cache between the
// gateway and the client may give it to anybody else (RFC 9111 §3.5 forbids that, and not all of them know).
var private = []string{"private"}

// modifyResponse takes out of the upstream's answer what clients would believe to be ours.
func modifyResponse(res *http.Response) error {
	x := exchangeOf(res.Request)
	x.event.Upstream = x.o.Now().Sub(x.sent)
	x.answered = res
	x.body.upload.end()
	x.table.identity.cleanResponse(res.Header)
	if len(res.Trailer) > 0 {
		delete(res.Header, "Content-Length") // HTTP/2 has both; HTTP/1 has trailers only where the length is not known
	}
	x.table.identity.cleanResponse(res.Trailer) // as announced: the values come after the body
	if x.record != nil && res.Header["Cache-Control"] == nil {
		res.Header["Cache-Control"] = private
	}
	x.ownCORS(res.Header)
	if x.table.hsts != nil {
		delete(res.Header, "Strict-Transport-Security") // one field counts, the first (RFC 6797 §8.1), and ours is set
	}
	x.ownRateLimit(res.Header)
	x.setNonce(res.Header, res.StatusCode, dpop.NoCode)
	x.out.relayed()
	if res.StatusCode == http.StatusSwitchingProtocols {
		return x.switchProtocols(res)
	}
	x.body.answers()
	x.out.headOnly = res.ContentLength == 0
	body := res.Body
	if x.grpc && isGRPC(res.Header) {
		x.out.parting = true
		res.Body = &call{body, x.out}
	}
	if !x.begins(body, nil) {
		return errEnded
	}
	return nil
}

// upstreamFailed answers when there is no answer from upstream.
func upstreamFailed(w http.ResponseWriter, r *http.Request, err error) {
	if err == errTunnelled {
		return
	}
	x := exchangeOf(r)
	x.out.relayed()
	f := refuseRequest(http.StatusBadGateway, UpstreamBroke, "the upstream broke off")
	var unsent *unreachable
	ended, received := x.ended(), x.body.refusal()
	switch {
	case ended != nil:
		f = ended
	case x.body.upload.stuck():
		f = refuseRequest(http.StatusGatewayTimeout, UpstreamLate, "the upstream did not take the request in time")
	case received != nil && received.reason != RequestBodyFailed: // net/http takes the late for gone
		f = received
	case r.Context().Err() != nil:
		f.reason, f.description = ClientGone, "the client left"
	case received != nil:
		f = received
	case errors.As(err, &unsent), errors.Is(err, errNoTarget):
		f.reason, f.description = UpstreamDown, "no connection to the upstream"
	case isLate(err):
		f = refuseRequest(http.StatusGatewayTimeout, UpstreamLate, "the upstream did not answer in time")
	}
	f.err = err
	x.event.Verdict, x.event.Reason, x.event.Err = Failed, f.reason, err
	boundBody(w, r)
	x.answer(w, f)
}

// since is a duration that is not negative when the clock was set back.
func since(now, then time.Time) time.Duration { return max(0, now.Sub(then)) }

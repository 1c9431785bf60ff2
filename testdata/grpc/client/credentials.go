package main

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/dpopgate/dpopgate/dpop"
)

// proofs are credentials for each call: the token, and a proof that the caller holds the key that the token is bound to.
// To gRPC they are grpc.WithPerRPCCredentials(p), and where no nonce is asked for, calls need nothing else. A call is a
// POST to https://AUTHORITY/SERVICE/METHOD, which is what the proof is for; a stream is one call, and has one.
type proofs struct {
	key   *dpop.Key
	token string
	nonce atomic.Value // string: the latest one that the server gave
}

// GetRequestMetadata makes the credentials of one call. gRPC asks anew when it sends a call again.
func (p *proofs) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	call, ok := credentials.RequestInfoFromContext(ctx)
	if !ok || len(uri) != 1 {
		return nil, errors.New("a proof is for a call")
	}
	method := call.Method[strings.LastIndexByte(call.Method, '/'):] // uri ends at the service
	nonce, _ := p.nonce.Load().(string)
	proof, err := p.key.Sign(dpop.Claims{Method: "POST", URL: uri[0] + method, Token: p.token, Nonce: nonce})
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": dpop.SchemeDPoP + " " + p.token, "dpop": proof}, nil
}

// RequireTransportSecurity says that no token goes over cleartext.
func (*proofs) RequireTransportSecurity() bool { return true }

// withNonce is for grpc.WithUnaryInterceptor: it keeps the nonces that come with answers, and when one is asked for
// (RFC 9449 §9), it makes the call once more. Streams use what calls before them have brought.
func (p *proofs) withNonce(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, options ...grpc.CallOption) error {
	var header, trailer metadata.MD
	options = append(options, grpc.Header(&header), grpc.Trailer(&trailer))
	err := call(ctx, method, request, answer, conn, options...)
	given := append(header.Get("dpop-nonce"), trailer.Get("dpop-nonce")...) // a refusal is a trailer alone
	if len(given) == 0 {
		return err
	}
	p.nonce.Store(given[0])
	if status.Code(err) == codes.Unauthenticated && strings.Contains(strings.Join(trailer.Get("www-authenticate"), ","), `"use_dpop_nonce"`) {
		err = call(ctx, method, request, answer, conn, options...)
	}
	return err
}

package main

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/credentials"

	"github.com/dpopgate/dpopgate/dpop"
)

// proofs are credentials for each call: the token, and a proof that the caller holds the key that the token is bound to.
// To gRPC they are grpc.WithPerRPCCredentials(proofs{key, token}), and its calls need nothing else. A call is a POST to
// https://AUTHORITY/SERVICE/METHOD, which is what the proof is for; a stream is one call, and has one.
type proofs struct {
	key   *dpop.Key
	token string
}

// GetRequestMetadata makes the credentials of one call. gRPC asks anew when it sends a call again.
func (p proofs) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	call, ok := credentials.RequestInfoFromContext(ctx)
	if !ok || len(uri) != 1 {
		return nil, errors.New("a proof is for a call")
	}
	method := call.Method[strings.LastIndexByte(call.Method, '/'):] // uri ends at the service
	proof, err := p.key.Sign(dpop.Claims{Method: "POST", URL: uri[0] + method, Token: p.token})
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": dpop.SchemeDPoP + " " + p.token, "dpop": proof}, nil
}

// RequireTransportSecurity says that no token goes over cleartext.
func (proofs) RequireTransportSecurity() bool { return true }

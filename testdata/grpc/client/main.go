// Client makes gRPC's own interoperability calls through a gateway, with a token and its key. What it is told, and what
// becomes of a stream that stays open, it prints in lines.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/dpopgate/dpopgate/dpop"
)

var (
	address   = flag.String("address", "", "of the gateway, HOST:PORT")
	authority = flag.String("authority", "", "the host of its public URL, with its port")
	roots     = flag.String("roots", "", "file of the CA to trust")
	keyFile   = flag.String("key", "", "file of the client's key")
)

// calls are the four kinds, in small and in large, and what may go wrong with each.
var calls = map[string]func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption){
	"empty_unary":                 interop.DoEmptyUnaryCall,
	"large_unary":                 interop.DoLargeUnaryCall,
	"client_streaming":            interop.DoClientStreaming,
	"server_streaming":            interop.DoServerStreaming,
	"ping_pong":                   interop.DoPingPong,
	"empty_stream":                interop.DoEmptyStream,
	"custom_metadata":             interop.DoCustomMetadata,
	"status_code_and_message":     interop.DoStatusCodeAndMessage,
	"special_status_message":      interop.DoSpecialStatusMessage,
	"timeout_on_sleeping_server":  interop.DoTimeoutOnSleepingServer,
	"cancel_after_begin":          interop.DoCancelAfterBegin,
	"cancel_after_first_response": interop.DoCancelAfterFirstResponse,
}

func main() {
	log.SetFlags(0)
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := connect()
	if err != nil {
		log.Fatal(err)
	}
	client := testgrpc.NewTestServiceClient(conn)
	for _, name := range flag.Args() {
		switch call := calls[name]; {
		case call != nil:
			call(ctx, client) // ends the process when it fails
			fmt.Println(name, "passed")
		case name == "refused":
			_, err := client.EmptyCall(ctx, new(testgrpc.Empty))
			told("refused", err)
		case name == "hold":
			told("ended", hold(ctx, client))
		default:
			log.Fatalf("no call is named %q", name)
		}
	}
}

// connect is a connection whose calls carry the token on standard input.
func connect() (*grpc.ClientConn, error) {
	pem, err := os.ReadFile(*roots)
	if err != nil {
		return nil, err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(pem)
	data, err := os.ReadFile(*keyFile)
	if err != nil {
		return nil, err
	}
	key, err := dpop.ReadKey(data)
	if err != nil {
		return nil, err
	}
	token, err := io.ReadAll(os.Stdin)
	if err != nil {
		return nil, err
	}
	p := &proofs{key: key, token: strings.TrimSpace(string(token))}
	return grpc.NewClient("passthrough:///"+*address,
		grpc.WithAuthority(*authority),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: trusted})),
		grpc.WithPerRPCCredentials(p),
		grpc.WithUnaryInterceptor(p.withNonce))
}

// hold opens a stream, sees that it carries messages both ways, and waits for its end.
func hold(ctx context.Context, client testgrpc.TestServiceClient) error {
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for range 2 {
		if err := stream.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 1}}}); err != nil {
			return err
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
	fmt.Println("open")
	_, err = stream.Recv()
	return err
}

// told prints a status as a client is told it.
func told(what string, err error) {
	fmt.Printf("%s %s %q\n", what, status.Code(err), status.Convert(err).Message())
}

// Server is gRPC's own interoperability server. It prints its address, and then a line for each call: the method, and
// what it was told about who calls.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
)

var (
	certFile = flag.String("cert", "", "file of its certificate; empty: it speaks HTTP/2 in cleartext")
	keyFile  = flag.String("key", "", "file of the certificate's key")
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	options := []grpc.ServerOption{
		grpc.UnaryInterceptor(func(ctx context.Context, r any, call *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			tell(ctx, call.FullMethod)
			return next(ctx, r)
		}),
		grpc.StreamInterceptor(func(server any, stream grpc.ServerStream, call *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			tell(stream.Context(), call.FullMethod)
			return next(server, stream)
		}),
	}
	if *certFile != "" {
		secure, err := credentials.NewServerTLSFromFile(*certFile, *keyFile)
		if err != nil {
			log.Fatal(err)
		}
		options = append(options, grpc.Creds(secure))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(options...)
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	fmt.Println(listener.Addr())
	log.Fatal(server.Serve(listener))
}

// tell prints who calls, and whether the credentials came along.
func tell(ctx context.Context, method string) {
	said, _ := metadata.FromIncomingContext(ctx)
	fmt.Println(method, said.Get("x-auth-client"), said.Get("x-auth-scope"), len(said.Get("authorization"))+len(said.Get("dpop")))
}

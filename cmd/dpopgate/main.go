// Command dpopgate is a reverse proxy that lets a request through to a legacy API only when it carries a live access
// token and a proof that the sender holds the key that token is bound to (DPoP, RFC 9449).
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], newEnv()))
}

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/dpop"
)

func newProofCommand(e *env) *cobra.Command {
	var keyFile, method, target, token, nonce string
	cmd := &cobra.Command{
		Use:   "proof --key FILE --method METHOD --url URL",
		Short: "Print one DPoP proof, for the DPoP header of one request",
		Long: "Signs one DPoP proof (RFC 9449) and prints it. It is good for one request with that method and URL, and for about a\n" +
			"minute. At most one of --key and --token can be - for stdin.",
		Example: "  dpopgate proof --key client.jwk --method GET --url https://api.example.com/orders/ --token - <token",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := wantFlags(cmd, "key", "method", "url"); err != nil {
				return err
			}
			if upper := strings.ToUpper(method); method != upper {
				return usagef("--method %s: methods count letter case, want %s", method, upper)
			}
			htu, err := proofURL(target)
			if err != nil {
				return usageError{fmt.Errorf("--url: %w", err)}
			}
			if keyFile == "-" && token == "-" {
				return usagef("--key and --token cannot both be read from stdin")
			}
			key, err := readKey(e, keyFile)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("token") {
				if token, err = readToken(e, token); err != nil {
					return err
				}
			}
			proof, err := key.Sign(dpop.Claims{Method: method, URL: htu, Token: token, Nonce: nonce})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(e.stdout, proof)
			return err
		},
	}
	cmd.Flags().StringVar(&keyFile, "key", "", "the client's private key, JWK or PEM, in this `FILE`")
	cmd.Flags().StringVar(&method, "method", "", "the `METHOD` of the request")
	cmd.Flags().StringVar(&target, "url", "", "the `URL` of the request; its query and fragment are left out")
	cmd.Flags().StringVar(&token, "token", "", "the access `TOKEN` sent with it, or - to read it from stdin")
	cmd.Flags().StringVar(&nonce, "nonce", "", "the `NONCE` that the server asked for")
	return cmd
}

// wantFlags says which of the flags are missing or empty.
func wantFlags(cmd *cobra.Command, names ...string) error {
	var missing []string
	for _, name := range names {
		if cmd.Flag(name).Value.String() == "" {
			missing = append(missing, "--"+name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return usagef("%s wants %s", cmd.CommandPath(), strings.Join(missing, " and "))
}

// proofURL is the htu of a URL: what comes before its query and fragment (RFC 9449 §4.2).
func proofURL(text string) (string, error) {
	text, _, _ = strings.Cut(text, "#")
	text, _, _ = strings.Cut(text, "?")
	if _, err := dpop.ParseOrigin(text); err != nil {
		return "", err
	}
	return text, nil
}

// readToken is the token that an argument means: the argument itself, or for "-" a line on stdin, so that the token
// stands in no process list.
func readToken(e *env, arg string) (string, error) {
	token := arg
	if arg == "-" {
		data, err := readSmall(e, "-")
		if err != nil {
			return "", fmt.Errorf("reading the token: %w", err)
		}
		token = strings.TrimSpace(string(data))
	}
	switch {
	case token == "":
		return "", errors.New("the token is empty")
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("the token is not one word of ASCII characters")
	}
	return token, nil
}

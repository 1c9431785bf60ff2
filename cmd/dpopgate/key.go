package main

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/dpop"
)

func newKeyCommand(e *env) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:     "key",
		Short:   "Make client keys, and say by what thumbprint a token is bound to one",
		Example: "  dpopgate key new -o client.jwk",
	})
	cmd.AddCommand(newKeyNewCommand(e), newKeyThumbprintCommand(e))
	return cmd
}

func newKeyNewCommand(e *env) *cobra.Command {
	var alg, path string
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Make a client key, as a private JWK",
		Long: "Makes a client key and prints it as a private JWK, or writes it to a new file that only its owner may read.\n" +
			"The key is a secret of the client; a token is bound to its thumbprint.",
		Example: "  dpopgate key new -o client.jwk",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("out") && path == "" {
				return usagef("-o wants the name of a file to write")
			}
			if !dpop.Known(dpop.Algorithm(alg)) {
				return usagef("--alg %q: want one of ES256, ES384, ES512, EdDSA, Ed25519, PS256, PS384, PS512, RS256, RS384, RS512", alg)
			}
			key, err := dpop.NewKey(dpop.Algorithm(alg))
			if err != nil {
				return fmt.Errorf("making the key: %w", err)
			}
			bind := "--jkt " + string(key.Thumbprint())
			if path == "" {
				if err := printKey(e.stdout, key); err != nil {
					return err
				}
			} else {
				if err := createKeyFile(path, key); err != nil {
					return err
				}
				bind = "--key " + path
			}
			fmt.Fprintf(e.stderr, "thumbprint %s\nnext: dpopgate token issue --client UUID --scope SCOPE %s\n", key.Thumbprint(), bind)
			return nil
		},
	}
	cmd.Flags().StringVar(&alg, "alg", string(dpop.ES256), "the `ALGORITHM` that the key signs with")
	cmd.Flags().StringVarP(&path, "out", "o", "", "write to this new `FILE` (mode 0600) instead of stdout")
	return cmd
}

func newKeyThumbprintCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "thumbprint FILE|-",
		Short:   "Print the RFC 7638 thumbprint of a key, private or public, JWK or PEM",
		Example: "  dpopgate key thumbprint client.jwk",
		Args:    exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			data, err := readSmall(e, args[0])
			if err != nil {
				return fmt.Errorf("reading the key: %w", err)
			}
			thumbprint, err := dpop.ReadThumbprint(data)
			if err != nil {
				return fmt.Errorf("reading the key in %s: %w", inputName(args[0]), err)
			}
			_, err = fmt.Fprintln(e.stdout, thumbprint)
			return err
		},
	}
}

// createKeyFile writes a private key to a file that was not there before and that only its owner may read.
func createKeyFile(path string, key *dpop.Key) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s is there already, and a key is never overwritten: name another file", path)
	case err != nil:
		return fmt.Errorf("writing the key: %w", err)
	}
	err = printKey(f, key)
	if err := errors.Join(err, f.Close()); err != nil {
		os.Remove(path)
		return fmt.Errorf("writing the key: %w", err)
	}
	return nil
}

func printKey(w io.Writer, key *dpop.Key) error {
	jwk, err := key.JWK()
	if err != nil {
		return err
	}
	_, err = w.Write(append(jwk, '\n'))
	return err
}

// readKey reads a private key from a file, or from stdin for "-".
func readKey(e *env, path string) (*dpop.Key, error) {
	data, err := readSmall(e, path)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	key, err := dpop.ReadKey(data)
	if err != nil {
		return nil, fmt.Errorf("reading the key in %s: %w", inputName(path), err)
	}
	return key, nil
}

// maxSmall bounds keys and tokens that are read, in bytes.
const maxSmall = 64 << 10

// readSmall reads a file of bounded size, or stdin for "-".
func readSmall(e *env, path string) ([]byte, error) {
	from := e.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, maxSmall+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxSmall:
		return nil, fmt.Errorf("%s holds more than %d KiB", inputName(path), maxSmall>>10)
	}
	return data, nil
}

// inputName is what an error calls an input.
func inputName(path string) string {
	if path == "-" {
		return "stdin"
	}
	return path
}

// isThumbprint says whether text can be an RFC 7638 thumbprint: a SHA-256 digest in base64url.
func isThumbprint(text string) bool {
	digest, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return err == nil && len(digest) == sha256.Size
}

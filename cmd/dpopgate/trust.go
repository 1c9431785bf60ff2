package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"
)

func newTrustCommand(e *env) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Show how to make clients trust the local CA of tls.internal",
		Long: "Shows where the root certificate of the local CA is that tls.internal makes, and how systems, browsers and programs\n" +
			"are made to trust it. It changes nothing by itself.",
		Example: "  dpopgate trust -c dpopgate.yaml",
		Args:    exactly(0),
		RunE: func(*cobra.Command, []string) error {
			c, err := loadConfig(path)
			if err != nil {
				return err
			}
			if c.TLS == nil || !c.TLS.Internal {
				return errors.New("tls.internal is not on, so there is no local CA to trust")
			}
			return printTrust(e.stdout, c.TLS.InternalStorage, c.PublicURLs[0])
		},
	}
	configFlag(cmd, &path)
	return cmd
}

var trustText = template.Must(template.New("trust").Parse(`The root certificate of this gateway's local CA, good until {{.Until}}:

  {{.Root}}
  SHA-256 {{.Fingerprint}}

Whoever has the key beside it can make certificates that are then trusted for any host: trust it on machines for
development, and nowhere else.

One program, without trusting it in general:
  curl --cacert {{.Quoted}} {{.URL}}/
  NODE_EXTRA_CA_CERTS={{.Quoted}} node …
  SSL_CERT_FILE={{.Quoted}} dpopgate call …

Debian, Ubuntu:
  sudo install -m 644 {{.Quoted}} /usr/local/share/ca-certificates/dpopgate.crt && sudo update-ca-certificates
Fedora, RHEL:
  sudo install -m 644 {{.Quoted}} /etc/pki/ca-trust/source/anchors/dpopgate.crt && sudo update-ca-trust
macOS:
  sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {{.Quoted}}
Windows:
  certutil -addstore -f ROOT root.crt
Chrome and Chromium on Linux:
  certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n dpopgate -i {{.Quoted}}
Firefox:
  Settings, Privacy & Security, View Certificates, Authorities, Import
`))

// printTrust writes how to trust the CA in a folder, which must be there.
func printTrust(w io.Writer, folder, url string) error {
	root, err := filepath.Abs(rootFile(folder))
	if err != nil {
		return err
	}
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not there yet; dpopgate serve makes it at its first start", root)
	}
	ca, err := openLocalCA(folder, time.Now)
	if err != nil {
		return err
	}
	return trustText.Execute(w, map[string]string{
		"Root": root, "Quoted": shellQuote(root), "URL": url,
		"Until": ca.root.NotAfter.Format(time.DateOnly), "Fingerprint": ca.fingerprint(),
	})
}

// shellQuote writes a text as one word of a POSIX shell.
func shellQuote(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("/._-+:@%", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

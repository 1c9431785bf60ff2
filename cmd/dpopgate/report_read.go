package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	neturl "net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dpopgate/dpopgate/config"
)

const (
	reportTimeout = 10 * time.Second
	maxReport     = 16 << 20 // of the answer of an instance
)

func newReportCommand(e *env) *cobra.Command {
	var path, last string
	var urls []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Say which clients enforcing would break",
		Long: "Asks a running gateway who has called which route, with a proof, as Bearer or in vain, and says of each client\n" +
			"whether its requests would pass if the routes in mode report enforced. Address and secret of the admin listener are\n" +
			"those of the config file. For several instances give --url for each: they are added up.",
		Example: `  dpopgate report
  dpopgate report --last 1h --url http://127.0.0.1:9180 --url http://127.0.0.1:9280`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if last != "1h" && last != "24h" {
				return usagef("--last %s: want 1h or 24h", last)
			}
			a := &adminClient{urls: urls}
			if len(urls) == 0 || cmd.Flags().Changed("config") {
				c, err := loadConfig(path)
				if err != nil {
					return err
				}
				if err := a.configure(c); err != nil {
					return err
				}
			}
			total, err := a.report(cmd.Context(), last)
			switch {
			case err != nil:
				return err
			case wantJSON(cmd, e, asJSON):
				return printJSON(e.stdout, total)
			default:
				return total.print(e.stdout)
			}
		},
	}
	configFlag(cmd, &path)
	f := cmd.Flags()
	f.StringArrayVar(&urls, "url", nil, "the admin listener of an instance (`URL`), instead of that of the config; again for several")
	f.StringVar(&last, "last", "24h", "the `TIME` to look back at: 1h or 24h")
	f.BoolVar(&asJSON, "json", false, "print JSON, as without a terminal")
	completeWith(cmd, "last", func() []string { return []string{"1h", "24h"} })
	return cmd
}

// wantJSON says whether a command prints JSON: when it is told so, or when nobody looks. --json=false is a table all the same.
func wantJSON(cmd *cobra.Command, e *env, asJSON bool) bool {
	if cmd.Flags().Changed("json") {
		return asJSON
	}
	return !e.terminal
}

// adminClient asks admin listeners.
type adminClient struct {
	urls   []string
	bearer string
	tls    *tls.Config
}

// configure takes from a config where its admin listener is and what it wants. The certificate to be met is the very
// one that the config names: the address that is called is seldom in it.
func (a *adminClient) configure(c *config.Config) error {
	a.bearer = string(c.Admin.Auth.Bearer)
	scheme := "http"
	if c.Admin.TLS != nil {
		scheme = "https"
		pair, _, err := loadCertificateFiles("admin.tls", *c.Admin.TLS)
		if err != nil {
			return err
		}
		a.tls = pinned(pair.Leaf)
	}
	if len(a.urls) > 0 {
		return nil
	}
	host, port, err := net.SplitHostPort(c.Listen.Admin)
	if err != nil {
		return errors.New("listen.admin is empty, so the gateway has no admin listener to ask; --url names another")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	a.urls = []string{scheme + "://" + net.JoinHostPort(host, port)}
	return nil
}

// pinned takes one certificate and no other.
func pinned(leaf *x509.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // of the chain and the name: VerifyConnection wants the certificate itself
		VerifyConnection: func(s tls.ConnectionState) error {
			if !s.PeerCertificates[0].Equal(leaf) {
				return errors.New("the certificate is not that of admin.tls")
			}
			return nil
		},
	}
}

// report adds up what all instances say.
func (a *adminClient) report(ctx context.Context, last string) (*report, error) {
	var total *report
	for _, url := range a.urls {
		var one report
		if err := a.get(ctx, url, "/report?last="+last, &one); err != nil {
			return nil, err
		}
		if total == nil {
			total = &one
			continue
		}
		total.merge(&one)
	}
	return total, nil
}

// get reads a JSON value.
func (a *adminClient) get(ctx context.Context, base, path string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(base, "/")+path, nil)
	if err != nil || r.URL.Host == "" {
		return usagef("--url: want a URL such as http://127.0.0.1:9180")
	}
	if a.bearer != "" {
		r.Header.Set("Authorization", "Bearer "+a.bearer)
	}
	// A transport of its own: no proxy of the environment stands between, and none sees the bearer.
	transport := &http.Transport{TLSClientConfig: a.tls}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport, Timeout: reportTimeout}).Do(r)
	if e, ok := errors.AsType[*neturl.Error](err); ok {
		return fmt.Errorf("asking the gateway at %s: %w; does it run, and is this its listen.admin?", base, e.Err)
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReport))
	switch {
	case err != nil:
		return fmt.Errorf("reading the answer of %s: %w", base, err)
	case res.StatusCode == http.StatusUnauthorized, res.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%s does not let us in (%s): -c names the config file with its admin.auth.bearer", base, res.Status)
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answers %s: is this the listen.admin of a gateway?", base, res.Status)
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(into); err != nil {
		return fmt.Errorf("%s answers something else than a gateway's listen.admin", base)
	}
	return nil
}

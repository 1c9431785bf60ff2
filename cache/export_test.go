package cache

import (
	"context"
	"crypto/x509"
	"time"
)

// SetSlack changes how far clocks may be apart, before the first use.
func (p *PostgresProofs) SetSlack(d time.Duration) { p.slack = d }

// SetSlack changes how far clocks may be apart, before the first use.
func (p *ValkeyProofs) SetSlack(d time.Duration) { p.slack = d }

// Purge deletes what the background would delete.
func (p *PostgresProofs) Purge(ctx context.Context) (int64, error) { return p.purge(ctx) }

// Trust sets the CAs to trust instead of the system's, before the first use.
func (p *ValkeyProofs) Trust(roots *x509.CertPool) { p.options.TLSConfig.RootCAs = roots }

// ValkeyTarget is what a URL says.
type ValkeyTarget struct {
	Addresses                  []string
	User, Password, ServerName string
	Database                   int
}

func ParseValkeyURL(s string) (ValkeyTarget, error) {
	o, err := parseValkeyURL(s)
	t := ValkeyTarget{Addresses: o.InitAddress, User: o.Username, Password: o.Password, Database: o.SelectDB}
	if o.TLSConfig != nil {
		t.ServerName = o.TLSConfig.ServerName
	}
	return t, err
}

var (
	ErrClocks = errClocks
	ErrUnsure = errUnsure
)

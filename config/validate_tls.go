package config

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

func (f *file) checkTLS(c *Config) {
	t := c.TLS
	if t == nil {
		return
	}
	if n := count(t.ACME != nil, t.Certificate != nil, t.Internal); n != 1 {
		f.reject("tls", "want exactly one of acme, certificate and internal", "%d sources of certificates", n)
	}
	for i, raw := range c.PublicURLs {
		if strings.HasPrefix(raw, "http://") {
			f.reject(fmt.Sprintf("public_urls[%d]", i), "want https://, or leave tls out", "cleartext, and tls serves https only")
		}
	}
	if t.Certificate != nil {
		f.require("tls.certificate.cert_file", t.Certificate.CertFile)
		f.require("tls.certificate.key_file", t.Certificate.KeyFile)
	}
	switch key := "tls.internal_storage"; {
	case t.Internal:
		f.require(key, t.InternalStorage)
	case f.isSet(key) && t.InternalStorage != "./certificates/internal":
		f.reject(key, "leave it out, or set internal: true", "is for internal only")
	}
	f.checkDuration("tls.hsts", t.HSTS, 0, Duration(10*365*24*time.Hour))
	if t.HSTS > 0 && t.HSTS < Duration(time.Second) {
		f.reject("tls.hsts", "want whole seconds, such as 8760h, or 0", "too short: browsers would be told to forget")
	}
	if t.ACME != nil {
		f.checkACME(c, t.ACME)
	}
}

func (f *file) checkACME(c *Config, a *ACME) {
	if a.Email != "" && !isEmail(a.Email) {
		f.reject("tls.acme.email", "want an e-mail address", "%s is not an e-mail address", f.quoted("tls.acme.email", a.Email))
	}
	f.checkDomains(c, a)
	if a.Directory != "" {
		u, p := baseURL(a.Directory)
		f.rejectProblem("tls.acme.directory", p)
		if p == nil && u.Scheme != "https" {
			f.reject("tls.acme.directory", "want an https:// URL", "ACME needs https (RFC 8555 §6.1)")
		}
	}
	if a.EAB != nil {
		f.require("tls.acme.eab.key_id", a.EAB.KeyID)
		f.require("tls.acme.eab.hmac_key", string(a.EAB.HMACKey))
		if _, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(string(a.EAB.HMACKey), "=")); err != nil {
			f.reject("tls.acme.eab.hmac_key", "give it as the CA did", "not base64url")
		}
	}
	switch {
	case a.Storage == "":
		f.require("tls.acme.storage", "")
	case a.Storage == "store" && c.Store.Postgres == "" && !f.broken["store.postgres"]:
		f.reject("tls.acme.storage", "name a folder", "needs store.postgres")
	}
	switch {
	case a.StorageKey == "":
	case a.Storage != "store":
		f.reject("tls.acme.storage_key", "leave it out, or set storage: store", "is for storage: store only")
	default:
		f.checkKeyLength("tls.acme.storage_key", a.StorageKey)
	}
}

// checkDomains checks which hosts are to get certificates, and that the CA could give them.
func (f *file) checkDomains(c *Config, a *ACME) {
	hosts := c.PublicHosts()
	for i, domain := range a.Domains {
		key := fmt.Sprintf("tls.acme.domains[%d]", i)
		host, p := canonicalHost(domain)
		f.rejectProblem(key, p)
		if p != nil {
			continue
		}
		a.Domains[i] = host
		if !slices.Contains(hosts, host) {
			f.reject(key, "name a host of public_urls, or add it there", "%s is no host of public_urls", f.quoted(key, domain))
		}
	}
	f.checkNoRepeats("tls.acme.domains", a.Domains)
	if a.Directory != "" {
		return
	}
	for i, raw := range c.PublicURLs {
		u, err := url.Parse(raw)
		if err != nil || len(a.Domains) > 0 && !slices.Contains(a.Domains, u.Hostname()) || isPublicName(u.Hostname()) {
			continue
		}
		key := fmt.Sprintf("public_urls[%d]", i)
		f.reject(key, "for development use tls: {internal: true}; a CA of your own is named by tls.acme.directory",
			"Let's Encrypt has no certificates for %s", f.quoted(key, u.Hostname()))
	}
}

// isPublicName says whether a name can be one of the public DNS: no address, no single label, no domain that is set
// aside for other uses (RFC 6761, RFC 6762).
func isPublicName(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	dot := strings.LastIndex(host, ".")
	return dot >= 0 && !slices.Contains([]string{"localhost", "local", "internal", "test", "invalid", "lan"}, host[dot+1:])
}

// isEmail takes local@domain. What a mail server would say is not known here.
func isEmail(s string) bool {
	local, domain, found := strings.Cut(s, "@")
	_, p := canonicalHost(domain)
	return found && local != "" && p == nil && strings.Contains(domain, ".") &&
		!strings.ContainsFunc(local, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("<>,;:", r) })
}

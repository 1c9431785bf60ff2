package config

import "net"

// checkAdmin holds the admin listener to credentials wherever other machines reach it, and keeps those off the wire.
func (f *file) checkAdmin(c *Config) {
	host, _, err := net.SplitHostPort(c.Listen.Admin)
	remote := err == nil && !isLoopback(host)
	auth, tls := c.Admin.Auth, c.Admin.TLS
	switch {
	case auth != (AdminAuth{}):
		f.checkAdminAuth(auth, remote, tls != nil)
	case f.isSet("admin.auth.bearer"), f.isSet("admin.auth.client_ca"):
		f.reject("admin.auth", "want bearer or client_ca, or leave admin.auth out", "lets nobody in")
	case remote:
		f.reject("listen.admin", "want a loopback address such as 127.0.0.1:9180, or set admin.auth",
			"other machines can reach it, and without admin.auth it lets in whoever comes")
	}
	if tls != nil {
		f.require("admin.tls.cert_file", tls.CertFile)
		f.require("admin.tls.key_file", tls.KeyFile)
	}
}

func (f *file) checkAdminAuth(auth AdminAuth, remote, tls bool) {
	switch {
	case auth.Bearer != "" && remote && !tls:
		f.reject("admin.auth.bearer", "add admin.tls, or a loopback address in listen.admin", "would cross the network in cleartext")
	case auth.ClientCA != "" && !tls:
		f.reject("admin.auth.client_ca", "add admin.tls", "client certificates need TLS")
	}
	if auth.Bearer != "" {
		f.checkKeyLength("admin.auth.bearer", auth.Bearer)
	}
}

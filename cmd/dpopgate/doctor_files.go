package main

import (
	"crypto/x509"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/dpopgate/dpopgate/config"
)

// examineCertificates looks at how long the certificates in files are good. Those by ACME are renewed by themselves, and
// /readyz tells of them.
func examineCertificates(c *config.Config) []finding {
	var found []finding
	look := func(key string, files *config.Certificate) {
		if files == nil {
			return
		}
		pair, _, err := loadCertificateFiles(key, *files)
		if err != nil {
			found = append(found, finding{"certificates", key + " " + files.CertFile, findingWrong, oneLine(err), "give a certificate and its key, both PEM"})
			return
		}
		found = append(found, certificateFinding(key+" "+files.CertFile, pair.Leaf, time.Now()))
	}
	if c.TLS != nil {
		look("tls.certificate", c.TLS.Certificate)
	}
	look("admin.tls", c.Admin.TLS)
	return found
}

// certificateFinding is about how long a certificate is good.
func certificateFinding(about string, leaf *x509.Certificate, now time.Time) finding {
	f := finding{"certificates", about, findingOK, "good until " + leaf.NotAfter.UTC().Format(time.RFC3339), ""}
	switch left := leaf.NotAfter.Sub(now); {
	case left <= 0:
		f.State, f.Words, f.Fix = findingWrong, "expired at "+leaf.NotAfter.UTC().Format(time.RFC3339), "put a new one in place: the gateway takes it by itself"
	case now.Before(leaf.NotBefore):
		f.State, f.Words, f.Fix = findingWrong, "good from "+leaf.NotBefore.UTC().Format(time.RFC3339)+" on only", "check this machine's clock, or wait"
	case inLastThird(leaf, now):
		f.State, f.Words, f.Fix = findingWarn, "expires in "+briefly(left), "renew it: two thirds of its life are over"
	}
	return f
}

// fileReference finds the files that a config takes values from.
var fileReference = regexp.MustCompile(`\$\{file:([^}]+)\}`)

// secretFiles are the files and folders whose content nobody but the gateway is to read.
func secretFiles(path string, c *config.Config) map[string]string {
	files := map[string]string{}
	add := func(what, file string) {
		if file != "" {
			files[file] = what
		}
	}
	if text, err := os.ReadFile(path); err == nil {
		for _, m := range fileReference.FindAllSubmatch(text, -1) {
			file := string(m[1])
			if !filepath.IsAbs(file) {
				file = filepath.Join(filepath.Dir(path), file)
			}
			add("${file:}", file)
		}
	}
	if t := c.TLS; t != nil {
		if t.Certificate != nil {
			add("tls.certificate.key_file", t.Certificate.KeyFile)
		}
		if t.ACME != nil && t.ACME.Storage != "store" {
			add("tls.acme.storage", t.ACME.Storage)
		}
		if t.Internal {
			add("tls.internal_storage", t.InternalStorage)
		}
	}
	if c.Admin.TLS != nil {
		add("admin.tls.key_file", c.Admin.TLS.KeyFile)
	}
	add("identity.assertion.key_file", c.Identity.Assertion.KeyFile)
	for name, u := range c.Upstreams {
		if u.TLS != nil {
			add("upstreams."+name+".tls.key_file", u.TLS.KeyFile)
		}
	}
	return files
}

// examineSecrets looks at who may read them.
func examineSecrets(path string, c *config.Config) []finding {
	var found []finding
	files := secretFiles(path, c)
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if info, err := os.Stat(file); err == nil {
			found = append(found, modeFinding(files[file]+" "+file, info))
		} // one that is not there is the finding of who needs it
	}
	return found
}

// modeFinding is about the mode of a file or folder. A group may be the one that secrets are handed out by.
func modeFinding(about string, info fs.FileInfo) finding {
	mode := info.Mode().Perm()
	f := finding{"secrets", about, findingOK, fmt.Sprintf("mode %04o", mode), ""}
	switch {
	case mode&0o002 != 0:
		f.State, f.Words, f.Fix = findingWrong, f.Words+": every user of this machine may change it", "chmod o= on it"
	case mode&0o004 != 0:
		f.State, f.Words, f.Fix = findingWarn, f.Words+": every user of this machine may read it", "chmod o= on it, unless the gateway is alone here, as in a container"
	case mode&0o020 != 0:
		f.State, f.Words, f.Fix = findingWarn, f.Words+": its group may change it", "chmod g-w on it"
	}
	return f
}

// filesBeside is how many open files the gateway needs beside two for each connection: listeners, stores, health checks.
const filesBeside = 200

// examineLimits compares the limit of open files with limits.max_connections: each connection takes one to its client and
// one to the upstream. Go raises the soft limit to the hard one by itself.
func examineLimits(connections int) finding {
	f := finding{"limits", "open files", findingOK, "", ""}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		f.State, f.Words, f.Fix = findingWarn, oneLine(err), "look at ulimit -n"
		return f
	}
	return filesFinding(f, uint64(limit.Max), connections)
}

func filesFinding(f finding, limit uint64, connections int) finding {
	f.Words = fmt.Sprintf("%d", limit)
	wanted := 2*uint64(connections) + filesBeside
	switch {
	case connections > 0 && limit < wanted:
		f.State = findingWrong
		f.Words += fmt.Sprintf(", and limits.max_connections: %d needs %d", connections, wanted)
		f.Fix = fmt.Sprintf("raise LimitNOFILE (ulimit -Hn) to %d, or lower limits.max_connections", wanted)
	case connections == 0 && limit < 4096:
		f.State, f.Fix = findingWarn, "raise LimitNOFILE (ulimit -Hn), and set limits.max_connections to less than half of it"
		f.Words += ", which a few thousand connections use up"
	}
	return f
}

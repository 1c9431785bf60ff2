package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// certificateMetrics shows how long certificates are still good, asked when it is shown.
type certificateMetrics struct {
	certs            *certificates
	expiry, lifetime family
}

// watchCertificates shows the certificate of each host.
func (m *metrics) watchCertificates(certs *certificates) {
	m.registry.MustRegister(certs.failures, &certificateMetrics{
		certs:    certs,
		expiry:   newFamily("dpopgate_certificate_expiry_seconds", aGauge),
		lifetime: newFamily("dpopgate_certificate_lifetime_seconds", aGauge),
	})
}

// newCertificateFailures counts for each host the certificates that were not to be had.
func newCertificateFailures(hosts []string) *prometheus.CounterVec {
	failures := newCounter("dpopgate_certificate_failures_total")
	for _, host := range hosts {
		failures.WithLabelValues(host)
	}
	return failures
}

// Describe implements prometheus.Collector.
func (c *certificateMetrics) Describe(to chan<- *prometheus.Desc) {
	to <- c.expiry.desc
	to <- c.lifetime.desc
}

// Collect implements prometheus.Collector.
func (c *certificateMetrics) Collect(to chan<- prometheus.Metric) {
	now := time.Now()
	for _, host := range c.certs.hosts {
		if leaf := c.certs.source.leaf(host); leaf != nil {
			c.expiry.is(to, leaf.NotAfter.Sub(now).Seconds(), host)
			c.lifetime.is(to, leaf.NotAfter.Sub(leaf.NotBefore).Seconds(), host)
		}
	}
}

package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// certificateMetrics shows how long certificates are still good, asked when it is shown.
type certificateMetrics struct {
	certs    *certificates
	expiry   *prometheus.Desc
	lifetime *prometheus.Desc
}

// watchCertificates shows the certificate of each host.
func (m *metrics) watchCertificates(certs *certificates) {
	m.registry.MustRegister(certs.failures, &certificateMetrics{
		certs: certs,
		expiry: prometheus.NewDesc("dpopgate_certificate_expiry_seconds",
			"Time until the certificate of a host expires, negative once it has; no value while there is none.", []string{"host"}, nil),
		lifetime: prometheus.NewDesc("dpopgate_certificate_lifetime_seconds",
			"How long the certificate of a host is good in all. With a third of it left it should have been renewed.", []string{"host"}, nil),
	})
}

// newCertificateFailures counts for each host the certificates that were not to be had.
func newCertificateFailures(hosts []string) *prometheus.CounterVec {
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dpopgate_certificate_failures_total",
		Help: "Certificates that could not be ordered or renewed, by host. Each is tried again.",
	}, []string{"host"})
	for _, host := range hosts {
		failures.WithLabelValues(host)
	}
	return failures
}

// Describe implements prometheus.Collector.
func (c *certificateMetrics) Describe(to chan<- *prometheus.Desc) {
	to <- c.expiry
	to <- c.lifetime
}

// Collect implements prometheus.Collector.
func (c *certificateMetrics) Collect(to chan<- prometheus.Metric) {
	now := time.Now()
	for _, host := range c.certs.hosts {
		if leaf := c.certs.source.leaf(host); leaf != nil {
			to <- prometheus.MustNewConstMetric(c.expiry, prometheus.GaugeValue, leaf.NotAfter.Sub(now).Seconds(), host)
			to <- prometheus.MustNewConstMetric(c.lifetime, prometheus.GaugeValue, leaf.NotAfter.Sub(leaf.NotBefore).Seconds(), host)
		}
	}
}

package dpop_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/stretchr/testify/require"
)

// sample is a fresh proof of each algorithm worth measuring, and what it is checked against.
func sample(b testing.TB, alg dpop.Algorithm) (string, dpop.Request) {
	key, err := dpop.NewKey(alg)
	require.NoError(b, err)
	now := time.Now()
	r := dpop.Request{Method: "GET", Target: target(b, "https://api.example.test", "/v1/items"), Token: string("T1"), Nonce: dpop.NonceOff, Now: now}
	raw, err := key.Sign(dpop.Claims{Method: r.Method, URL: r.Target.String(), Token: r.Token, IssuedAt: now})
	require.NoError(b, err)
	return raw, r
}

func BenchmarkParse(b *testing.B) {
	raw, _ := sample(b, dpop.ES256)
	for name, v := range map[string]*dpop.Verifier{"new": verifier(), "remembered": remembering(b, raw)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Parse(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkCheck(b *testing.B) {
	raw, r := sample(b, dpop.ES256)
	v := verifier()
	p, err := v.Parse(raw)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Check(p, r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifySignature(b *testing.B) {
	for _, alg := range []dpop.Algorithm{dpop.ES256, dpop.Ed25519, dpop.PS256, dpop.ES384} {
		b.Run(string(alg), func(b *testing.B) {
			raw, _ := sample(b, alg)
			p, err := verifier().Parse(raw)
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				if err := p.VerifySignature(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Ceilings of allocations: they may be lowered, and are raised only with a reason in the commit.
func TestAllocationsStayBelowTheirCeilings(t *testing.T) {
	raw, r := sample(t, dpop.ES256)
	v := verifier()
	p, err := v.Parse(raw)
	require.NoError(t, err)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = v.Parse(raw) }), 18.0, "Parse")
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = v.Check(p, r) }), "Check")
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = p.ReplayKey() }), "ReplayKey")
	v = remembering(t, raw)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = v.Parse(raw) }), 2.0, "Parse of a header that is remembered: the proof, and the text of its claims")
}

// remembering is a verifier that knows the header of raw.
func remembering(t testing.TB, raw string) *dpop.Verifier {
	head, _, _ := strings.Cut(raw, ".")
	read, err := dpop.ReadHeader(head, all)
	require.NoError(t, err)
	v := verifier()
	v.Headers = &oneHeader{text: head, read: read}
	return v
}

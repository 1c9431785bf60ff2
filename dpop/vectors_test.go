package dpop_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// all is every algorithm there is.
var all = dpop.Algorithms{
	dpop.ES256, dpop.ES384, dpop.ES512, dpop.EdDSA, dpop.Ed25519,
	dpop.PS256, dpop.PS384, dpop.PS512, dpop.RS256, dpop.RS384, dpop.RS512,
}

// The vectors of the RFCs, and of public issues in which an implementation lost the leading zero of a coordinate.
//
// conformance: JKT-01, JKT-02, JWK-17
func TestThumbprintsOfPublishedKeys(t *testing.T) {
	for name, v := range map[string]struct{ jwk, want string }{
		"RFC 9449 §4.1": {
			`{"kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA","crv":"P-256"}`,
			"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
		},
		"RFC 7638 §3.1": {
			`{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`,
			"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
		},
		"RFC 8037 A.3": {
			`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
			"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
		},
		"x begins with a zero octet": {
			`{"kty":"EC","crv":"P-256","x":"ABb3EarQ0HLccFyFmT-SeL4NKg17Pe8sxCZeYElmDTo","y":"5kHQhze8V7fHtMmbO67KbCsNtTVhDOFZTM0YWtSeFE8"}`,
			"MEhdRysfC6YMBxMtlBzyLwTWHmLLusOkEh_ofH9GPjs",
		},
		"x begins with a zero octet again": {
			`{"kty":"EC","crv":"P-256","x":"APgYG5BNQBWVT-w7yW51bi9M5hVluuqPOGXXl5if_NM","y":"QmnCr5fkc5hvPAHJlus28hFl9fvENm3BAHbt7YcDakQ"}`,
			"blYhrm9qF1QjcvW-PCH4EI6gqOq6p1fcH8eCuxaT0WU",
		},
		"RFC 7520 §3.1": {
			`{"kty":"EC","crv":"P-521","x":"AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt","y":"AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1"}`,
			"dHri3SADZkrush5HU_50AoRhcKFryN-PI6jPBtPL55M",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := dpop.ReadThumbprint([]byte(v.jwk))
			require.NoError(t, err)
			assert.Equal(t, dpop.Thumbprint(v.want), got)
		})
	}
}

// The token and the proofs of RFC 9449 §7.1 and §5, at the time they were made.
const (
	rfcToken = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
	rfcProof = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
	asProof  = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)

func verifier() *dpop.Verifier {
	return &dpop.Verifier{Algorithms: all, MaxAge: time.Minute, MaxSkew: 10 * time.Second, MaxProofSize: 8 << 10}
}

func target(t testing.TB, origin, path string) dpop.Target {
	o, err := dpop.ParseOrigin(origin)
	require.NoError(t, err)
	return o.Target(path)
}

func TestTheProofOfTheRFCPasses(t *testing.T) {
	v := verifier()
	p, err := v.Parse(rfcProof)
	require.NoError(t, err)
	_, err = v.Check(p, dpop.Request{
		Method: "GET", Target: target(t, "https://resource.example.org", "/protectedresource"),
		Token: rfcToken, Nonce: dpop.NonceOff, Now: time.Unix(1562262618, 0),
	})
	require.NoError(t, err)
	require.NoError(t, p.VerifySignature())
	assert.NoError(t, dpop.CheckKey(p, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"))
	assert.Equal(t, "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo", p.ATH)
	assert.Equal(t, p.ATH, dpop.TokenHash(rfcToken))
}

func TestAProofForATokenEndpointFailsAtAResource(t *testing.T) {
	v := verifier()
	p, err := v.Parse(asProof)
	require.NoError(t, err)
	require.NoError(t, p.VerifySignature())
	_, err = v.Check(p, dpop.Request{
		Method: "POST", Target: target(t, "https://server.example.com", "/token"),
		Token: rfcToken, Nonce: dpop.NonceOff, Now: time.Unix(1562262616, 0),
	})
	require.Error(t, err)
	assert.Equal(t, dpop.ClaimMissing, dpop.AsError(err).Reason)
}

func TestEveryAlgorithmSignsAndVerifies(t *testing.T) {
	v := verifier()
	now := time.Now()
	for _, alg := range all {
		t.Run(string(alg), func(t *testing.T) {
			key, err := dpop.NewKey(alg)
			require.NoError(t, err)
			jwk, err := key.JWK()
			require.NoError(t, err)
			again, err := dpop.ReadKey(jwk)
			require.NoError(t, err)
			assert.Equal(t, key.Thumbprint(), again.Thumbprint())
			assert.Equal(t, alg, again.Algorithm())

			raw, err := again.Sign(dpop.Claims{Method: "GET", URL: "https://api.example.test/v1/items?x#y", Token: "T1"})
			require.NoError(t, err)
			p, err := v.Parse(raw)
			require.NoError(t, err)
			_, err = v.Check(p, dpop.Request{Method: "GET", Target: target(t, "https://api.example.test", "/v1/items"), Token: "T1", Nonce: dpop.NonceOff, Now: now})
			require.NoError(t, err)
			require.NoError(t, p.VerifySignature())
			assert.NoError(t, dpop.CheckKey(p, key.Thumbprint()))
		})
	}
}

func TestAKeyNeverPrints(t *testing.T) {
	key, err := dpop.NewKey(dpop.ES256)
	require.NoError(t, err)
	jwk, err := key.JWK()
	require.NoError(t, err)
	var members map[string]string
	require.NoError(t, json.Unmarshal(jwk, &members))
	for _, printed := range printings(key) {
		assert.NotContains(t, printed, members["d"])
	}
}

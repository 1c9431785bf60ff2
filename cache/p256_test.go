package cache_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"strconv"
	"testing"

	"filippo.io/nistec"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dpopgate/dpopgate/cache"
	"github.com/dpopgate/dpopgate/dpop"
)

var p256 = elliptic.P256().Params()

// signedBy is a proof whose header is the given one, signed by key.
func signedBy(t testing.TB, key *dpop.Key, header string) string {
	text := header + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"jti":"1","htm":"GET","htu":"https://api.example.test/","iat":1}`))
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, cache.PrivateKey(key), digest[:])
	require.NoError(t, err)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature(r, s))
}

// signature is r and s as JWS has them, modulo 2^256.
func signature(r, s *big.Int) []byte {
	b := make([]byte, 64)
	mask := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))
	new(big.Int).And(r, mask).FillBytes(b[:32])
	new(big.Int).And(s, mask).FillBytes(b[32:])
	return b
}

// standard is what crypto/ecdsa says.
func standard(key *ecdsa.PublicKey, digest *[32]byte, sig []byte) bool {
	return len(sig) == 64 && ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
}

func hexInt(t testing.TB, s string) *big.Int {
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return new(big.Int).SetBytes(b)
}

func digestOf(n *big.Int) (d [32]byte) {
	n.FillBytes(d[:])
	return d
}

func mod(n *big.Int) *big.Int { return n.Mod(n, p256.N) }

// point is k times the generator, as a key, and its x.
func point(t testing.TB, k *big.Int) (*ecdsa.PublicKey, *big.Int) {
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), k.FillBytes(make([]byte, 32)))
	require.NoError(t, err)
	b, err := private.PublicKey.Bytes()
	require.NoError(t, err)
	return &private.PublicKey, new(big.Int).SetBytes(b[1:33])
}

// The classes of Wycheproof's ecdsa_secp256r1_sha256_p1363 vectors, built here for keys and nonces of which each is an
// edge by itself: both must say what is expected.
func TestKeyTableKnowsTheEdges(t *testing.T) {
	n := p256.N
	one, two := big.NewInt(1), big.NewInt(2)
	minus := func(k *big.Int) *big.Int { return new(big.Int).Sub(n, k) }
	scalars := map[string]*big.Int{
		"1": one, "2": two, "3": big.NewInt(3), "n-1": minus(one), "n-2": minus(two), "(n+1)/2": new(big.Int).Rsh(new(big.Int).Add(n, one), 1),
		"2^43": new(big.Int).Lsh(one, 43), "2^86": new(big.Int).Lsh(one, 86), "2^215": new(big.Int).Lsh(one, 215), "2^255": new(big.Int).Lsh(one, 255),
		"2^43-1": new(big.Int).Sub(new(big.Int).Lsh(one, 43), one), "2^128": new(big.Int).Lsh(one, 128), "some": hexInt(t, "00c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f67"),
	}
	for dName, d := range scalars {
		key, _ := point(t, d)
		table := cache.NewKeyTable(key)
		check := func(name string, want bool, e, r, s *big.Int) {
			t.Helper()
			digest, sig := digestOf(e), signature(r, s)
			require.Equal(t, want, standard(key, &digest, sig), "crypto/ecdsa: key %s, %s", dName, name)
			require.Equal(t, want, table.Verify(digest, sig), "table: key %s, %s", dName, name)
		}
		for kName, k := range scalars {
			_, r := point(t, k)
			mod(r)
			inverse := new(big.Int).ModInverse(k, n)
			digests := map[string]*big.Int{
				"0": new(big.Int), "1": one, "n-1": minus(one), "n": n, "n+1": new(big.Int).Add(n, one), "2^256-1": new(big.Int).Sub(new(big.Int).Lsh(one, 256), one),
				"u1 G = u2 Q": mod(new(big.Int).Mul(r, d)), // the last addition is a doubling
				"infinity":    mod(new(big.Int).Neg(new(big.Int).Mul(r, d))),
				"u1 = 1":      new(big.Int), "u2 = 1": new(big.Int),
			}
			digests["u1 = 1"] = mod(new(big.Int).Mul(mod(new(big.Int).Mul(r, d)), new(big.Int).ModInverse(mod(new(big.Int).Sub(k, one)).Add(k, new(big.Int)), n)))
			digests["u2 = 1"] = mod(new(big.Int).Sub(new(big.Int).Mul(k, r), new(big.Int).Mul(r, d)))
			for eName, e := range digests {
				name := "nonce " + kName + ", digest " + eName
				s := mod(new(big.Int).Mul(inverse, new(big.Int).Add(e, new(big.Int).Mul(r, d))))
				if s.Sign() == 0 {
					check(name+", any s", false, e, r, two)
					continue
				}
				check(name, true, e, r, s)
				check(name+", s = n-s", true, e, r, minus(s))
				for what, broken := range map[string][2]*big.Int{
					"r = 0": {new(big.Int), s}, "s = 0": {r, new(big.Int)}, "r = n": {n, s}, "s = n": {r, n},
					"r = p": {p256.P, s}, "r = p-n": {new(big.Int).Sub(p256.P, n), s}, "r = p mod n, s = 1": {new(big.Int).Sub(p256.P, n), one},
					"r+1": {new(big.Int).Add(r, one), s}, "s+1": {r, new(big.Int).Add(s, one)}, "swapped": {s, r},
					"r = n-r": {minus(r), s}, "all ones": {new(big.Int).Sub(new(big.Int).Lsh(one, 256), one), new(big.Int).Sub(new(big.Int).Lsh(one, 256), one)},
					"both 0": {new(big.Int), new(big.Int)}, "r+n": {new(big.Int).Add(r, n), s},
				} {
					digest, sig := digestOf(e), signature(broken[0], broken[1])
					want := standard(key, &digest, sig)
					assert.Equal(t, want, table.Verify(digest, sig), "%s, %s", name, what)
				}
			}
		}
	}
}

// Of a point whose x is between the order and the field's prime, r is x minus the order: nobody finds a nonce of one, but
// a key can be made for a signature.
func TestKeyTableReducesX(t *testing.T) {
	n := p256.N
	x := new(big.Int).Set(n)
	var at *nistec.P256Point
	for at == nil {
		x.Add(x, big.NewInt(1))
		at, _ = nistec.NewP256Point().SetBytes(append([]byte{2}, x.FillBytes(make([]byte, 32))...))
	}
	r, s, e := new(big.Int).Sub(x, n), big.NewInt(4711), big.NewInt(815)
	mul := func(p *nistec.P256Point, k *big.Int) *nistec.P256Point {
		q, err := nistec.NewP256Point().ScalarMult(p, mod(k).FillBytes(make([]byte, 32)))
		require.NoError(t, err)
		return q
	}
	// Q = (sR - eG) / r
	q := mul(at, s)
	q.Add(q, mul(nistec.NewP256Point().SetGenerator(), new(big.Int).Neg(e)))
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), mul(q, new(big.Int).ModInverse(r, n)).Bytes())
	require.NoError(t, err)
	digest := digestOf(e)
	table := cache.NewKeyTable(key)
	for _, c := range []struct {
		r    *big.Int
		want bool
	}{{r, true}, {x, false}, {new(big.Int).Add(r, big.NewInt(1)), false}} {
		assert.Equal(t, c.want, standard(key, &digest, signature(c.r, s)))
		assert.Equal(t, c.want, table.Verify(digest, signature(c.r, s)))
	}
}

func TestKeyTableWantsTheLength(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	digest := [32]byte{1}
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	require.NoError(t, err)
	table, sig := cache.NewKeyTable(&key.PublicKey), signature(r, s)
	require.True(t, table.Verify(digest, sig))
	for _, other := range [][]byte{nil, sig[:63], sig[1:], append(sig, 0), append([]byte{0}, sig...), {}} {
		assert.False(t, table.Verify(digest, other))
	}
}

// damage is what is done to a good signature.
var damage = []func(random *mathrand.Rand, digest *[32]byte, sig []byte){
	func(*mathrand.Rand, *[32]byte, []byte) {},
	func(*mathrand.Rand, *[32]byte, []byte) {},
	func(_ *mathrand.Rand, _ *[32]byte, sig []byte) { // the twin
		s := new(big.Int).SetBytes(sig[32:])
		s.Sub(p256.N, s).FillBytes(sig[32:])
	},
	func(random *mathrand.Rand, _ *[32]byte, sig []byte) { sig[random.IntN(64)] ^= 1 << random.IntN(8) },
	func(random *mathrand.Rand, digest *[32]byte, _ []byte) {
		digest[random.IntN(32)] ^= 1 << random.IntN(8)
	},
	func(_ *mathrand.Rand, _ *[32]byte, sig []byte) { clear(sig[:32]) },
	func(_ *mathrand.Rand, _ *[32]byte, sig []byte) { clear(sig[32:]) },
	func(_ *mathrand.Rand, _ *[32]byte, sig []byte) { p256.N.FillBytes(sig[:32]) },
	func(_ *mathrand.Rand, _ *[32]byte, sig []byte) { p256.N.FillBytes(sig[32:]) },
	func(_ *mathrand.Rand, _ *[32]byte, sig []byte) { // r and s swapped
		var r [32]byte
		copy(r[:], sig)
		copy(sig, sig[32:])
		copy(sig[32:], r[:])
	},
	func(random *mathrand.Rand, _ *[32]byte, sig []byte) { // s of few bits
		clear(sig[32:])
		sig[63-random.IntN(32)] = byte(1 << random.IntN(8))
	},
	func(random *mathrand.Rand, _ *[32]byte, sig []byte) { // r or s past the order
		at := 32 * random.IntN(2)
		for i := range 6 {
			sig[at+i] = 0xff
		}
	},
}

// A table and crypto/ecdsa must never disagree. DPOPGATE_TEST_SIGNATURES sets the number of cases.
func TestKeyTableAgreesWithTheStandardLibrary(t *testing.T) {
	cases := 3_000
	if text := os.Getenv("DPOPGATE_TEST_SIGNATURES"); text != "" {
		var err error
		cases, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	seed := mathrand.Uint64()
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	var key *ecdsa.PrivateKey
	var table cache.KeyTable
	said := map[bool]int{}
	for n := range cases {
		var err error
		if n%200 == 0 {
			key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			require.NoError(t, err)
			table = cache.NewKeyTable(&key.PublicKey)
		}
		var digest [32]byte
		for i := range digest {
			digest[i] = byte(random.Uint32())
		}
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		require.NoError(t, err)
		sig := signature(r, s)
		damage[n%len(damage)](random, &digest, sig)
		want := standard(&key.PublicKey, &digest, sig)
		if said[want]++; table.Verify(digest, sig) != want {
			encoded, _ := key.PublicKey.Bytes()
			t.Fatalf("crypto/ecdsa says %v of key %x, digest %x, signature %x", want, encoded, digest, sig)
		}
		if n%1_000_000 == 999_999 {
			t.Logf("%d cases: %d good, %d bad", n+1, said[true], said[false])
		}
	}
	assert.Greater(t, said[true], cases/5)
	assert.Greater(t, said[false], cases/2)
}

// FuzzKeyTable states that a table and crypto/ecdsa say the same of anything.
func FuzzKeyTable(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(f, err)
	digest := sha256.Sum256([]byte("x"))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	require.NoError(f, err)
	f.Add([]byte("d"), digest[:], signature(r, s))
	f.Add([]byte{1}, []byte{}, signature(big.NewInt(1), big.NewInt(1)))
	f.Add([]byte{2}, p256.N.Bytes(), signature(p256.N, p256.N))
	f.Fuzz(func(t *testing.T, private, hash, sig []byte) {
		d := mod(new(big.Int).SetBytes(private))
		if d.Sign() == 0 {
			return
		}
		key, _ := point(t, d)
		table := cache.NewKeyTable(key)
		var digest [32]byte
		copy(digest[:], hash)
		require.Equal(t, standard(key, &digest, sig), table.Verify(digest, sig))
		if len(sig) != 64 { // what is left of the input is a nonce: a signature that is good
			k := mod(new(big.Int).SetBytes(sig))
			if k.Sign() == 0 {
				return
			}
			_, r := point(t, k)
			s := new(big.Int).Mul(mod(r), d)
			s = mod(s.Add(s, new(big.Int).SetBytes(digest[:])).Mul(s, new(big.Int).ModInverse(k, p256.N)))
			require.Equal(t, standard(key, &digest, signature(r, s)), table.Verify(digest, signature(r, s)))
		}
	})
}

package cache

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"math/big"
	"sync"

	"filippo.io/nistec"
)

// keyTable is made for one P-256 key, to multiply it by scalars with a sixth of the doublings that an unknown point
// takes (the comb method of Lim and Lee, CRYPTO '94). A scalar is cut into combTeeth rows of combSpace bits, written below
// each other; of each column the table has the sum of the multiples of the key that its bits stand for. It takes 6 KiB, and
// is built in about the time of one verification. It is immutable.
//
// Everything here is public, so nothing has to take constant time.
type keyTable [1 << combTeeth]nistec.P256Point

const (
	combTeeth = 6
	combSpace = (256 + combTeeth - 1) / combTeeth
)

var p256Order = elliptic.P256().Params().N

// newKeyTable returns nil for a key of another curve.
func newKeyTable(key *ecdsa.PublicKey) *keyTable {
	encoded, err := key.Bytes()
	if err != nil {
		return nil
	}
	row, err := nistec.NewP256Point().SetBytes(encoded)
	if err != nil {
		return nil
	}
	var t keyTable
	t[0].Set(nistec.NewP256Point())
	for tooth := range combTeeth {
		for i := range 1 << tooth {
			t[1<<tooth|i].Add(&t[i], row)
		}
		for range combSpace {
			row.Double(row)
		}
	}
	return &t
}

// multiply sets sum to scalar times the key.
func (t *keyTable) multiply(sum *nistec.P256Point, scalar *[32]byte) {
	sum.Set(nistec.NewP256Point())
	for column := combSpace - 1; column >= 0; column-- {
		sum.Double(sum)
		index := 0
		for tooth := range combTeeth {
			if bit := tooth*combSpace + column; bit < 256 {
				index |= int(scalar[31-bit/8]>>(bit%8)&1) << tooth
			}
		}
		if index != 0 {
			sum.Add(sum, &t[index])
		}
	}
}

// verify says whether signature is r and s of the table's key over digest (FIPS 186-5 §6.4.2).
func (t *keyTable) verify(digest [32]byte, signature []byte) bool {
	if len(signature) != 64 {
		return false
	}
	n := scratch.Get().(*numbers)
	defer scratch.Put(n)
	r, s := n.r.SetBytes(signature[:32]), n.s.SetBytes(signature[32:])
	if r.Sign() == 0 || s.Sign() == 0 || r.Cmp(p256Order) >= 0 || s.Cmp(p256Order) >= 0 {
		return false
	}
	n.w.ModInverse(s, p256Order)
	n.s.SetBytes(digest[:])
	u1, u2 := n.timesW(&n.s), n.timesW(r)
	var sum, q nistec.P256Point
	if _, err := sum.ScalarBaseMult(u1[:]); err != nil {
		return false
	}
	t.multiply(&q, &u2)
	x, err := sum.Add(&sum, &q).BytesX()
	if err != nil { // the point at infinity
		return false
	}
	v := n.s.SetBytes(x)
	if v.Cmp(p256Order) >= 0 {
		v.Sub(v, p256Order)
	}
	return v.Cmp(r) == 0
}

// numbers are what a verification calculates with, kept for the next one.
type numbers struct{ r, s, w, product, quotient, rest big.Int }

var scratch = sync.Pool{New: func() any { return new(numbers) }}

// timesW is a times w modulo the order, as a scalar.
func (n *numbers) timesW(a *big.Int) (scalar [32]byte) {
	n.product.Mul(a, &n.w)
	n.quotient.QuoRem(&n.product, p256Order, &n.rest)
	n.rest.FillBytes(scalar[:])
	return scalar
}

// verifyES256 is crypto/ecdsa's answer.
func verifyES256(key *ecdsa.PublicKey, digest [32]byte, signature []byte) bool {
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	return ecdsa.Verify(key, digest[:], r, s)
}

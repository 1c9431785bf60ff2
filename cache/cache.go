// Package cache is short memory in front of slow things, of two kinds. Tokens and Headers may forget: what they have lost is
// looked up or read again. Proofs may not: a used proof that it forgot would be let in again, so it refuses when it is full.
package cache

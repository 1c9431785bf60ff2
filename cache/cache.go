// Package cache is short memory in front of slow things, of two kinds. Tokens may forget: what it has lost is looked up
// again. Proofs may not: a used proof that it forgot would be let in again, so it refuses when it is full.
package cache

package main

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestGrowingMakesEachEntryOnce(t *testing.T) {
	var made atomic.Int64
	g := newGrowing(func(key int) *string {
		made.Add(1)
		s := strconv.Itoa(key)
		return &s
	})
	const keys, readers = 2000, 8
	var all sync.WaitGroup
	for range readers {
		all.Go(func() {
			for key := range keys {
				assert.Equal(t, strconv.Itoa(key), *g.of(key))
			}
		})
	}
	all.Go(func() {
		for len(g.entries()) < keys {
		}
	})
	all.Wait()
	assert.EqualValues(t, keys, made.Load())
	assert.Len(t, g.entries(), keys)
}

// Ten thousand routes must not cost ten thousand copies of ten thousand entries.
func TestGrowingCopiesSeldom(t *testing.T) {
	g := newGrowing(func(key int) int { return key })
	const keys = 1 << 14
	copies := 0
	before := g.read.Load()
	for key := range keys {
		g.of(key)
		if now := g.read.Load(); now != before {
			before = now
			copies++
		}
	}
	assert.Less(t, copies, 64)
	for range keys { // all are read without a lock in the end
		g.of(keys - 1)
	}
	assert.Len(t, *g.read.Load(), keys)
	assert.Zero(t, testing.AllocsPerRun(100, func() { g.of(keys / 2) }))
}

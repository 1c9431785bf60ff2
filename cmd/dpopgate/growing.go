package main

import (
	"maps"
	"sync"
	"sync/atomic"
)

// growing is a map whose entries are made when they are first asked for, and never taken out. It may be used concurrently.
// It is read without allocating, and without a lock but for entries that are new: those wait in a second map, which takes
// the place of the first once it has been needed as often as it has entries. So however many there are, adding one
// costs what it does in any map.
type growing[K comparable, V any] struct {
	create func(K) V
	read   atomic.Pointer[map[K]V] // is never changed

	mu     sync.Mutex
	grown  map[K]V // what read has and more; nil: nothing more. Guarded by mu, as is needed
	needed int     // how often grown was
}

func newGrowing[K comparable, V any](create func(K) V) *growing[K, V] {
	g := &growing[K, V]{create: create}
	g.read.Store(&map[K]V{})
	return g
}

// of is the entry of a key.
func (g *growing[K, V]) of(key K) V {
	if v, ok := (*g.read.Load())[key]; ok {
		return v
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.grown == nil {
		read := *g.read.Load()
		if v, ok := read[key]; ok {
			return v
		}
		g.grown = maps.Clone(read)
	}
	v, ok := g.grown[key]
	if !ok {
		v = g.create(key)
		g.grown[key] = v
	}
	if g.needed++; g.needed >= len(g.grown) {
		g.settle()
	}
	return v
}

// settle has everything read without a lock. The caller holds mu.
func (g *growing[K, V]) settle() {
	if g.grown != nil {
		all := g.grown
		g.read.Store(&all)
	}
	g.grown, g.needed = nil, 0
}

// entries are those that there are now. They must not be changed.
func (g *growing[K, V]) entries() map[K]V {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settle()
	return *g.read.Load()
}

package main

import (
	"maps"
	"sync"
	"sync/atomic"
)

// growing is a map whose entries are made when they are first asked for, and never taken out. It is read without a lock
// and without allocating, and may be used concurrently. Its keys must be few: each new one copies the map.
type growing[K comparable, V any] struct {
	create func(K) V
	mu     sync.Mutex // of who adds an entry
	all    atomic.Pointer[map[K]V]
}

func newGrowing[K comparable, V any](create func(K) V) *growing[K, V] {
	g := &growing[K, V]{create: create}
	g.all.Store(&map[K]V{})
	return g
}

// of is the entry of a key.
func (g *growing[K, V]) of(key K) V {
	if v, ok := (*g.all.Load())[key]; ok {
		return v
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	before := *g.all.Load()
	if v, ok := before[key]; ok {
		return v
	}
	after := maps.Clone(before)
	after[key] = g.create(key)
	g.all.Store(&after)
	return after[key]
}

// entries are those that there are now. They must not be changed.
func (g *growing[K, V]) entries() map[K]V { return *g.all.Load() }

package cache

import (
	"context"
	"fmt"
	"hash/maphash"
	"math"
	"math/bits"
	"sync"
	"time"
	"unsafe"

	"github.com/dpopgate/dpopgate/dpop"
)

const (
	slotSize  = int64(unsafe.Sizeof(slot{}))
	minSlots  = 64
	maxShards = 256
	// shardSize is how many bytes make another shard worth it: fewer, larger ones fill more evenly.
	shardSize = 256 << 10
)

// Proofs is a dpop.Replay in the memory of one process. It is exact: no proof is forgotten while it can be accepted, and
// where there is no room left for another, Claim returns dpop.ErrReplayFull.
//
// A proof takes 20 bytes in open addressing tables, which begin two thirds full and grow when four fifths are: 25 to 30
// bytes an entry, and what the allocator rounds up; to 40 while they are emptied. The garbage collector does not look into
// them. They grow, shrink and are tidied one shard at a time, so nobody waits for more than one small table.
//
// Of a key 128 bits are kept. Two proofs that share them, not to be expected before 2⁶⁴ proofs, are taken for one, and the
// second is refused.
type Proofs struct {
	now    func() time.Time
	seed   maphash.Seed // secret, so that nobody can choose proofs that crowd one shard or one slot
	shards []shard      // a power of two
}

// NewProofs is an empty Proofs whose tables take up to maxBytes, and for moments one shard's more while that grows. There
// is always room for a few dozen proofs. now is the clock; nil is time.Now.
func NewProofs(maxBytes int64, now func() time.Time) *Proofs {
	if now == nil {
		now = time.Now
	}
	count := 1
	for count < maxShards && int64(count)*2*shardSize <= maxBytes {
		count *= 2
	}
	p := &Proofs{now: now, seed: maphash.MakeSeed(), shards: make([]shard, count)}
	for i := range p.shards {
		s := &p.shards[i]
		s.seed = p.seed
		s.max = int(max(minSlots, maxBytes/int64(count)/slotSize))
		s.resize(minSlots)
	}
	return p
}

// Claim implements dpop.Replay. It neither blocks nor looks at ctx. Times are kept in whole seconds, rounded up: k may be
// remembered for a second longer than until.
//
// A clock that steps back must not make proofs fresh that were forgotten while it was ahead. So Claim also refuses, as
// used, all that could be among those: any k whose until is not past that of everything forgotten so far. A clock that runs
// evenly is never refused anything by this, as that is past for it.
func (p *Proofs) Claim(_ context.Context, k dpop.ReplayKey, until time.Time) (fresh bool, err error) {
	now := p.now()
	if !now.Before(until) {
		return false, nil
	}
	from, to := now.Unix(), until.Unix()
	if until.Nanosecond() > 0 {
		to++
	}
	if from < 0 || to > math.MaxUint32 {
		return false, fmt.Errorf("claiming a proof: until %v is beyond what can be remembered", until)
	}
	c := slot{proof: [16]byte(k[:16]), until: uint32(to)}
	return p.shardOf(&c).claim(c, uint32(from))
}

// ProofsStats is how much a Proofs holds.
type ProofsStats struct {
	Entries  int   // proofs remembered; those whose time is over count for a while yet
	Capacity int   // what Entries can rise to
	Bytes    int64 // of the tables
}

// Stats looks at one shard after the other.
func (p *Proofs) Stats() ProofsStats {
	var total ProofsStats
	for i := range p.shards {
		s := &p.shards[i]
		s.mu.Lock()
		total.Entries += s.used
		total.Capacity += limit(s.max)
		total.Bytes += int64(len(s.slots)) * slotSize
		s.mu.Unlock()
	}
	return total
}

// slot is one remembered proof. Its time is over at the second until; an empty slot has 0.
type slot struct {
	proof [16]byte
	until uint32
}

func (c *slot) hash(seed maphash.Seed) uint64 { return maphash.Bytes(seed, c.proof[:]) }

// shard is an open addressing table with linear probing.
type shard struct {
	seed maphash.Seed
	max  int // slots that it may have

	mu       sync.Mutex
	slots    []slot
	used     int    // slots that are not empty
	earliest uint32 // the time of no slot is over before
	due      uint32 // when to tidy up even with room left: then everything that the last time left is over
	horizon  uint32 // the latest until of all that was forgotten
}

// limit is how many of n slots may be used: with more, searches become long.
func limit(n int) int { return n - n/5 }

// roomy is how many slots a table of that many proofs begins with: enough to add a fifth before it is full again.
func roomy(used int) int { return max(minSlots, used+used/2) }

func (s *shard) claim(c slot, now uint32) (fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.until <= s.horizon {
		return false, nil
	}
	if s.due <= now {
		s.tidy(now)
	}
	over := -1 // the first slot on the way whose time is over
	i := s.home(&c)
	for ; s.slots[i].until != 0; i = s.next(i) {
		switch t := &s.slots[i]; {
		case t.until <= now:
			if over < 0 {
				over = i
			}
		case t.proof == c.proof:
			return false, nil
		}
	}
	if over >= 0 {
		s.horizon = max(s.horizon, s.slots[over].until)
		s.slots[over] = c
		return true, nil
	}
	if s.used >= limit(len(s.slots)) && !s.makeRoom(now) {
		return false, dpop.ErrReplayFull
	}
	s.place(c)
	return true, nil
}

// home is where the search for c begins.
func (s *shard) home(c *slot) int {
	// The low bits of the hash have chosen the shard; this takes the high ones.
	i, _ := bits.Mul64(c.hash(s.seed), uint64(len(s.slots)))
	return int(i)
}

func (s *shard) next(i int) int {
	if i++; i < len(s.slots) {
		return i
	}
	return 0
}

// place puts c, which is in no slot, into the first empty one on its way.
func (s *shard) place(c slot) {
	i := s.home(&c)
	for s.slots[i].until != 0 {
		i = s.next(i)
	}
	s.slots[i] = c
	s.used++
	s.earliest = min(s.earliest, c.until)
}

// makeRoom says whether there is an empty slot to use, after doing what can be done for one. While the shard is as large
// as may be and full, that is at most one tidying a second.
func (s *shard) makeRoom(now uint32) bool {
	if s.earliest <= now {
		s.tidy(now)
	}
	if n := min(roomy(s.used), s.max); n > len(s.slots) {
		s.resize(n)
	}
	return s.used < limit(len(s.slots))
}

// tidy forgets what is over, and gives memory back if little is left.
func (s *shard) tidy(now uint32) {
	latest := now + 1
	s.used, s.earliest = 0, math.MaxUint32
	// No search crosses an empty slot. So beginning after one, each slot can be taken out and placed again among those
	// before it, which are in order already.
	i := 0
	for s.slots[i].until != 0 {
		i++
	}
	for range s.slots {
		i = s.next(i)
		t := s.slots[i]
		s.slots[i] = slot{}
		if t.until > now {
			s.place(t)
			latest = max(latest, t.until)
		} else {
			s.horizon = max(s.horizon, t.until)
		}
	}
	s.due = latest
	if n := roomy(s.used); 2*s.used < len(s.slots) && n < len(s.slots) {
		s.resize(n)
	}
}

// resize moves everything to a table of n slots.
func (s *shard) resize(n int) {
	old := s.slots
	s.slots, s.used, s.earliest = make([]slot, n), 0, math.MaxUint32
	for _, t := range old {
		if t.until != 0 {
			s.place(t)
		}
	}
}

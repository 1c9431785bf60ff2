package cache

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// toldSize is a slot as a Memory has it.
const toldSize = 16 + 4

// Memory is a part of what a Proofs remembers, for another one to Learn.
type Memory struct {
	Horizon uint32 // Unix seconds: what was good until then, and not longer, may have been forgotten
	Proofs  []byte // for each proof the 128 bits that are kept of its key and, in 4 bytes, the second that it is over
}

// Parts is all that p remembers, at most a shard at a time. What was claimed before the loop begins is in it; what is
// claimed during it may be.
func (p *Proofs) Parts() iter.Seq[Memory] {
	return func(yield func(Memory) bool) {
		for i := range p.shards {
			if !yield(p.shards[i].tell()) {
				return
			}
		}
	}
}

func (s *shard) tell() Memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := Memory{Horizon: s.horizon, Proofs: make([]byte, 0, s.used*toldSize)}
	for i := range s.slots {
		if t := &s.slots[i]; t.until != 0 {
			m.Proofs = append(m.Proofs, t.proof[:]...)
			m.Proofs = binary.BigEndian.AppendUint32(m.Proofs, t.until)
		}
	}
	return m
}

// Learn has p remember what another Proofs did. The error is dpop.ErrReplayFull where there is no room for all of it;
// some of it is then remembered. It may be called concurrently with everything else.
func (p *Proofs) Learn(m Memory) error {
	if len(m.Proofs)%toldSize != 0 {
		return fmt.Errorf("remembering used proofs: %d bytes are no whole number of them", len(m.Proofs))
	}
	now := uint32(p.now().Unix())
	horizon := m.Horizon
	for b := m.Proofs; len(b) > 0; b = b[toldSize:] {
		c := slot{proof: [16]byte(b), until: binary.BigEndian.Uint32(b[16:])}
		if c.until <= now {
			horizon = max(horizon, c.until)
			continue
		}
		if _, err := p.shardOf(&c).claim(c, now); err != nil {
			return err
		}
	}
	for i := range p.shards {
		s := &p.shards[i]
		s.mu.Lock()
		s.horizon = max(s.horizon, horizon)
		s.mu.Unlock()
	}
	return nil
}

func (p *Proofs) shardOf(c *slot) *shard { return &p.shards[c.hash(p.seed)%uint64(len(p.shards))] }

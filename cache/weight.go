package cache

import (
	"unsafe"

	"github.com/dpopgate/dpopgate/tokenstore"
)

const (
	entrySize = int64(unsafe.Sizeof(entry{}))
	// bookkeeping is what ristretto spends on a record: its item, and a place in its maps of items, weights and
	// deadlines, which are between half and fully loaded.
	bookkeeping = 240
)

// weight is the memory that e takes, in bytes, ristretto's share included.
func (e *entry) weight() int64 {
	r := e.record
	n := entrySize + bookkeeping + allocated(int(unsafe.Sizeof(tokenstore.Record{})))
	n += allocated(len(r.TokenType)) + allocated(len(r.DPoPJKT)) + allocated(cap(r.Metadata))
	return n + stringsWeight(r.Scopes) + stringsWeight(r.Audience)
}

func stringsWeight(list []string) int64 {
	n := allocated(cap(list) * int(unsafe.Sizeof("")))
	for _, s := range list {
		n += allocated(len(s))
	}
	return n
}

// allocated rounds up to what the allocator hands out for small sizes.
func allocated(n int) int64 { return int64(n+15) &^ 15 }

package tokenstore

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
)

// ErrNoNotices says that a store cannot be watched as it is set up. It is wrapped together with the reason, and what
// would be right.
var ErrNoNotices = errors.New("revocations are not announced")

// Watcher is a Store that can tell when records change, whoever changes them.
type Watcher interface {
	// Watch calls report for changes of records, one call after the other. The first is All, as soon as nothing can be
	// missed any more: what was looked up before it may be out of date. A new record is not a change.
	//
	// Watch returns when it can no longer be sure to hear of every change: at the end of ctx with an error that wraps
	// the context's, and else with what is wrong, such as ErrNoNotices. It may be called again at once, and is then
	// careful by itself not to dial a server too often. report must not block.
	Watch(ctx context.Context, report func(Change)) error
}

// Change says which records are no longer as they were: changed, or gone.
type Change struct {
	All     bool     // any record may be another
	Digests []Digest // of those that are, unless All
	Deleted bool     // all of these are gone, and not merely changed
}

// parseNotice reads the payload of a notice: a word, and after a space digests in hexadecimal, one after the other.
// "all", and what is not one of ours, is All.
func parseNotice(payload string) Change {
	word, digits, _ := strings.Cut(payload, " ")
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) == 0 || len(b)%len(Digest{}) != 0 || word != "changed" && word != "deleted" {
		return Change{All: true}
	}
	c := Change{Deleted: word == "deleted"}
	for ; len(b) > 0; b = b[len(Digest{}):] {
		c.Digests = append(c.Digests, Digest(b[:len(Digest{})]))
	}
	return c
}

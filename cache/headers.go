package cache

import (
	"crypto/ecdsa"
	"crypto/fips140"
	"crypto/sha256"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dpopgate/dpopgate/dpop"
)

const (
	headerSets = 2048
	headerWays = 8 // places where a header may be
	// maxHeaders is how many headers are remembered at most.
	maxHeaders = headerSets * headerWays
	// maxHeaderText is the longest that is remembered, in base64url: an RSA key of 4096 bits has about 1,100.
	maxHeaderText = 1536
	// headerIdle is after how many seconds without use a header makes room for another one.
	headerIdle = 30
	// tableAfter is how many signatures by one key are verified by crypto/ecdsa before a table is built for it: building
	// takes about as long as one.
	tableAfter = 3
	// sampleOne of so many signatures that a table accepts is verified by crypto/ecdsa, too.
	sampleOne = 1000
)

// Headers is a dpop.Headers: the headers of up to 16,384 clients, less than 2 KiB each, and for those with P-256 keys that
// come more than twice a table of 6 KiB that halves the work of checking a signature. It may be used concurrently, and
// nobody waits for anybody.
//
// Who is in stays while in use: only a header that nobody has used for half a minute makes room for another one. So a
// flood of keys, each with a token bound to it, cannot push out those who are there; it pays what it would without this.
//
// What a table refuses is verified by crypto/ecdsa, and so is one in a thousand of what it accepts. If the two should ever
// disagree, an error is logged and no table is used again. In FIPS 140-3 mode there are none.
type Headers struct {
	now  func() time.Time
	log  *slog.Logger
	seed maphash.Seed // secret, so that nobody can choose headers that crowd one set
	sets [headerSets][headerWays]atomic.Pointer[header]

	tables atomic.Bool // may be used
}

// HeadersOptions say what a Headers may do.
type HeadersOptions struct {
	Tables bool             // build tables of keys
	Log    *slog.Logger     // for the error that tables are wrong; nil: discarded
	Now    func() time.Time // nil: time.Now
}

// NewHeaders is an empty Headers.
func NewHeaders(o HeadersOptions) *Headers {
	m := &Headers{now: o.Now, log: o.Log, seed: maphash.MakeSeed()}
	if m.now == nil {
		m.now = time.Now
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.tables.Store(o.Tables && !fips140.Enabled())
	return m
}

// header is one header that is remembered. It is a dpop.Remembered.
type header struct {
	memory *Headers
	text   string
	read   *dpop.Header

	used     atomic.Int64 // Unix second
	verified atomic.Int32 // signatures verified by crypto/ecdsa
	table    atomic.Pointer[keyTable]
}

// Header implements dpop.Remembered.
func (e *header) Header() *dpop.Header { return e.read }

// Recall implements dpop.Headers. It neither blocks nor allocates.
func (m *Headers) Recall(text string) dpop.Remembered {
	if e := m.find(text); e != nil {
		if now := m.now().Unix(); e.used.Load() != now {
			e.used.Store(now)
		}
		return e
	}
	return nil
}

func (m *Headers) set(text string) *[headerWays]atomic.Pointer[header] {
	return &m.sets[maphash.String(m.seed, text)%headerSets]
}

func (m *Headers) find(text string) *header {
	set := m.set(text)
	for i := range set {
		if e := set[i].Load(); e != nil && e.text == text {
			return e
		}
	}
	return nil
}

// Keep implements dpop.Headers.
func (m *Headers) Keep(text string, h *dpop.Header, signed string, signature []byte) {
	if e := m.find(text); e != nil {
		e.learn(signed, signature)
		return
	}
	if len(text) > maxHeaderText {
		return
	}
	now := m.now().Unix()
	e := &header{memory: m, text: strings.Clone(text), read: h}
	e.used.Store(now)
	e.verified.Store(1)
	set := m.set(text)
	for i := range set {
		if old := set[i].Load(); (old == nil || now-old.used.Load() > headerIdle) && set[i].CompareAndSwap(old, e) {
			return
		}
	}
}

// learn is told that a signature was verified without a table, and is good.
func (e *header) learn(signed string, signature []byte) {
	key, ok := e.read.PublicKey().(*ecdsa.PublicKey)
	if !ok || e.read.Algorithm != dpop.ES256 || !e.memory.tables.Load() {
		return
	}
	switch t := e.table.Load(); {
	case t == nil && e.verified.Add(1) == tableAfter:
		e.table.Store(newKeyTable(key))
	case t != nil && !t.verify(digestOf(signed), signature): // else it was built in the meantime
		e.memory.distrust("a table refused what crypto/ecdsa accepts")
	}
}

// Signed implements dpop.Remembered.
func (e *header) Signed(signed string, signature []byte) bool {
	t := e.table.Load()
	if t == nil || !e.memory.tables.Load() {
		return false
	}
	digest := digestOf(signed)
	if !t.verify(digest, signature) {
		return false
	}
	if rand.N(sampleOne) == 0 && !verifyES256(e.read.PublicKey().(*ecdsa.PublicKey), digest, signature) {
		e.memory.distrust("a table accepted what crypto/ecdsa refuses")
		return false
	}
	return true
}

// digestOf is the SHA-256 of what nearly always fits on the stack.
func digestOf(signed string) [32]byte {
	var room [1 << 10]byte
	return sha256.Sum256(append(room[:0], signed...))
}

// distrust ends the use of tables for good.
func (m *Headers) distrust(what string) {
	if m.tables.CompareAndSwap(true, false) {
		m.log.Error("tables of keys are wrong and not used any more, please report this", "what", what)
	}
}

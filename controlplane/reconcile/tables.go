package reconcile

import (
	"crypto/sha256"
	"strconv"
	"sync"
	"sync/atomic"

	"weir/dataplane/maglev"
)

// table is a Maglev table and what part of it each backend has, 0 to 1. It is
// never changed once built.
type table struct {
	entries []uint16
	shares  []float64
	err     error // why it could not be built

	key      tableKey
	size     int
	backends []maglev.Backend // until it is built
}

// tableKey is the SHA-256 of what a table is built from.
type tableKey [sha256.Size]byte

// tables remembers the Maglev tables in use by what they were built from, so
// that a change that leaves a service's backends and weights alone (a new MAC,
// say) builds nothing, and services with the same backends share one.
type tables struct {
	current map[tableKey]*table // never written once it is here
	next    map[tableKey]*table // those asked for since begin
	missing []*table            // of next: those to be built
	text    []byte              // scratch
}

func newTables() *tables { return &tables{} }

// begin starts a compilation. keep, if that succeeded, drops the tables it did
// not ask for.
func (t *tables) begin() {
	t.next, t.missing = make(map[tableKey]*table, len(t.current)), nil
}

func (t *tables) keep() { t.current, t.next = t.next, nil }

// stay asks for a table that there is.
func (t *tables) stay(old *table) { t.next[old.key] = old }

// want asks for a table. It may have no entries before build.
func (t *tables) want(size int, backends []maglev.Backend) *table {
	text := strconv.AppendInt(t.text[:0], int64(size), 10)
	for i := range backends {
		text = append(append(text, ' '), backends[i].Name...)
		text = strconv.AppendUint(append(text, '/'), uint64(backends[i].Weight), 10)
	}
	t.text = text
	key := tableKey(sha256.Sum256(text))
	found := t.next[key]
	if found == nil {
		if found = t.current[key]; found == nil {
			found = &table{key: key, size: size, backends: backends}
			t.missing = append(t.missing, found)
		}
		t.next[key] = found
	}
	return found
}

// build builds the tables that are missing, several at a time.
func (t *tables) build(cores int) {
	var wait sync.WaitGroup
	var next atomic.Int64
	work := func() {
		for n := next.Add(1) - 1; n < int64(len(t.missing)); n = next.Add(1) - 1 {
			t.missing[n].build()
		}
	}
	for range min(cores, len(t.missing)) - 1 {
		wait.Go(work)
	}
	work()
	wait.Wait()
	t.missing = nil
}

func (t *table) build() {
	t.entries, t.err = maglev.Build(t.size, t.backends)
	slots := make([]int, len(t.backends))
	for _, i := range t.entries {
		slots[i]++
	}
	t.shares = make([]float64, len(t.backends))
	for i, n := range slots {
		t.shares[i] = float64(n) / float64(max(len(t.entries), 1))
	}
	t.backends = nil
}

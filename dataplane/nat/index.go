package nat

import (
	"math/bits"

	"weir/dataplane/prefetch"
)

const (
	ways          = 8 // words in a set: a cache line
	maxIndexWords = 1 << 31
)

// Index finds the number of a flow's entry by the hash of its answer tuple.
//
// It stores no tuple. A word has 31 bits of the hash and the number; the caller
// compares what the entry says with the answer it has, which is another flow's
// in 1 of 2^28 look-ups at most. When a set is full, nothing has to go: another
// port makes another hash, and with it another set.
//
// Hashes are the caller's, keyed with a secret, so that nobody outside can aim
// at one set: flow.Table.Hash of the answer tuple.
type Index struct {
	sets [][ways]uint64 // 0 is a free word
	mask uint64         // number of sets - 1
	len  int
}

// NewIndex returns an empty Index that is at most half full with entries
// entries, 1 to 2^30. It takes 16 to 32 bytes for each, all of it at once. The
// sets are aligned to cache lines.
//
// In an Index that is half full 1 set in 20 is full, and Insert fails there; in
// one that is a quarter full it is 1 in 900.
func NewIndex(entries int) *Index {
	words := min(max(2*entries, ways), maxIndexWords)
	sets := 1 << bits.Len(uint(words-1)) / ways
	// Go aligns what it allocates to the largest power of two that divides its
	// size, up to a page: for sets, a power of two of 64 bytes each.
	x := &Index{sets: make([][ways]uint64, sets), mask: uint64(sets - 1)}
	clear(x.sets) // touches every page, so that no packet waits for one
	inHugePages(x.sets)
	return x
}

// tagOf returns the upper half of a word: the upper half of the hash, and a bit
// that makes it not zero.
func tagOf(hash uint64) uint64 { return hash>>32 | 1 }

// Len returns how many entries there are.
func (x *Index) Len() int { return x.len }

// Ahead asks for what Lookup will read for these hashes, and does not wait for it.
func (x *Index) Ahead(hashes []uint64) { prefetch.Hashed(x.sets, hashes) }

// Lookup returns a number that was inserted with this hash, or seldom with
// another one that looks the same. from is 0 at first and then the next of the
// call before; next is negative if there was no (further) one:
//
//	for n, at := x.Lookup(hash, 0); at >= 0; n, at = x.Lookup(hash, at) {
func (x *Index) Lookup(hash uint64, from int) (number uint32, next int) {
	set, tag := &x.sets[hash&x.mask], tagOf(hash)
	for i := uint(from); i < ways; i++ {
		if set[i]>>32 == tag {
			return uint32(set[i]), int(i) + 1
		}
	}
	return 0, -1
}

// Insert adds a number under a hash. It does not look whether it is there
// already. It reports false if the set is full: the flow needs another port.
func (x *Index) Insert(hash uint64, number uint32) bool {
	set := &x.sets[hash&x.mask]
	for i := range set {
		if set[i] == 0 {
			set[i] = tagOf(hash)<<32 | uint64(number)
			x.len++
			return true
		}
	}
	return false
}

// Remove takes a number away that was inserted with this hash, and reports
// whether it was there.
func (x *Index) Remove(hash uint64, number uint32) bool {
	set, word := &x.sets[hash&x.mask], tagOf(hash)<<32|uint64(number)
	for i := range set {
		if set[i] == word {
			set[i] = 0
			x.len--
			return true
		}
	}
	return false
}

package flow

import "math/bits"

// tagOf returns the tag of a hash: its upper 15 bits, and one that is always
// set, as a free place has the tag 0. The lower bits choose the set.
func tagOf(hash uint64) uint64 { return hash>>48 | 1<<15 }

// set is eight places for flows: their header and their entries.
type set struct {
	header  header
	entries [ways]Entry
}

// header is all that the places of a set need for everything but a hit. Place
// i has tag i&3 of tags[i>>2], counted from the lowest bits on.
type header struct {
	tags   [2]uint64
	status [ways]uint8 // see state.go; 0 if the place is free
	_      [8]byte
	seen   [ways]Tick
}

// Of 16 bits each in a word of four tags: the lowest, and the highest.
const (
	lowBits  = 0x0001_0001_0001_0001
	highBits = lowBits << 15
)

// matches is a set of places, the next of which is at hand without a loop.
type matches uint64

// match returns the places whose tag is that of hash, and seldom one behind them
// whose tag is not: subtracting the lowest bit of each tag of four borrows beyond
// a tag only if it is zero (Warren, Hacker's Delight, 2nd edition, section 6-1).
func (h *header) match(hash uint64) matches {
	tags := tagOf(hash) * lowBits
	a, b := h.tags[0]^tags, h.tags[1]^tags
	a, b = (a-lowBits)&^a&highBits, (b-lowBits)&^b&highBits
	return matches(a>>15 | b>>14)
}

// vacancy returns a free place, or if there is none the one that was seen longest
// ago.
func (h *header) vacancy() matches {
	a, b := (h.tags[0]-lowBits)&^h.tags[0]&highBits, (h.tags[1]-lowBits)&^h.tags[1]&highBits
	if m := a>>15 | b>>14; m != 0 {
		return matches(m)
	}
	// The number of the place rides along, so that there is nothing to guess for the
	// processor: it would wait for this line before it asks for the next.
	oldest := ^uint64(0)
	for i, seen := range h.seen {
		since := uint32(seen-h.seen[0]) + 1<<31
		oldest = min(oldest, uint64(since)<<3|uint64(i))
	}
	return 1 << (oldest&3<<4 | oldest>>2&1)
}

// first returns the first place; there has to be one.
func (m matches) first() int {
	at := bits.TrailingZeros64(uint64(m))
	return at>>4&3 | at&1<<2
}

// next returns the places but the first.
func (m matches) next() matches { return m & (m - 1) }

// put gives place i to a flow.
func (h *header) put(i int, hash uint64, status uint8, now Tick) {
	shift := uint(i) & 3 * 16
	word := &h.tags[i>>2&1]
	*word = *word&^(0xffff<<shift) | tagOf(hash)<<shift
	h.status[i&(ways-1)] = status
	h.seen[i&(ways-1)] = now
}

// free makes place i free.
func (h *header) free(i int) {
	h.tags[i>>2&1] &^= 0xffff << (uint(i) & 3 * 16)
	h.status[i&(ways-1)] = 0
}

// idle returns in ticks how long ago place i was seen; negative if the clock
// went back.
func (h *header) idle(i int, now Tick) int32 { return int32(now - h.seen[i]) }

// state returns the State of place i.
func (h *header) state(i int) State { return State(h.status[i] & stateMask) }

package maglev

import (
	"math"
	"math/bits"
)

// walk is one backend's way through the table: its permutation of the slots,
// (offset + j*skip) mod size, and how often it is its turn.
type walk struct {
	next    uint32    // slot it looks at next; the offset at first
	skips   [5]uint32 // how far it is from there to the slots after it, mod size; skips[1], the skip, is 1 to size-1: prime size makes the walk reach every slot
	weight  uint64
	credit  uint64 // share of a turn saved up, in units of weight
	backend uint16 // what it writes into the slots it takes
}

func (w *walk) setSkip(skip, size uint32) {
	for i := 1; i < len(w.skips); i++ {
		w.skips[i] = step(w.skips[i-1], skip, size)
	}
}

// populate fills every slot of table. In each round a walk earns its weight;
// once it has saved up the heaviest weight it takes the next slot on its way
// that is still free. With equal weights that is the paper's algorithm:
// everyone takes one slot per round.
//
// To find one, a walk looks at size/left slots if left are free, so more than half
// of all looks are for the last few slots. These are found the other way round: by
// how far each of them is ahead on the walk.
func populate(table []uint16, walks []walk) {
	var price uint64 // of a slot
	for i := range walks {
		price = max(price, walks[i].weight)
	}
	// From here on, going through those that are free is faster.
	few := int(math.Sqrt(2 * float64(len(table))))
	// One bit per slot, so that looking for a free one stays in the nearest
	// cache: 8 KiB at the default size, where the table itself has 128.
	taken := make([]uint64, (len(table)+63)/64)
	first := fill(table, taken, walks, price, len(table)-few)
	finish(table, taken, walks, price, first)
}

// fill has walks take so many slots, and returns whose turn it is then. A walk looks
// at several slots at a time: where the first free one is cannot be predicted, but
// that it is among them can.
func fill(table []uint16, taken []uint64, walks []walk, price uint64, slots int) (first int) {
	size := uint32(len(table))
	for {
		for i := range walks {
			if slots == 0 {
				return i
			}
			w := &walks[i]
			w.credit += w.weight
			if w.credit < price {
				continue
			}
			w.credit -= price
			at := w.next
			for {
				b, c, d := step(at, w.skips[1], size), step(at, w.skips[2], size), step(at, w.skips[3], size)
				full := taken[at/64]>>(at%64)&1 | taken[b/64]>>(b%64)&1<<1 |
					taken[c/64]>>(c%64)&1<<2 | taken[d/64]>>(d%64)&1<<3
				if full != 15 {
					at = step(at, w.skips[bits.TrailingZeros64(^full)], size)
					break
				}
				at = step(at, w.skips[4], size)
			}
			taken[at/64] |= 1 << (at % 64)
			table[at] = w.backend
			w.next = step(at, w.skips[1], size)
			slots--
		}
	}
}

// finish has walks take the slots that are left, beginning with the walk whose turn
// it is.
func finish(table []uint16, taken []uint64, walks []walk, price uint64, first int) {
	size := uint32(len(table))
	var free []uint32 // in no order
	for at := range size {
		if taken[at/64]>>(at%64)&1 == 0 {
			free = append(free, at)
		}
	}
	inverses := make([]inverse, len(walks))
	for i := range walks {
		inverses[i] = inverseOf(walks[i].skips[1], size)
	}
	for ; ; first = 0 {
		for i := first; i < len(walks); i++ {
			w := &walks[i]
			w.credit += w.weight
			if w.credit < price {
				continue
			}
			w.credit -= price
			nearest, fewest := 0, size
			for n, at := range free {
				if steps := inverses[i].times(at+size-w.next, size); steps < fewest {
					nearest, fewest = n, steps
				}
			}
			at := free[nearest]
			end := len(free) - 1
			free[nearest], free = free[end], free[:end]
			table[at] = w.backend
			w.next = step(at, w.skips[1], size)
			if end == 0 {
				return
			}
		}
	}
}

// inverse turns a distance of slots into how many steps of a skip that is.
type inverse struct {
	of    uint32 // times the skip it is 1 mod size
	ratio uint32 // of to size, times 2^32
}

// inverseOf works out the inverse of a skip by Euclid's algorithm.
func inverseOf(skip, size uint32) inverse {
	r0, r1 := int64(size), int64(skip)
	x0, x1 := int64(0), int64(1)
	for r1 != 0 {
		q := r0 / r1
		r0, r1 = r1, r0-q*r1
		x0, x1 = x1, x0-q*x1
	}
	if x0 < 0 {
		x0 += int64(size)
	}
	return inverse{uint32(x0), uint32(uint64(x0) << 32 / uint64(size))}
}

// times returns n times the inverse, mod size, without a division (Shoup's: Harvey,
// Faster arithmetic for number-theoretic transforms, 2014, section 2).
func (i inverse) times(n, size uint32) uint32 {
	quotient := uint32(uint64(i.ratio) * uint64(n) >> 32)
	r := i.of*n - quotient*size // below twice the size
	return min(r, r-size)
}

// step returns (at + skip) mod size. Whether it wraps is as good as random, so
// a branch would be mispredicted; the sign of the difference selects instead.
func step(at, skip, size uint32) uint32 {
	at += skip - size
	return at + size&uint32(int32(at)>>31)
}

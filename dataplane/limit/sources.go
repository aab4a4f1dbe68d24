package limit

import (
	"encoding/binary"
	"math/bits"

	"weir/dataplane/flow"
)

// DefaultEntries is how many buckets a Sources has when nothing else is wanted:
// 1 MiB.
const DefaultEntries = 1 << 16

const ways = 8 // entries in a set

// entry is the bucket of one source prefix, in a quarter of a cache line. A
// free one has tag 0.
type entry struct {
	tag uint64 // the hash, never 0
	Bucket
}

// Sources has a bucket for each source prefix that was seen lately. It belongs
// to one goroutine.
//
// An entry is found by a hash of 63 bits with a secret key; that two sources
// share a bucket by chance need not be expected within the life of a process,
// and nobody outside can aim at it. If all eight entries of a set are taken,
// the one that was asked for least lately goes.
//
// # More sources than entries
//
// A prefix without an entry starts with a full bucket. So the error is always
// on the side of letting through, and it is bounded: who has one source can
// only get a fresh burst by having eight others displace it, which takes about
// as many packets from other prefixes as there are entries, for he cannot see
// which set it is in. Who has more sources than there are entries (made-up
// ones, in a flood) is not limited by source at all; that is by construction,
// as a table of fixed size cannot know them all. The service's own limit is for
// him. Memory and the time of an Allow stay the same throughout.
type Sources struct {
	sets [][ways]entry
	mask uint64
	keys flow.Keys
}

// New returns a Sources with so many entries of 16 bytes, rounded up to a power
// of two and to at least 8; DefaultEntries if entries is 0 or less. They are
// all the memory it ever takes.
func New(entries int) *Sources {
	if entries <= 0 {
		entries = DefaultEntries
	}
	sets := max(1, 1<<bits.Len(uint(entries-1))/ways)
	return &Sources{sets: make([][ways]entry, sets), mask: uint64(sets - 1), keys: flow.NewKeys()}
}

// Allow takes a token from the bucket of a source prefix (see Mask), if there
// is one, and reports whether there was. service says whose limit and which: a
// number of the caller's that tells services apart, and the limits on packets
// from those on new flows.
func (s *Sources) Allow(service uint32, prefix *[16]byte, r Rate, now flow.Tick) bool {
	if r.PerSecond == 0 {
		return true
	}
	return s.allow(s.keys.HashAddress(prefix, uint64(service)), r, now)
}

func (s *Sources) allow(hash uint64, r Rate, now flow.Tick) bool {
	set := &s.sets[hash>>1&s.mask]
	tag := hash | 1
	way, oldest := 0, flow.Tick(0)
	for i := range set {
		e := &set[i]
		if e.tag == tag {
			return e.Allow(r, now)
		}
		if e.tag == 0 {
			way = i
			break // entries are never freed, so this one and the rest are free
		}
		if age := now - e.last; age > oldest {
			way, oldest = i, age
		}
	}
	set[way] = entry{tag: tag}
	return set[way].Allow(r, now)
}

// mappedPrefix is the first 12 bytes of an IPv4-mapped address (RFC 4291
// section 2.5.5.2), the last four of them in the upper half of a word.
const mappedPrefix = 0xffff << 32

// Mask returns addr without what is behind the first bits4 bits of an IPv4
// address (addr is IPv4-mapped then) or the first bits6 bits of an IPv6 one.
// More bits than an address has are all of them: what looks like IPv4-mapped
// may well be the source of an IPv6 packet, and must do no harm.
func Mask(addr *[16]byte, bits4, bits6 int) [16]byte {
	hi, lo := binary.BigEndian.Uint64(addr[:8]), binary.BigEndian.Uint64(addr[8:])
	n := bits6
	if hi == 0 && lo&^(1<<32-1) == mappedPrefix {
		n = 96 + bits4
	}
	n = min(max(n, 0), 128)
	// Shifts by 64 and more leave nothing.
	hi &= ^uint64(0) << max(0, 64-n)
	lo &= ^uint64(0) << (128 - n)
	var masked [16]byte
	binary.BigEndian.PutUint64(masked[:8], hi)
	binary.BigEndian.PutUint64(masked[8:], lo)
	return masked
}

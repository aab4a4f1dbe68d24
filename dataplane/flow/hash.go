package flow

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"

	"weir/dataplane/packet"
)

// Keys is the secret or the fixed seed of a hash. Each key meets the input
// before a multiplication, so that nobody who does not know the keys can make
// a factor zero.
type Keys [6]uint64

// NewKeys returns a secret of its own, for a table that nobody outside may be
// able to aim at.
func NewKeys() (k Keys) {
	var secret [len(k) * 8]byte
	rand.Read(secret[:]) // never fails, by its documentation
	for i := range k {
		k[i] = binary.NativeEndian.Uint64(secret[i*8:])
	}
	return k
}

// stableKeys are the first 48 bytes of the fractional part of pi: numbers
// nobody chose. Changing them moves every flow.
func stableKeys() Keys {
	return Keys{
		0x243f6a8885a308d3, 0x13198a2e03707344, 0xa4093822299f31d0,
		0x082efa98ec4e6c89, 0x452821e638d01377, 0xbe5466cf34e90c6c,
	}
}

// Hash returns the hash of k that the other methods want. It is keyed with a
// secret of this table, so that nobody outside can aim at one set.
func (t *Table) Hash(k *packet.Tuple) uint64 { return hashTuple(&t.keys, k) }

// HashStable returns the hash of k to pick from a Maglev table with: the same
// on every node, architecture and version.
func HashStable(k *packet.Tuple) uint64 {
	keys := stableKeys()
	return hashTuple(&keys, k)
}

// HashStableSource is HashStable of the source address alone, for services
// that keep all flows of a client together.
func HashStableSource(addr *[16]byte) uint64 {
	keys := stableKeys()
	return keys.HashAddress(addr, 0)
}

// HashAddress returns the hash of an address and a number.
func (keys *Keys) HashAddress(addr *[16]byte, number uint64) uint64 {
	a := mix(binary.LittleEndian.Uint64(addr[0:])^keys[0], binary.LittleEndian.Uint64(addr[8:])^keys[1])
	return mix(a^number^keys[4], keys[5])
}

// hashTuple hashes the words of a tuple, read little-endian whatever the
// machine is: both addresses side by side, then ports and protocol into the
// product, then once more so that every bit of the input reaches every bit of
// the result.
func hashTuple(keys *Keys, k *packet.Tuple) uint64 {
	src := mix(binary.LittleEndian.Uint64(k.Src[0:])^keys[0], binary.LittleEndian.Uint64(k.Src[8:])^keys[1])
	dst := mix(binary.LittleEndian.Uint64(k.Dst[0:])^keys[2], binary.LittleEndian.Uint64(k.Dst[8:])^keys[3])
	ports := uint64(k.SrcPort) | uint64(k.DstPort)<<16 | uint64(k.Proto)<<32
	return mix(mix(src^ports^keys[4], dst^keys[5])^keys[0], keys[1])
}

// mix folds the 128-bit product of a and b, the step of the MUM and wyhash
// family of hashes.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

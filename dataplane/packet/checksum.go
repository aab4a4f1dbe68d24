package packet

import (
	"encoding/binary"
	"math/bits"
)

// Sum adds b, as big-endian 16-bit words, to a partial one's-complement sum
// (RFC 1071 §1). The result is at most 0xffff, so partial sums may be added up
// in a uint32 before Fold. An odd last byte counts as padded by a zero byte:
// of a datum summed in pieces, only the last piece may have an odd length.
func Sum(b []byte, initial uint32) uint32 {
	// One's-complement addition does not care about the word size (RFC 1071
	// §2(C)), so eight bytes go at a time and the carries are folded at the end.
	acc, carry := uint64(initial), uint64(0)
	for len(b) >= 16 {
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[8:]), carry)
		b = b[16:]
	}
	if len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	var tail uint64
	if len(b) >= 4 {
		tail = uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		tail += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		tail += uint64(b[0]) << 8
	}
	acc, carry = bits.Add64(acc, tail, carry)
	// The last carry needs room, so it is added to the halves.
	acc = acc>>32 + acc&0xffffffff + carry
	acc = acc>>32 + acc&0xffffffff
	return uint32(Fold(uint32(acc)))
}

// Fold brings a partial sum down to 16 bits by adding the carries back in. The
// result is not complemented.
func Fold(sum uint32) uint16 {
	sum = sum>>16 + sum&0xffff
	return uint16(sum>>16 + sum)
}

// Checksum returns the Internet checksum of b on top of a partial sum, usually
// a pseudo-header's: the complement of the sum, as it goes into the header.
// Over data that includes a right checksum it is 0.
func Checksum(b []byte, initial uint32) uint16 { return ^Fold(Sum(b, initial)) }

// checksumSkipping is Checksum with the two bytes at offset at, which is even,
// taken as zero: the field that the result goes into.
func checksumSkipping(b []byte, at int, initial uint32) uint16 {
	return Checksum(b[at+2:], Sum(b[:at], initial))
}

// PseudoIPv4 is the partial sum of the pseudo-header under TCP and UDP over
// IPv4 (RFC 9293 §3.1, RFC 768). length is that of the transport header and
// payload, in bytes.
func PseudoIPv4(src, dst [4]byte, proto uint8, length uint16) uint32 {
	return Sum(dst[:], Sum(src[:], uint32(proto)+uint32(length)))
}

// PseudoIPv6 is the partial sum of the pseudo-header under TCP, UDP and ICMPv6
// over IPv6 (RFC 8200 §8.1). proto is that of the transport header, whatever
// extension headers come before it; length is that of the transport header and
// payload, in bytes.
func PseudoIPv6(src, dst [16]byte, proto uint8, length uint32) uint32 {
	return Sum(dst[:], Sum(src[:], uint32(proto)+length>>16+length&0xffff))
}

// Delta is what a change of some words does to any checksum that covers them:
// the sum ~m + m' of RFC 1624 §3, eqn. 3. It depends on the change only, not on
// the packet, so that it can be computed once for a flow. The zero Delta is no
// change. The words must be at even offsets in the checksummed data.
type Delta uint16

// Replace16 returns d with the change of one 16-bit word added.
func (d Delta) Replace16(before, after uint16) Delta {
	return Delta(Fold(uint32(d) + uint32(^before) + uint32(after)))
}

// Replace32 returns d with the change of a 32-bit word, such as an IPv4
// address, added.
func (d Delta) Replace32(before, after uint32) Delta {
	return d.Replace16(uint16(before>>16), uint16(after>>16)).Replace16(uint16(before), uint16(after))
}

// ReplaceAddr returns d with the change of a 16-byte address added. Two
// IPv4-mapped addresses give the change of the IPv4 addresses, since their
// prefix cancels out.
func (d Delta) ReplaceAddr(before, after [16]byte) Delta {
	// ^x summed over eight words is the complement of the sum of x.
	gone := ^uint16(Sum(before[:], 0))
	return Delta(Fold(uint32(d) + uint32(gone) + Sum(after[:], 0)))
}

// Apply returns the checksum after the change (RFC 1624 §3, eqn. 3). It is the
// same as a new computation would give, except for data that become all zero:
// 0 here, 0xffff there.
func (d Delta) Apply(checksum uint16) uint16 {
	return ^Fold(uint32(^checksum) + uint32(d))
}

// ApplyUDP is Apply with UDP's rule for zero (RFC 768): a checksum of 0 means
// that there is none and stays, and a computed 0 is sent as 0xffff.
func (d Delta) ApplyUDP(checksum uint16) uint16 {
	if checksum == 0 {
		return 0
	}
	return UDPNonZero(d.Apply(checksum))
}

// UDPNonZero turns a computed UDP checksum of 0 into 0xffff, the form in which
// it is sent (RFC 768, RFC 8200 §8.1), for 0 says that there is no checksum.
func UDPNonZero(checksum uint16) uint16 {
	if checksum == 0 {
		return 0xffff
	}
	return checksum
}

// Update16 returns checksum after one 16-bit word under it changed.
func Update16(checksum, before, after uint16) uint16 {
	return Delta(0).Replace16(before, after).Apply(checksum)
}

// Update32 returns checksum after one 32-bit word under it changed.
func Update32(checksum uint16, before, after uint32) uint16 {
	return Delta(0).Replace32(before, after).Apply(checksum)
}

// UpdateAddr returns checksum after one 16-byte address under it changed.
func UpdateAddr(checksum uint16, before, after [16]byte) uint16 {
	return Delta(0).ReplaceAddr(before, after).Apply(checksum)
}

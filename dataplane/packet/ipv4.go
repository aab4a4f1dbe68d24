package packet

import (
	"encoding/binary"
	"math/bits"
)

// IPv4MinLen is the length of an IPv4 header without options, in bytes.
const IPv4MinLen = 20

// Bits of the IPv4 flags and fragment offset field (RFC 791 §3.1).
const (
	IPv4DontFragment  uint16 = 0x4000
	IPv4MoreFragments uint16 = 0x2000
	ipv4OffsetMask    uint16 = 0x1fff
)

// IPv4 is a view of an IPv4 header (RFC 791 §3.1) and what follows.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Version|  IHL  |Type of Service|          Total Length         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|         Identification        |Flags|      Fragment Offset    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Time to Live |    Protocol   |         Header Checksum       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                       Source Address                          |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Destination Address                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Options                    |    Padding    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type IPv4 []byte

const (
	ipv4VersionIHL = 0
	ipv4TOS        = 1
	ipv4TotalLen   = 2
	ipv4ID         = 4
	ipv4Flags      = 6
	ipv4TTL        = 8
	ipv4Protocol   = 9
	ipv4Checksum   = 10
	ipv4Src        = 12
	ipv4Dst        = 16
)

// IPv4Fields is an IPv4 header without options.
type IPv4Fields struct {
	TOS         uint8
	TotalLength uint16 // header and payload, in bytes
	ID          uint16
	Flags       uint16 // IPv4DontFragment, IPv4MoreFragments
	Offset      uint16 // fragment offset in bytes, a multiple of 8
	TTL         uint8
	Protocol    uint8
	Src, Dst    [4]byte
}

// Encode writes a header of IPv4MinLen bytes with its checksum.
func (b IPv4) Encode(f *IPv4Fields) {
	b[ipv4VersionIHL] = 4<<4 | IPv4MinLen/4
	b[ipv4TOS] = f.TOS
	binary.BigEndian.PutUint16(b[ipv4TotalLen:], f.TotalLength)
	binary.BigEndian.PutUint16(b[ipv4ID:], f.ID)
	binary.BigEndian.PutUint16(b[ipv4Flags:], f.Flags&^ipv4OffsetMask|f.Offset>>3)
	b[ipv4TTL] = f.TTL
	b[ipv4Protocol] = f.Protocol
	*(*[4]byte)(b[ipv4Src:]) = f.Src
	*(*[4]byte)(b[ipv4Dst:]) = f.Dst
	b.SetChecksum(b.ComputeChecksum())
}

// Version returns the IP version, 4 in a valid header.
func (b IPv4) Version() uint8 { return b[ipv4VersionIHL] >> 4 }

// HeaderLen returns the header's length with options, in bytes.
func (b IPv4) HeaderLen() int { return int(b[ipv4VersionIHL]&0x0f) * 4 }

// TOS returns the type of service byte: DSCP and ECN.
func (b IPv4) TOS() uint8 { return b[ipv4TOS] }

// SetTOS sets the type of service byte; the checksum is left alone.
func (b IPv4) SetTOS(v uint8) { b[ipv4TOS] = v }

// TotalLength returns the length of header and payload, in bytes.
func (b IPv4) TotalLength() uint16 { return binary.BigEndian.Uint16(b[ipv4TotalLen:]) }

// SetTotalLength sets the length of header and payload, in bytes; the checksum
// is left alone.
func (b IPv4) SetTotalLength(n uint16) { binary.BigEndian.PutUint16(b[ipv4TotalLen:], n) }

// ID returns the identification of the datagram's fragments.
func (b IPv4) ID() uint16 { return binary.BigEndian.Uint16(b[ipv4ID:]) }

// SetID sets the identification; the checksum is left alone.
func (b IPv4) SetID(id uint16) { binary.BigEndian.PutUint16(b[ipv4ID:], id) }

// Flags returns the three flag bits, as IPv4DontFragment and IPv4MoreFragments
// name them.
func (b IPv4) Flags() uint16 { return binary.BigEndian.Uint16(b[ipv4Flags:]) &^ ipv4OffsetMask }

// FragmentOffset returns the fragment's place in the datagram, in bytes.
func (b IPv4) FragmentOffset() uint16 {
	return binary.BigEndian.Uint16(b[ipv4Flags:]) & ipv4OffsetMask << 3
}

// SetFragment sets flags and fragment offset (in bytes, a multiple of 8); the
// checksum is left alone.
func (b IPv4) SetFragment(flags, offset uint16) {
	binary.BigEndian.PutUint16(b[ipv4Flags:], flags&^ipv4OffsetMask|offset>>3)
}

// TTL returns the time to live, in hops.
func (b IPv4) TTL() uint8 { return b[ipv4TTL] }

// SetTTL sets the time to live; the checksum is left alone.
func (b IPv4) SetTTL(ttl uint8) { b[ipv4TTL] = ttl }

// Protocol returns the protocol of the payload.
func (b IPv4) Protocol() uint8 { return b[ipv4Protocol] }

// SetProtocol sets the protocol of the payload; the checksum is left alone.
func (b IPv4) SetProtocol(p uint8) { b[ipv4Protocol] = p }

// Checksum returns the header checksum.
func (b IPv4) Checksum() uint16 { return binary.BigEndian.Uint16(b[ipv4Checksum:]) }

// SetChecksum sets the header checksum.
func (b IPv4) SetChecksum(c uint16) { binary.BigEndian.PutUint16(b[ipv4Checksum:], c) }

// ComputeChecksum returns the checksum that the header, options included,
// should have.
func (b IPv4) ComputeChecksum() uint16 {
	return checksumSkipping(b[:b.HeaderLen()], ipv4Checksum, 0)
}

// Src returns the source address.
func (b IPv4) Src() [4]byte { return [4]byte(b[ipv4Src:]) }

// SetSrc sets the source address; no checksum is changed.
func (b IPv4) SetSrc(a [4]byte) { *(*[4]byte)(b[ipv4Src:]) = a }

// Dst returns the destination address.
func (b IPv4) Dst() [4]byte { return [4]byte(b[ipv4Dst:]) }

// SetDst sets the destination address; no checksum is changed.
func (b IPv4) SetDst(a [4]byte) { *(*[4]byte)(b[ipv4Dst:]) = a }

// Payload returns what follows the header, up to the total length.
func (b IPv4) Payload() []byte { return b[b.HeaderLen():b.TotalLength()] }

// DecrementTTL takes one hop off the time to live and adjusts the checksum: one less
// in the high byte of a word is as much more in the sum's complement (RFC 1141), which
// wraps around so that it is never minus zero (RFC 1624 §3). It changes nothing and reports false when no hop is left to
// take: such a packet may not be forwarded (RFC 1812 §5.3.1).
func (b IPv4) DecrementTTL() bool {
	ttl := b[ipv4TTL]
	if ttl <= 1 {
		return false
	}
	b[ipv4TTL] = ttl - 1
	sum := uint32(b.Checksum()) + 1<<8
	b.SetChecksum(uint16(sum + (sum+1)>>16))
	return true
}

// ipv4SumOK verifies the checksum of a header without options, given its words. Byte order does
// not matter to a verification (RFC 1071 §2(B)), so the words are summed as
// little-endian ones, which costs nothing where it matters.
func ipv4SumOK(head, tail uint64, dst uint32) bool {
	a, c := bits.Add64(head, tail, 0)
	a, c = bits.Add64(a, uint64(dst), c)
	a = a>>32 + a&0xffffffff + c
	a = a>>32 + a&0xffffffff
	return Fold(uint32(a)) == 0xffff
}

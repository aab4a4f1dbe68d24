package packet

import "encoding/binary"

// IPv6Len is the length of the fixed IPv6 header, in bytes.
const IPv6Len = 40

// IPv6 is a view of an IPv6 header (RFC 8200 §3) and what follows.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Version| Traffic Class |           Flow Label                  |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|         Payload Length        |  Next Header  |   Hop Limit   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                                                               |
//	+                                                               +
//	|                                                               |
//	+                         Source Address                        +
//	|                                                               |
//	+                                                               +
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                                                               |
//	+                                                               +
//	|                                                               |
//	+                      Destination Address                      +
//	|                                                               |
//	+                                                               +
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type IPv6 []byte

const (
	ipv6VersionClassLabel = 0
	ipv6PayloadLen        = 4
	ipv6NextHeader        = 6
	ipv6HopLimit          = 7
	ipv6Src               = 8
	ipv6Dst               = 24

	ipv6LabelMask   = 0x000fffff
	ipv6ClassOffset = 20
)

// IPv6Fields is the whole of the fixed IPv6 header.
type IPv6Fields struct {
	TrafficClass  uint8
	FlowLabel     uint32 // 20 bits
	PayloadLength uint16 // all that follows the fixed header, in bytes
	NextHeader    uint8
	HopLimit      uint8
	Src, Dst      [16]byte
}

// Encode writes the header.
func (b IPv6) Encode(f *IPv6Fields) {
	binary.BigEndian.PutUint32(b[ipv6VersionClassLabel:],
		6<<28|uint32(f.TrafficClass)<<ipv6ClassOffset|f.FlowLabel&ipv6LabelMask)
	b.SetPayloadLength(f.PayloadLength)
	b[ipv6NextHeader] = f.NextHeader
	b[ipv6HopLimit] = f.HopLimit
	b.SetSrc(f.Src)
	b.SetDst(f.Dst)
}

// Version returns the IP version, 6 in a valid header.
func (b IPv6) Version() uint8 { return b[ipv6VersionClassLabel] >> 4 }

// TrafficClass returns the traffic class: DSCP and ECN.
func (b IPv6) TrafficClass() uint8 {
	return uint8(binary.BigEndian.Uint16(b[ipv6VersionClassLabel:]) >> 4)
}

// SetTrafficClass sets the traffic class.
func (b IPv6) SetTrafficClass(c uint8) {
	w := binary.BigEndian.Uint32(b[ipv6VersionClassLabel:])
	w = w&^(0xff<<ipv6ClassOffset) | uint32(c)<<ipv6ClassOffset
	binary.BigEndian.PutUint32(b[ipv6VersionClassLabel:], w)
}

// FlowLabel returns the flow label, 20 bits.
func (b IPv6) FlowLabel() uint32 {
	return binary.BigEndian.Uint32(b[ipv6VersionClassLabel:]) & ipv6LabelMask
}

// SetFlowLabel sets the flow label, 20 bits.
func (b IPv6) SetFlowLabel(l uint32) {
	w := binary.BigEndian.Uint32(b[ipv6VersionClassLabel:])
	binary.BigEndian.PutUint32(b[ipv6VersionClassLabel:], w&^ipv6LabelMask|l&ipv6LabelMask)
}

// PayloadLength returns the length of all that follows the fixed header, in
// bytes.
func (b IPv6) PayloadLength() uint16 { return binary.BigEndian.Uint16(b[ipv6PayloadLen:]) }

// SetPayloadLength sets the length of all that follows the fixed header, in
// bytes.
func (b IPv6) SetPayloadLength(n uint16) { binary.BigEndian.PutUint16(b[ipv6PayloadLen:], n) }

// NextHeader returns the protocol of what follows the fixed header.
func (b IPv6) NextHeader() uint8 { return b[ipv6NextHeader] }

// SetNextHeader sets the protocol of what follows the fixed header.
func (b IPv6) SetNextHeader(p uint8) { b[ipv6NextHeader] = p }

// HopLimit returns the number of hops left.
func (b IPv6) HopLimit() uint8 { return b[ipv6HopLimit] }

// SetHopLimit sets the number of hops left.
func (b IPv6) SetHopLimit(n uint8) { b[ipv6HopLimit] = n }

// Src returns the source address.
func (b IPv6) Src() [16]byte { return [16]byte(b[ipv6Src:]) }

// SetSrc sets the source address; no checksum is changed.
func (b IPv6) SetSrc(a [16]byte) { *(*[16]byte)(b[ipv6Src:]) = a }

// Dst returns the destination address.
func (b IPv6) Dst() [16]byte { return [16]byte(b[ipv6Dst:]) }

// SetDst sets the destination address; no checksum is changed.
func (b IPv6) SetDst(a [16]byte) { *(*[16]byte)(b[ipv6Dst:]) = a }

// Payload returns what follows the fixed header, up to the payload length.
func (b IPv6) Payload() []byte { return b[IPv6Len : IPv6Len+int(b.PayloadLength())] }

// DecrementHopLimit takes one hop off. It changes nothing and reports false
// when no hop is left to take: such a packet may not be forwarded (RFC 8200
// §3).
func (b IPv6) DecrementHopLimit() bool {
	if b[ipv6HopLimit] <= 1 {
		return false
	}
	b[ipv6HopLimit]--
	return true
}

// SolicitedNode returns the multicast group that a neighbour solicitation for
// addr is sent to (RFC 4291 §2.7.1).
func SolicitedNode(addr [16]byte) [16]byte {
	return [16]byte{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: addr[13], 14: addr[14], 15: addr[15]}
}

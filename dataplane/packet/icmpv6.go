package packet

import "encoding/binary"

// ICMPv6 types (RFC 4443, RFC 4861 §4).
const (
	ICMPv6Unreachable       uint8 = 1
	ICMPv6PacketTooBig      uint8 = 2
	ICMPv6TimeExceeded      uint8 = 3
	ICMPv6ParamProblem      uint8 = 4
	ICMPv6EchoRequest       uint8 = 128
	ICMPv6EchoReply         uint8 = 129
	ICMPv6NeighborSolicit   uint8 = 135
	ICMPv6NeighborAdvert    uint8 = 136
	NDPHopLimit             uint8 = 255 // of every valid NDP packet, RFC 4861 §7.1
	NDPOptionSourceLinkAddr uint8 = 1   // RFC 4861 §4.6.1
	NDPOptionTargetLinkAddr uint8 = 2
)

// Lengths of neighbour discovery messages, in bytes.
const (
	NeighborLen       = 24              // solicitation or advertisement, without options
	NeighborAdvertLen = NeighborLen + 8 // what EncodeNeighborAdvert writes
)

// ICMPv6 is a view of an ICMPv6 message (RFC 4443 §2.1): of an echo (§4.1), a
// packet too big (§3.2), or a neighbour solicitation or advertisement (RFC 4861
// §4.3, §4.4). The methods for the latter want NeighborLen bytes.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Type      |     Code      |          Checksum             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  echo: Identifier             |  echo: Sequence Number        |
//	|  packet too big: MTU                                          |
//	|R|S|O  advertisement                                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                                                               |
//	+                                                               +
//	|  solicitation, advertisement:                                 |
//	+                       Target Address                          +
//	|                                                               |
//	+                                                               +
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   Options ...
//	+-+-+-+-+-+-+-+-+-+-+-+-
type ICMPv6 []byte

const (
	icmpv6MTU      = 4
	neighborFlags  = 4
	neighborTarget = 8

	neighborRouter    = 0x80
	neighborSolicited = 0x40
	neighborOverride  = 0x20

	ndpOptionUnit     = 8 // option lengths count these, RFC 4861 §4.6
	ndpOptionLinkAddr = 2 // offset of the address in the option
)

// NeighborAdvertFields is a neighbour advertisement with its target link-layer
// address option.
type NeighborAdvertFields struct {
	Router, Solicited, Override bool
	Target                      [16]byte
	TargetMAC                   MAC
	Src, Dst                    [16]byte // of the IPv6 header, for the checksum
}

// EncodeNeighborAdvert writes NeighborAdvertLen bytes with their checksum.
func (b ICMPv6) EncodeNeighborAdvert(f *NeighborAdvertFields) {
	b = b[:NeighborAdvertLen]
	b[icmpType] = ICMPv6NeighborAdvert
	b[icmpCode] = 0
	var flags uint8
	if f.Router {
		flags |= neighborRouter
	}
	if f.Solicited {
		flags |= neighborSolicited
	}
	if f.Override {
		flags |= neighborOverride
	}
	binary.BigEndian.PutUint32(b[neighborFlags:], uint32(flags)<<24)
	b.SetTarget(f.Target)
	option := b[NeighborLen:]
	option[0] = NDPOptionTargetLinkAddr
	option[1] = 1
	*(*MAC)(option[ndpOptionLinkAddr:]) = f.TargetMAC
	b.SetChecksum(b.ComputeChecksum(f.Src, f.Dst))
}

// Type returns the type.
func (b ICMPv6) Type() uint8 { return b[icmpType] }

// SetType sets the type; the checksum is left alone.
func (b ICMPv6) SetType(t uint8) { b[icmpType] = t }

// Code returns the code.
func (b ICMPv6) Code() uint8 { return b[icmpCode] }

// SetCode sets the code; the checksum is left alone.
func (b ICMPv6) SetCode(c uint8) { b[icmpCode] = c }

// Checksum returns the checksum.
func (b ICMPv6) Checksum() uint16 { return binary.BigEndian.Uint16(b[icmpChecksum:]) }

// SetChecksum sets the checksum.
func (b ICMPv6) SetChecksum(c uint16) { binary.BigEndian.PutUint16(b[icmpChecksum:], c) }

// ComputeChecksum returns the checksum that the message, all of b, should have
// between the given addresses (RFC 4443 §2.3).
func (b ICMPv6) ComputeChecksum(src, dst [16]byte) uint16 {
	return checksumSkipping(b, icmpChecksum, PseudoIPv6(src, dst, ProtoICMPv6, uint32(len(b))))
}

// Ident returns an echo's identifier.
func (b ICMPv6) Ident() uint16 { return binary.BigEndian.Uint16(b[icmpIdent:]) }

// SetIdent sets an echo's identifier; the checksum is left alone.
func (b ICMPv6) SetIdent(id uint16) { binary.BigEndian.PutUint16(b[icmpIdent:], id) }

// Sequence returns an echo's sequence number.
func (b ICMPv6) Sequence() uint16 { return binary.BigEndian.Uint16(b[icmpSequence:]) }

// SetSequence sets an echo's sequence number; the checksum is left alone.
func (b ICMPv6) SetSequence(n uint16) { binary.BigEndian.PutUint16(b[icmpSequence:], n) }

// MTU returns the next hop's MTU of a "packet too big", in bytes.
func (b ICMPv6) MTU() uint32 { return binary.BigEndian.Uint32(b[icmpv6MTU:]) }

// SetMTU sets the next hop's MTU, in bytes; the checksum is left alone.
func (b ICMPv6) SetMTU(n uint32) { binary.BigEndian.PutUint32(b[icmpv6MTU:], n) }

// Router reports whether the advertisement comes from a router.
func (b ICMPv6) Router() bool { return b[neighborFlags]&neighborRouter != 0 }

// Solicited reports whether the advertisement answers a solicitation.
func (b ICMPv6) Solicited() bool { return b[neighborFlags]&neighborSolicited != 0 }

// Override reports whether the advertisement replaces a cached address.
func (b ICMPv6) Override() bool { return b[neighborFlags]&neighborOverride != 0 }

// Target returns the target of a solicitation or an advertisement.
func (b ICMPv6) Target() [16]byte { return [16]byte(b[neighborTarget:]) }

// SetTarget sets the target; the checksum is left alone.
func (b ICMPv6) SetTarget(a [16]byte) { *(*[16]byte)(b[neighborTarget:]) = a }

// LinkAddr returns the address in the first option of the given kind,
// NDPOptionSourceLinkAddr or NDPOptionTargetLinkAddr, of a solicitation or an
// advertisement. It reports false when there is none, and when the options are
// malformed before it: a message with an option of length zero has to be
// ignored (RFC 4861 §4.6).
func (b ICMPv6) LinkAddr(kind uint8) (MAC, bool) {
	for options := b[NeighborLen:]; len(options) >= ndpOptionUnit; {
		n := int(options[1]) * ndpOptionUnit
		if n == 0 || n > len(options) {
			break
		}
		if options[0] == kind {
			return MAC(options[ndpOptionLinkAddr:]), true
		}
		options = options[n:]
	}
	return MAC{}, false
}

// Payload returns what follows the first ICMPLen bytes.
func (b ICMPv6) Payload() []byte { return b[ICMPLen:] }

package packet

import "encoding/binary"

// Extension headers that weir walks: hop-by-hop and destination options (RFC
// 8200 §4.3, §4.6) and routing (§4.4) have this in common,
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Next Header  |  Hdr Ext Len  |  Routing Type | Segments Left |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// and the fragment header (§4.5) is
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Next Header  |   Reserved    |      Fragment Offset    |Res|M|
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                         Identification                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const (
	extUnit         = 8 // shortest header, and the unit of Hdr Ext Len
	extNextHeader   = 0
	extLen          = 1 // in units, without the first
	extSegmentsLeft = 3
	extFragment     = 2

	extFragmentMore   = 0x0001
	extFragmentOffset = 0xfff8 // in bytes, since the field is in units of 8
)

// decodeExtensions moves L4 and Proto past the extension headers of packet,
// which ends at End. It reports whether there is a transport header to look
// for: not behind a problem, and not in a fragment other than the first.
func (p *Parsed) decodeExtensions(packet []byte) bool {
	fragmented := false
	for range maxExtensions + 1 {
		switch p.Proto {
		default:
			return true
		case ProtoAH, ProtoMobility, ProtoHIP, ProtoShim6:
			p.Problem = ProblemExtension
			return false
		case ProtoHopByHop, ProtoRouting, ProtoDestOptions, ProtoFragment:
		}
		b := packet[p.L4:]
		if len(b) < extUnit {
			p.Problem = ProblemTruncated
			return false
		}
		n := extUnit
		if p.Proto != ProtoFragment {
			n += int(b[extLen]) * extUnit
		}
		if n > len(b) {
			p.Problem = ProblemTruncated
			return false
		}
		switch {
		case p.Proto == ProtoHopByHop && p.L4 != p.L3+IPv6Len, // allowed only as the first
			p.Proto == ProtoRouting && b[extSegmentsLeft] != 0, // Dst is not where it goes
			p.Proto == ProtoFragment && fragmented:
			p.Problem = ProblemExtension
			return false
		}
		isFragment := p.Proto == ProtoFragment
		p.Proto = b[extNextHeader]
		p.L4 += uint32(n)
		if !isFragment {
			continue
		}
		fragmented = true
		field := binary.BigEndian.Uint16(b[extFragment:])
		if field&(extFragmentMore|extFragmentOffset) == 0 {
			continue // atomic, RFC 6946: handled as if whole
		}
		before := int(p.L4-p.L3) - IPv6Len - extUnit
		if !p.decodeFragment(int(field&extFragmentOffset), before) {
			return false
		}
	}
	p.Problem = ProblemExtension
	return false
}

package packet

import "encoding/binary"

// quotedPorts is how much of a TCP or UDP header an ICMP error quotes at least
// (RFC 792): the ports and 4 bytes more.
const quotedPorts = 8

// An ICMP message of several parts (RFC 4884 §3) says how long the quotation
// is, in these units, and pads it to the least length.
const (
	quotedLenICMPv4  = 5 // offset of the length in the message
	quotedUnitICMPv4 = 4
	quotedLenICMPv6  = 4
	quotedUnitICMPv6 = 8
	quotedPaddedMin  = 128
)

// Quoted is the packet that an ICMP or ICMPv6 error is about, as far as the
// error quotes it. Its owner reuses one for all errors.
type Quoted struct {
	// Tuple is that of the quoted packet: Src is who sent it, which is whom
	// the error is for. A packet in a tunnel (Proto is ProtoIPv4 or
	// ProtoIPv6) has the addresses of the outer header and no ports.
	Tuple

	Kind Kind // KindIPv4 or KindIPv6

	// Offsets in the frame given to Decode, as in Parsed. End is where the
	// quotation ends, mostly long before the packet did; padding and the
	// extensions of RFC 4884 lie after it.
	L3, L4, End uint32

	Fragment      bool // a fragment of a larger datagram
	FragmentFirst bool // the fragment at offset 0

	// MTU is what a "fragmentation needed" (RFC 1191 §4) or a "packet too
	// big" (RFC 4443 §3.2) says, in bytes, as it came: nothing keeps it from
	// being absurd. 0 if the message is none of these, or from a router that
	// does not tell.
	MTU uint32
}

// Decode reads the packet quoted by the ICMP error in frame, of which p is what
// Parsed.Decode made, and overwrites all of q. It reports false if p is no
// error, or if the flow of the quoted packet cannot be told: only TCP, UDP and
// IP in IP are known, and only the first fragment has ports.
//
// It also reports false if the ICMP message's own checksum is wrong, or the
// quoted IPv4 header's, as NAT must not pass such an error on (RFC 5508 §4.1,
// REQ-3). The quoted transport checksum is not looked at (REQ-3 c).
func (q *Quoted) Decode(frame []byte, p *Parsed) (ok bool) {
	*q = Quoted{}
	if p.Problem != ProblemNone || p.Fragment {
		return false
	}
	switch {
	case p.Kind == KindIPv4 && p.Proto == ProtoICMPv4:
		return q.decodeICMPv4(frame[:p.End], p)
	case p.Kind == KindIPv6 && p.Proto == ProtoICMPv6:
		return q.decodeICMPv6(frame[:p.End], p)
	}
	return false
}

func (q *Quoted) decodeICMPv4(packet []byte, p *Parsed) bool {
	switch p.ICMPType {
	case ICMPv4Unreachable, ICMPv4TimeExceeded, ICMPv4ParamProblem:
	default:
		return false
	}
	message := ICMPv4(packet[p.L4:])
	if Checksum(message, 0) != 0 {
		return false
	}
	if p.ICMPType == ICMPv4Unreachable && p.ICMPCode == ICMPv4CodeFragNeeded {
		q.MTU = uint32(message.MTU())
	}
	n := quotedLen(message, int(message[quotedLenICMPv4])*quotedUnitICMPv4)
	return q.decodeIPv4(packet[:int(p.L4)+ICMPLen+n], int(p.L4)+ICMPLen)
}

func (q *Quoted) decodeICMPv6(packet []byte, p *Parsed) bool {
	message := ICMPv6(packet[p.L4:])
	n := len(message) - ICMPLen
	switch p.ICMPType {
	case ICMPv6Unreachable, ICMPv6TimeExceeded:
		n = quotedLen(message, int(message[quotedLenICMPv6])*quotedUnitICMPv6)
	case ICMPv6PacketTooBig:
		q.MTU = message.MTU()
	case ICMPv6ParamProblem:
	default:
		return false
	}
	if Checksum(message, PseudoIPv6(p.Src, p.Dst, ProtoICMPv6, uint32(len(message)))) != 0 {
		return false
	}
	return q.decodeIPv6(packet[:int(p.L4)+ICMPLen+n], int(p.L4)+ICMPLen)
}

// quotedLen returns the length of what is quoted, with padding. said is what
// the message says in a byte that was unused before RFC 4884, so that only what
// can be right is believed.
func quotedLen(message []byte, said int) int {
	n := len(message) - ICMPLen
	if said >= quotedPaddedMin && said <= n {
		return said
	}
	return n
}

// decodeIPv4 reads the IPv4 packet that starts at off and is quoted up to the
// end of b.
func (q *Quoted) decodeIPv4(b []byte, off int) bool {
	h := IPv4(b[off:])
	if len(h) < IPv4MinLen {
		return false
	}
	headerLen, total := h.HeaderLen(), int(h.TotalLength())
	if h.Version() != 4 || headerLen < IPv4MinLen || headerLen > min(total, len(h)) ||
		Checksum(h[:headerLen], 0) != 0 {
		return false
	}
	q.Kind = KindIPv4
	q.Src, q.Dst, q.Proto = Mapped(h.Src()), Mapped(h.Dst()), h.Protocol()
	q.L3, q.L4, q.End = uint32(off), uint32(off+headerLen), uint32(off+min(total, len(h)))
	q.FragmentFirst = h.FragmentOffset() == 0 && h.Flags()&IPv4MoreFragments != 0
	q.Fragment = h.FragmentOffset() != 0 || q.FragmentFirst
	return q.Fragment == q.FragmentFirst && q.decodePorts(b)
}

// decodeIPv6 reads the IPv6 packet that starts at off and is quoted up to the
// end of b.
func (q *Quoted) decodeIPv6(b []byte, off int) bool {
	h := IPv6(b[off:])
	if len(h) < IPv6Len || h.Version() != 6 {
		return false
	}
	q.Kind = KindIPv6
	q.Src, q.Dst = h.Src(), h.Dst()

	// The walk over the extension headers is that of a whole packet.
	end := off + min(IPv6Len+int(h.PayloadLength()), len(h))
	walk := Parsed{L3: uint32(off), L4: uint32(off + IPv6Len), End: uint32(end)}
	walk.Proto = h.NextHeader()
	ok := walk.decodeExtensions(b[:end])
	q.Proto, q.L3, q.L4, q.End = walk.Proto, walk.L3, walk.L4, walk.End
	q.Fragment, q.FragmentFirst = walk.Fragment, walk.FragmentFirst
	return ok && q.decodePorts(b)
}

// decodePorts reads what follows the headers of IP, and reports whether the
// flow is known with it.
func (q *Quoted) decodePorts(b []byte) bool {
	switch q.Proto {
	case ProtoTCP, ProtoUDP:
		if q.End-q.L4 < quotedPorts {
			return false
		}
		q.SrcPort = binary.BigEndian.Uint16(b[q.L4:])
		q.DstPort = binary.BigEndian.Uint16(b[q.L4+2:])
		return true
	case ProtoIPv4, ProtoIPv6:
		return true
	}
	return false
}

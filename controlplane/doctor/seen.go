package doctor

import (
	"net/netip"

	"weir/dataplane/packet"
)

// kind is what sort of packet was seen.
type kind uint8

const (
	segment  kind = iota // TCP
	reply                // ICMP echo reply
	problem              // ICMP error
	redirect             // ICMP redirect, RFC 792 and RFC 4861 section 4.5
)

// seen is a packet to this box, as far as the doctor is interested in it.
type seen struct {
	kind kind
	from netip.Addr
	port uint16 // local one of a segment, identifier of a reply
	flag uint8  // TCP flags

	icmpType, icmpCode uint8  // of a problem
	mtu                int    // that it names; 0 for none
	about              quoted // of a problem or a redirect
}

// quoted is the beginning of a packet that this box has sent.
type quoted struct {
	to    netip.Addr
	proto uint8
	port  uint16     // the local one, or the identifier of an echo request; 0 if neither
	inner netip.Addr // of a packet in a tunnel: the inner destination; invalid if it was cut off
}

const (
	icmp4Redirect = 5
	icmp6Redirect = 137

	// redirect6Destination is where an ICMPv6 redirect has the address that it is
	// about: behind eight bytes and the target, RFC 4861 section 4.5.
	redirect6Destination = 24
)

// parse reads a received frame. It reports false for what is of no interest, or
// broken.
func parse(frame []byte) (seen, bool) {
	var p packet.Parsed
	p.Decode(frame)
	if p.Problem != packet.ProblemNone || p.Fragment && !p.FragmentFirst {
		return seen{}, false
	}
	s := seen{from: packet.NetipAddr(p.Src), port: p.DstPort, flag: p.TCPFlags}
	body := frame[p.L4:p.End]
	switch {
	case p.Proto == packet.ProtoTCP:
		s.kind = segment
		return s, true
	case p.Kind == packet.KindIPv4 && p.Proto == packet.ProtoICMPv4:
		return s, s.parseICMPv4(packet.ICMPv4(body))
	case p.Kind == packet.KindIPv6 && p.Proto == packet.ProtoICMPv6:
		return s, s.parseICMPv6(packet.ICMPv6(body))
	}
	return s, false
}

func (s *seen) parseICMPv4(m packet.ICMPv4) bool {
	switch s.icmpType, s.icmpCode = m.Type(), m.Code(); s.icmpType {
	case packet.ICMPv4EchoReply:
		s.kind, s.port = reply, m.Ident()
		return true
	case packet.ICMPv4Unreachable, packet.ICMPv4TimeExceeded, packet.ICMPv4ParamProblem:
		s.kind = problem
		if s.icmpType == packet.ICMPv4Unreachable && s.icmpCode == packet.ICMPv4CodeFragNeeded {
			s.mtu = int(m.MTU())
		}
	case icmp4Redirect:
		s.kind = redirect
	default:
		return false
	}
	return s.about.parse(m.Payload())
}

func (s *seen) parseICMPv6(m packet.ICMPv6) bool {
	switch s.icmpType, s.icmpCode = m.Type(), m.Code(); s.icmpType {
	case packet.ICMPv6EchoReply:
		s.kind, s.port = reply, packet.ICMPv4(m).Ident() // in the same place
		return true
	case packet.ICMPv6Unreachable, packet.ICMPv6PacketTooBig, packet.ICMPv6TimeExceeded, packet.ICMPv6ParamProblem:
		s.kind = problem
		if s.icmpType == packet.ICMPv6PacketTooBig {
			s.mtu = int(m.MTU())
		}
		return s.about.parse(m[packet.ICMPLen:])
	case icmp6Redirect:
		s.kind = redirect
		if len(m) < redirect6Destination+16 {
			return false
		}
		s.about.to = netip.AddrFrom16([16]byte(m[redirect6Destination:]))
		return true
	}
	return false
}

// parse reads an IP packet of which there may be only the beginning.
func (q *quoted) parse(b []byte) bool {
	to, proto, payload, ok := header(b)
	if !ok {
		return false
	}
	q.to, q.proto = to, proto
	switch {
	case proto == packet.ProtoIPv4 || proto == packet.ProtoIPv6:
		q.inner, _, _, _ = header(payload)
	case len(payload) < packet.ICMPLen:
	case proto == packet.ProtoTCP || proto == packet.ProtoUDP:
		q.port = packet.UDP(payload).SrcPort() // the same place in TCP
	case proto == packet.ProtoICMPv4 || proto == packet.ProtoICMPv6:
		q.port = packet.ICMPv4(payload).Ident()
	}
	return true
}

// header reads an IP header without extension headers.
func header(b []byte) (to netip.Addr, proto uint8, payload []byte, ok bool) {
	switch {
	case len(b) >= packet.IPv4MinLen && b[0]>>4 == 4:
		h := packet.IPv4(b)
		if h.HeaderLen() < packet.IPv4MinLen || h.HeaderLen() > len(b) {
			return to, 0, nil, false
		}
		return netip.AddrFrom4(h.Dst()), h.Protocol(), b[h.HeaderLen():], true
	case len(b) >= packet.IPv6Len && b[0]>>4 == 6:
		h := packet.IPv6(b)
		return netip.AddrFrom16(h.Dst()), h.NextHeader(), b[packet.IPv6Len:], true
	}
	return to, 0, nil, false
}

// is tells whether it is an ICMP error of one of two kinds, for IPv4 or IPv6.
func (s *seen) is(type4, code4, type6, code6 uint8) bool {
	if s.kind != problem {
		return false
	}
	if s.from.Is4() {
		return s.icmpType == type4 && s.icmpCode == code4
	}
	return s.icmpType == type6 && s.icmpCode == code6
}

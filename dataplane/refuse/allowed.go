package refuse

import (
	"encoding/binary"

	"weir/dataplane/packet"
)

// Allowed reports whether the packet in frame may be answered by an error or a
// reset at all (RFC 1122 section 3.2.2, RFC 1812 section 4.3.2.7, RFC 4443
// section 2.4 (e)): never an ICMP error, a fragment other than the first, what
// was sent to many, be it on the link only, and what is not from one host. Nor
// is a packet from the address that it is for: the answer would be to weir.
//
// p is what Decode made of frame. A packet with a problem is not answered.
func Allowed(p *packet.Parsed, frame []byte) bool {
	switch {
	case p.Problem != packet.ProblemNone,
		p.Fragment && !p.FragmentFirst,
		packet.Ethernet(frame).Dst().IsMulticast(),
		p.Src == p.Dst:
		return false
	}
	switch p.Kind {
	case packet.KindIPv4:
		return oneHost4(p.Src) && oneHost4(p.Dst) && !(p.Proto == packet.ProtoICMPv4 && isError4(p.ICMPType))
	case packet.KindIPv6:
		return oneHost6(p.Src) && oneHost6(p.Dst) && !(p.Proto == packet.ProtoICMPv6 && isError6(p.ICMPType))
	}
	return false
}

// oneHost4 reports whether an address can be one host's on a network: not of
// "this" network, loopback, multicast, or reserved, as broadcast is (RFC 1122
// section 3.2.1.3, RFC 6890 section 2.2.2).
func oneHost4(a [16]byte) bool {
	addr := packet.Unmapped(a)
	return addr[0] != 0 && addr[0] != 127 && addr[0] < 224
}

// oneHost6 reports whether an address can be one host's on a network: not
// unspecified, loopback, multicast, or an IPv4 one (RFC 4291 section 2.5, RFC
// 6890 section 2.2.3).
func oneHost6(a [16]byte) bool {
	unspecifiedOrLoopback := binary.BigEndian.Uint64(a[:]) == 0 && binary.BigEndian.Uint64(a[8:]) <= 1
	return !unspecifiedOrLoopback && a[0] != 0xff && !packet.IsMapped(a)
}

// isError4 reports whether an ICMP type is an error, or, as in Linux, one that
// nobody knows.
func isError4(typ uint8) bool {
	const (
		sourceQuench = 4
		redirect     = 5
		lastQuery    = 18 // address mask reply, RFC 950
	)
	switch typ {
	case packet.ICMPv4Unreachable, sourceQuench, redirect, packet.ICMPv4TimeExceeded, packet.ICMPv4ParamProblem:
		return true
	}
	return typ > lastQuery
}

// isError6 reports whether an ICMPv6 type is an error, known or not (RFC 4443
// section 2.1), or a redirect, for which the same holds.
func isError6(typ uint8) bool {
	const (
		firstQuery = 128
		redirect   = 137
	)
	return typ < firstQuery || typ == redirect
}

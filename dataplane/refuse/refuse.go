// Package refuse makes, out of a packet that weir does not forward, the answer
// that tells its sender why: an ICMP or ICMPv6 error, or a TCP reset.
//
// The problem it solves: a packet that is dropped in silence costs its sender
// seconds of retries, and one that is too big for the way to its backend
// "stalls on large packets" for ever. But whoever answers strangers can be made
// to shout at a third party, or at himself in a circle. So there are three
// parts: the builders, which turn the frame into the answer in place, from the
// address that the packet was for; [Allowed], the standards' rules of what is
// never answered; and a [Limiter] of how often. Builders ask neither of the
// other two: the caller does.
//
// Every builder takes the frame as it came, with p as Decode made it, and
// leaves in it the answer with the Ethernet header and VLAN tag of the packet
// right before it; link addresses are the caller's business. It returns false,
// and has changed nothing, for a packet that it cannot answer: not of its
// protocol or version of IP, with a problem, or with less than queue.Headroom
// before it.
package refuse

import (
	"weir/dataplane/packet"
	"weir/dataplane/queue"
)

const (
	hops = 64 // TTL or hop limit, the default of the IANA registry "IP Parameters"

	// precedence is Internetwork Control, which ICMP errors over IPv4 should
	// have (RFC 1812 section 4.3.2.5).
	precedence = 6 << 5

	// An ICMP error over IPv4 quotes as much as makes a datagram of this length
	// (RFC 1812 section 4.3.2.3), in bytes.
	maxError4 = 576

	// The same over IPv6 (RFC 4443 section 2.4 (c)): IPv6's least MTU.
	maxError6 = 1280

	minMTU4 = 68   // RFC 1191 section 3: no path has less
	minMTU6 = 1280 // RFC 8200 section 5
)

// Codes of ICMP and ICMPv6 (RFC 792, RFC 4443).
const (
	codePort4    = 3 // of unreachable
	codePort6    = 4 // of unreachable
	codeHops     = 0 // of time exceeded, both: in transit
	codeTooBig   = 0 // of packet too big
	noSecondWord = 0
)

// FragmentationNeeded makes the answer to an IPv4 packet with Don't Fragment
// that is longer than mtu, the longest in bytes that would fit (RFC 1191
// section 4).
func FragmentationNeeded(f *queue.Frame, p *packet.Parsed, mtu uint16) bool {
	return error4(f, p, packet.ICMPv4Unreachable, packet.ICMPv4CodeFragNeeded, max(mtu, minMTU4))
}

// PacketTooBig makes the answer to an IPv6 packet that is longer than mtu, the
// longest in bytes that would fit (RFC 4443 section 3.2). Never is less than
// 1280 asked for: a sender need not do it (RFC 8201 section 4).
func PacketTooBig(f *queue.Frame, p *packet.Parsed, mtu uint32) bool {
	return error6(f, p, packet.ICMPv6PacketTooBig, codeTooBig, max(mtu, minMTU6))
}

// PortUnreachable makes the answer to a packet for a port on which there is no
// service (RFC 1122 section 3.2.2.1, RFC 4443 section 3.1).
func PortUnreachable(f *queue.Frame, p *packet.Parsed) bool {
	if p.Kind == packet.KindIPv6 {
		return error6(f, p, packet.ICMPv6Unreachable, codePort6, noSecondWord)
	}
	return error4(f, p, packet.ICMPv4Unreachable, codePort4, noSecondWord)
}

// TimeExceeded makes the answer to a packet that has no hop left (RFC 1812
// section 5.3.1, RFC 4443 section 3.3).
func TimeExceeded(f *queue.Frame, p *packet.Parsed) bool {
	if p.Kind == packet.KindIPv6 {
		return error6(f, p, packet.ICMPv6TimeExceeded, codeHops, noSecondWord)
	}
	return error4(f, p, packet.ICMPv4TimeExceeded, codeHops, noSecondWord)
}

// error4 puts an ICMP error before the packet. Don't Fragment is set, so that
// the identification may be zero (RFC 6864 section 4.1).
func error4(f *queue.Frame, p *packet.Parsed, typ, code uint8, mtu uint16) bool {
	if p.Kind != packet.KindIPv4 {
		return false
	}
	b := quote(f, p, packet.IPv4MinLen+packet.ICMPLen, maxError4)
	if b == nil {
		return false
	}
	packet.IPv4(b).Encode(&packet.IPv4Fields{
		TOS: precedence, TotalLength: uint16(len(b)), Flags: packet.IPv4DontFragment,
		TTL: hops, Protocol: packet.ProtoICMPv4,
		Src: packet.Unmapped(p.Dst), Dst: packet.Unmapped(p.Src),
	})
	icmp := packet.ICMPv4(b[packet.IPv4MinLen:])
	icmp.SetType(typ)
	icmp.SetCode(code)
	icmp.SetIdent(0)
	icmp.SetMTU(mtu)
	icmp.SetChecksum(icmp.ComputeChecksum())
	return true
}

// error6 puts an ICMPv6 error before the packet.
func error6(f *queue.Frame, p *packet.Parsed, typ, code uint8, mtu uint32) bool {
	if p.Kind != packet.KindIPv6 {
		return false
	}
	b := quote(f, p, packet.IPv6Len+packet.ICMPLen, maxError6)
	if b == nil {
		return false
	}
	packet.IPv6(b).Encode(&packet.IPv6Fields{
		PayloadLength: uint16(len(b) - packet.IPv6Len),
		NextHeader:    packet.ProtoICMPv6, HopLimit: hops,
		Src: p.Dst, Dst: p.Src,
	})
	icmp := packet.ICMPv6(b[packet.IPv6Len:])
	icmp.SetType(typ)
	icmp.SetCode(code)
	icmp.SetMTU(mtu)
	icmp.SetChecksum(icmp.ComputeChecksum(p.Dst, p.Src))
	return true
}

// quote moves the link header forward by headers bytes, cuts the packet so that
// it and the headers have limit bytes at most, and returns both; or nil.
func quote(f *queue.Frame, p *packet.Parsed, headers, limit uint32) []byte {
	if p.Problem != packet.ProblemNone || f.Start < headers {
		return nil
	}
	l3 := f.Start + p.L3
	end := l3 + min(p.End-p.L3, limit-headers)
	copy(f.Buf[f.Start-headers:], f.Buf[f.Start:l3])
	f.Start, f.End = f.Start-headers, end
	return f.Buf[l3-headers : end]
}

// Reset makes the answer to a TCP segment for which there is no connection (RFC
// 9293 section 3.10.7.1). There is none to a reset, nor to a fragment, whose
// sender has yet to see how long the segment is.
func Reset(f *queue.Frame, p *packet.Parsed) bool {
	if p.Proto != packet.ProtoTCP || p.Problem != packet.ProblemNone || p.Fragment ||
		p.TCPFlags&packet.TCPRst != 0 {
		return false
	}
	b := f.Bytes()
	segment := packet.TCP(b[p.L4:p.End])
	seq, ack, flags := segment.Ack(), uint32(0), packet.TCPRst
	if p.TCPFlags&packet.TCPAck == 0 {
		length := uint32(len(segment.Payload()))
		for _, counted := range []uint8{packet.TCPSyn, packet.TCPFin} {
			if p.TCPFlags&counted != 0 {
				length++
			}
		}
		seq, ack, flags = 0, segment.Seq()+length, packet.TCPRst|packet.TCPAck
	}

	// It needs no more room than the segment had, whose headers were no
	// shorter.
	var at, pseudo uint32
	switch p.Kind {
	case packet.KindIPv4:
		src, dst := packet.Unmapped(p.Dst), packet.Unmapped(p.Src)
		packet.IPv4(b[p.L3:]).Encode(&packet.IPv4Fields{
			TotalLength: packet.IPv4MinLen + packet.TCPMinLen, Flags: packet.IPv4DontFragment,
			TTL: hops, Protocol: packet.ProtoTCP, Src: src, Dst: dst,
		})
		at = p.L3 + packet.IPv4MinLen
		pseudo = packet.PseudoIPv4(src, dst, packet.ProtoTCP, packet.TCPMinLen)
	case packet.KindIPv6:
		packet.IPv6(b[p.L3:]).Encode(&packet.IPv6Fields{
			PayloadLength: packet.TCPMinLen, NextHeader: packet.ProtoTCP, HopLimit: hops,
			Src: p.Dst, Dst: p.Src,
		})
		at = p.L3 + packet.IPv6Len
		pseudo = packet.PseudoIPv6(p.Dst, p.Src, packet.ProtoTCP, packet.TCPMinLen)
	default:
		return false
	}
	f.End = f.Start + at + packet.TCPMinLen
	tcp := packet.TCP(b[at : at+packet.TCPMinLen])
	clear(tcp)
	tcp.SetSrcPort(p.DstPort)
	tcp.SetDstPort(p.SrcPort)
	tcp.SetSeq(seq)
	tcp.SetAck(ack)
	tcp.SetHeaderLen(packet.TCPMinLen)
	tcp.SetFlags(flags)
	tcp.SetChecksum(tcp.ComputeChecksum(pseudo))
	return true
}

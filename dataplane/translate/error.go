package translate

import (
	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/stats"
)

// Longest ICMP errors that are made, in bytes: what every host can take (RFC
// 1812 §4.3.2.3, RFC 4443 §2.4 c).
const (
	maxError4 = 576
	maxError6 = 1280
)

// minQuoted is how much of a transport header an error is to quote (RFC 792).
const minQuoted = 8

// ErrorChange is what NAT does to an ICMP error about a packet of a flow. The
// error travels against that packet, so that none of the flow's Changes fits:
// the quoted packet is to look again as it did when its sender sent it.
type ErrorChange struct {
	// Src and Dst are the new addresses of the error itself, both of one
	// family, IPv4-mapped for IPv4. Dst is normally Quoted.Src.
	Src, Dst [16]byte

	// Quoted is what the quoted packet is to say, of the same family.
	Quoted packet.Tuple
}

// Packet translates the ICMP error in f; p is what Parsed.Decode made of it and
// q what Quoted.Decode did, which reported true. The flow is one of TCP or UDP.
// mtu, l3, f.Start and f.End are as in Change.Packet, but that l3 may be up to
// 34 bytes before f.Start; mtu is also the most that a too-big message may say
// that was translated to the other family.
//
// Within a family type, code, MTU and extensions stay as they are (RFC 5508
// §4.2, REQ-4 b). Quoted addresses, ports and checksums are changed, the TCP or
// UDP checksum if it is quoted.
//
// Between families, type, code, pointer and MTU are translated by the tables of
// RFC 7915 §4.2 and §5.2, and the quoted packet like any other (§4.3, §5.3) but
// for its TTL. What the tables drop is stats.Untranslatable. The result is cut
// to 576 or 1280 bytes. Extensions (RFC 4884) are left out, where §4.2 would
// carry them over as they are: they describe the network behind weir, in the
// other family's addresses, and no host acts on them.
func (c *ErrorChange) Packet(f *queue.Frame, p *packet.Parsed, q *packet.Quoted, mtu uint32) (l3 uint32, reason stats.Reason) {
	toIPv6 := !packet.IsMapped(c.Dst)
	switch {
	case p.TTL <= 1:
		return 0, stats.TTLExpired
	case q.Proto != packet.ProtoTCP && q.Proto != packet.ProtoUDP:
		return 0, stats.Untranslatable
	case p.Kind == packet.KindIPv4 && toIPv6:
		return c.cross46(f, p, q, mtu)
	case p.Kind == packet.KindIPv6 && !toIPv6:
		return c.cross64(f, p, q, mtu)
	case p.End-p.L3 > mtu:
		return 0, stats.TooBig
	}
	f.End = f.Start + p.End
	c.transport(f, q)
	quoted := f.Buf[f.Start+q.L3 : f.End]
	if q.Kind == packet.KindIPv4 {
		setAddrs4(quoted, c.Quoted.Src, c.Quoted.Dst)
	} else {
		packet.IPv6(quoted).SetSrc(c.Quoted.Src)
		packet.IPv6(quoted).SetDst(c.Quoted.Dst)
	}
	c.sum(f.Buf[f.Start+p.L4:f.End], toIPv6)
	return forward(f, p, c.Src, c.Dst), stats.ReasonNone
}

// transport changes the ports of the quoted packet, and its checksum as far as
// it is quoted.
func (c *ErrorChange) transport(f *queue.Frame, q *packet.Quoted) {
	const tcpSumEnd = 18 // bytes of a TCP header up to the end of its checksum
	b := f.Buf[f.Start+q.L4 : f.Start+q.End]
	d := Delta(&q.Tuple, &c.Quoted)
	if q.Proto == packet.ProtoUDP {
		u := packet.UDP(b)
		u.SetSrcPort(c.Quoted.SrcPort)
		u.SetDstPort(c.Quoted.DstPort)
		u.SetChecksum(d.ApplyUDP(u.Checksum()))
		return
	}
	t := packet.TCP(b)
	t.SetSrcPort(c.Quoted.SrcPort)
	t.SetDstPort(c.Quoted.DstPort)
	if len(b) >= tcpSumEnd {
		t.SetChecksum(d.Apply(t.Checksum()))
	}
}

// sum sets the checksum of the ICMP message b.
func (c *ErrorChange) sum(b []byte, toIPv6 bool) {
	if toIPv6 {
		m := packet.ICMPv6(b)
		m.SetChecksum(m.ComputeChecksum(c.Src, c.Dst))
		return
	}
	m := packet.ICMPv4(b)
	m.SetChecksum(m.ComputeChecksum())
}

// cross46 translates the error from IPv4 to IPv6. The bytes of the quoted
// transport header stay where they are, and all headers are written backwards
// from there: of quoted IP, of ICMP, of IP. So everything is read first.
func (c *ErrorChange) cross46(f *queue.Frame, p *packet.Parsed, q *packet.Quoted, mtu uint32) (uint32, stats.Reason) {
	old := packet.IPv4(f.Buf[f.Start+q.L3:])
	icmp, ok := icmp46(p, packet.ICMPv4(f.Buf[f.Start+p.L4:]), q.MTU, old.TotalLength(), mtu)
	header := f.Buf[f.Start+p.L3 : f.Start+p.L4]
	if !ok || len(header) > packet.IPv4MinLen && sourceRouted(header) {
		return 0, stats.Untranslatable
	}
	room := min(mtu, maxError6)
	headers := uint32(packet.IPv6Len + packet.ICMPLen + packet.IPv6Len)
	var fragment *packet.IPv6FragmentFields
	if q.Fragment {
		fields := fragment6(old)
		fragment = &fields
		headers += packet.IPv6FragmentLen
	}
	if headers+minQuoted > room {
		return 0, stats.TooBig
	}
	c.transport(f, q)
	l4 := f.Start + q.L4
	f.End = l4 + min(q.End-q.L4, room-headers)
	quoted := packet.IPv6Fields{
		TrafficClass: old.TOS(), NextHeader: q.Proto, HopLimit: old.TTL(),
		PayloadLength: old.TotalLength() - uint16(q.L4-q.L3),
		Src:           c.Quoted.Src, Dst: c.Quoted.Dst,
	}
	at := put6(f.Buf, l4, &quoted, fragment) - packet.ICMPLen
	l3 := to6(f, p, at, packet.ProtoICMPv6, nil, c.Src, c.Dst)
	icmp.put(f.Buf[at:])
	c.sum(f.Buf[at:f.End], true)
	return l3, stats.ReasonNone
}

// cross64 translates the error from IPv6 to IPv4. It writes backwards like
// cross46, but IPv4's headers are short enough to leave the old outer ones for
// later.
func (c *ErrorChange) cross64(f *queue.Frame, p *packet.Parsed, q *packet.Quoted, mtu uint32) (uint32, stats.Reason) {
	const headers = packet.IPv4MinLen + packet.ICMPLen + packet.IPv4MinLen
	old, oldLen := packet.IPv6(f.Buf[f.Start+q.L3:]), q.L4-q.L3
	fragmented := old.FragmentAt(int(oldLen)) != 0
	icmp, ok := icmp64(p, packet.ICMPv6(f.Buf[f.Start+p.L4:]), q.MTU, fragmented, mtu)
	total := packet.IPv6Len + uint32(old.PayloadLength()) - oldLen + packet.IPv4MinLen
	header := f.Buf[f.Start+p.L3 : f.Start+p.L4]
	if !ok || total > maxPacket || len(header) > packet.IPv6Len && !fits4(header, p) {
		return 0, stats.Untranslatable
	}
	room := min(mtu, maxError4)
	if headers+minQuoted > room {
		return 0, stats.TooBig
	}
	c.transport(f, q)
	l4 := f.Start + q.L4
	f.End = l4 + min(q.End-q.L4, room-headers)
	// The identification that was sent first is not known; nobody reassembles
	// a quotation.
	quoted := packet.IPv4Fields{
		TOS: old.TrafficClass(), TTL: old.HopLimit(), Protocol: q.Proto, TotalLength: uint16(total),
		Src: packet.Unmapped(c.Quoted.Src), Dst: packet.Unmapped(c.Quoted.Dst),
	}
	at := put4(f.Buf, l4, &quoted, old, oldLen) - packet.ICMPLen
	icmp.put(f.Buf[at:])
	c.sum(f.Buf[at:f.End], false)
	id := packet.ICMPv4(f.Buf[at:]).Checksum()
	return to4(f, p, at, packet.ProtoICMPv4, id, c.Src, c.Dst), stats.ReasonNone
}

package translate

import (
	"encoding/binary"
	"math/bits"

	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/stats"
)

// Whole does what Change.Packet does for nearly all packets of a NAT flow, in
// fewer steps: for a whole TCP or UDP packet that stays of its family and has no
// maximum segment size to be looked at. delta is Change.Delta, and mtu and the
// reason are as for Packet; the IP header begins where it did.
func Whole(f *queue.Frame, p *packet.Parsed, src, dst *[16]byte, srcPort, dstPort uint16, delta packet.Delta, mtu uint32) stats.Reason {
	switch {
	case p.TTL <= 1:
		return stats.TTLExpired
	case p.End-p.L3 > mtu:
		return stats.TooBig
	}
	f.End = f.Start + p.End
	if p.Kind == packet.KindIPv4 {
		whole4((*[packet.IPv4MinLen]byte)(f.Buf[f.Start+p.L3:]), src, dst)
	} else {
		h := (*[packet.IPv6Len]byte)(f.Buf[f.Start+p.L3:])
		h[ipv6HopLimit]--
		*(*[16]byte)(h[ipv6Src:]) = *src
		*(*[16]byte)(h[ipv6Dst:]) = *dst
	}
	h := (*[packet.UDPLen]byte)(f.Buf[f.Start+p.L4:])
	binary.BigEndian.PutUint32(h[:], uint32(srcPort)<<16|uint32(dstPort))
	if p.Proto == packet.ProtoUDP {
		sum := h[udpChecksum:]
		binary.BigEndian.PutUint16(sum, delta.ApplyUDP(binary.BigEndian.Uint16(sum)))
		return stats.ReasonNone
	}
	sum := f.Buf[f.Start+p.L4+tcpChecksum:]
	binary.BigEndian.PutUint16(sum, delta.Apply(binary.BigEndian.Uint16(sum)))
	return stats.ReasonNone
}

// Offsets in headers (RFC 791 §3.1, RFC 8200 §3, RFC 768, RFC 9293 §3.1).
const (
	ipv4TTL      = 8
	ipv4Checksum = 10
	ipv4Src      = 12 // the destination follows

	ipv6HopLimit = 7
	ipv6Src      = 8
	ipv6Dst      = 24

	udpChecksum = 6
	tcpChecksum = 16
)

// whole4 sets the addresses of an IPv4 header, takes one hop off, and adjusts the
// checksum to both at a time (RFC 1624 §3): the word that begins with the time to
// live is 0x100 less, and ^0x100 is that in one's complement.
func whole4(h *[packet.IPv4MinLen]byte, src, dst *[16]byte) {
	before := binary.BigEndian.Uint64(h[ipv4Src:])
	after := uint64(binary.BigEndian.Uint32(src[12:]))<<32 | uint64(binary.BigEndian.Uint32(dst[12:]))
	binary.BigEndian.PutUint64(h[ipv4Src:], after)
	h[ipv4TTL]--
	sum, carry := bits.Add64(^before, after, 0)
	change := packet.Delta(packet.Fold(uint32(fold(sum, carry)) + 0xfeff))
	binary.BigEndian.PutUint16(h[ipv4Checksum:], change.Apply(binary.BigEndian.Uint16(h[ipv4Checksum:])))
}

// Package translate changes the addresses and ports of a packet where it lies,
// also from IPv4 to IPv6 and back, and those of an ICMP error with the packet
// that it quotes.
//
// The problem it solves: NAT between two families is a translation of one
// protocol into the other (RFC 7915), full of rules for fragments, options,
// lengths and errors, and a checksum forgotten anywhere loses the packet where
// nobody looks. So all of it is here, and pure: the caller knows the flow and
// says what its packets turn into, and nothing is looked up, kept or sent.
//
// Nothing that the RFC leaves to a translator's state is needed. See
// [Change.Packet] for the one thing that is solved differently, the IPv4
// identification.
package translate

import (
	"encoding/binary"
	"math/bits"

	"weir/dataplane/packet"
	"weir/dataplane/queue"
	"weir/dataplane/stats"
)

// maxPacket is the longest packet that both versions of IP can describe.
const maxPacket = 0xffff

// Change is what NAT does to the packets of one direction of one flow.
type Change struct {
	// Src and Dst are the new addresses, both of one family. IPv4 addresses
	// are IPv4-mapped, as in packet.Tuple.
	Src, Dst [16]byte

	SrcPort, DstPort uint16

	// Delta is what all that does to a TCP or UDP checksum.
	Delta packet.Delta

	// MSS is the largest maximum segment size to let through in a segment
	// with SYN, in bytes; 0 for any. A segment without the option is left
	// without: adding it would move the payload, and its absence already
	// means 536 bytes for IPv4 and 1220 for IPv6 (RFC 9293 §3.7.1). A
	// receiver behind IPv6 thus takes an IPv4 sender's silence for 1220,
	// which any path has room for.
	MSS uint16
}

// Set makes c the change from one tuple to another, of one flow. mss is Change.MSS.
func (c *Change) Set(from, to *packet.Tuple, mss uint16) {
	c.Src, c.SrcPort = to.Src, to.SrcPort
	c.Dst, c.DstPort = to.Dst, to.DstPort
	c.Delta, c.MSS = Delta(from, to), mss
}

// Delta returns what the change of a tuple does to a TCP or UDP checksum. The
// pseudo-headers of IPv4 and IPv6 differ in the addresses alone, and the prefix
// of an IPv4-mapped address adds 0xffff, which is zero in one's complement. So
// it does not matter which family the tuples are of.
func Delta(from, to *packet.Tuple) packet.Delta {
	be := binary.BigEndian
	a, c := bits.Add64(^be.Uint64(from.Src[0:]), ^be.Uint64(from.Src[8:]), 0)
	a, c = bits.Add64(a, ^be.Uint64(from.Dst[0:]), c)
	a, c = bits.Add64(a, ^be.Uint64(from.Dst[8:]), c)
	a, c = bits.Add64(a, be.Uint64(to.Src[0:]), c)
	a, c = bits.Add64(a, be.Uint64(to.Src[8:]), c)
	a, c = bits.Add64(a, be.Uint64(to.Dst[0:]), c)
	a, c = bits.Add64(a, be.Uint64(to.Dst[8:]), c)
	a, c = bits.Add64(a, ^uint64(ports(from)), c)
	a, c = bits.Add64(a, uint64(ports(to)), c)
	return packet.Delta(fold(a, c))
}

func ports(t *packet.Tuple) uint32 { return uint32(t.SrcPort)<<16 | uint32(t.DstPort) }

// fold brings a one's-complement sum of 64-bit words down to 16 bits (RFC 1071
// §2(C)).
func fold(sum, carry uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff + carry
	sum = sum>>32 + sum&0xffffffff
	return packet.Fold(uint32(sum))
}

// Grown returns the length in bytes of the IP packet that Change.Packet makes
// of the one that p describes. A sender whose packet is too big has to be told
// of an MTU that is less by how much the packet grew.
func Grown(p *packet.Parsed, toIPv6 bool) uint32 {
	payload := p.End - p.L4
	switch {
	case (p.Kind == packet.KindIPv6) == toIPv6:
		return p.End - p.L3
	case !toIPv6:
		return packet.IPv4MinLen + payload
	case p.Fragment:
		return packet.IPv6Len + packet.IPv6FragmentLen + payload
	}
	return packet.IPv6Len + payload
}

// Packet translates the packet in f, a whole TCP or UDP one or a fragment of
// one; p is what Decode made of it, without a Problem. l3 is where the IP header
// begins in f.Buf afterwards; it may be up to 14 bytes before f.Start, so that
// queue.Headroom leaves room for a link header. f.End is trimmed to the packet's
// end. f.Start is left for the caller, who writes the link header before l3.
//
// mtu is the largest IP packet that may leave. If the packet may not go out,
// the reason is returned and f left as it was: in this order
// stats.TTLExpired, stats.TooBig, and stats.Untranslatable.
//
// From IPv4 to IPv6 (RFC 7915 §4.1) options are dropped, but a source route not
// yet used up is not. There is a fragment header in fragments alone: a packet
// without Don't Fragment gets none as long as it is whole, as §4 demands. If it
// is too big, it is for the caller to cut it first. A UDP datagram without
// checksum gets one if it is whole, and is untranslatable if not (§4.5).
//
// From IPv6 to IPv4 (§5.1) extension headers are dropped, but those behind a
// fragment header are not, since its offset counts them. Don't Fragment is set
// in packets of more than 1260 bytes; others may be cut further on, by a link
// of less than IPv6's least MTU. So they need an identification, for which §5.1
// wants a generator. Here it is the TCP or UDP checksum: it differs from packet
// to packet like a random number does, is the same only for packets that repeat
// each other, or one time in 65,536, and needs no state. A counter would be
// little better, and can be guessed: it repeats itself as soon as 65,536 packets
// are sent in the time that a fragment may wait (RFC 4963).
//
// A first fragment has the transport header and is changed like a whole packet,
// in the others only the IP header is.
func (c *Change) Packet(f *queue.Frame, p *packet.Parsed, mtu uint32) (l3 uint32, reason stats.Reason) {
	toIPv6 := !packet.IsMapped(c.Dst)
	if reason := check(f, p, toIPv6, mtu); reason != stats.ReasonNone {
		return 0, reason
	}
	f.End = f.Start + p.End
	if !p.Fragment || p.FragmentFirst {
		c.transport(f.Buf[f.Start+p.L4:f.End], p)
	}
	l4 := f.Start + p.L4
	switch {
	case p.Kind == packet.KindIPv4 && toIPv6:
		if p.Fragment {
			fragment := fragment6(f.Buf[f.Start+p.L3:])
			return to6(f, p, l4, p.Proto, &fragment, c.Src, c.Dst), stats.ReasonNone
		}
		return to6(f, p, l4, p.Proto, nil, c.Src, c.Dst), stats.ReasonNone
	case p.Kind == packet.KindIPv6 && !toIPv6:
		var id uint16
		if !p.Fragment {
			id = identification(f.Buf[l4:f.End], p.Proto)
		}
		return to4(f, p, l4, p.Proto, id, c.Src, c.Dst), stats.ReasonNone
	}
	return forward(f, p, c.Src, c.Dst), stats.ReasonNone
}

// check reports why the packet may not be translated.
func check(f *queue.Frame, p *packet.Parsed, toIPv6 bool, mtu uint32) stats.Reason {
	switch {
	case p.TTL <= 1:
		return stats.TTLExpired
	case Grown(p, toIPv6) > min(mtu, maxPacket):
		return stats.TooBig
	case p.Proto != packet.ProtoTCP && p.Proto != packet.ProtoUDP,
		p.Kind != packet.KindIPv4 && p.Kind != packet.KindIPv6:
		return stats.Untranslatable
	case (p.Kind == packet.KindIPv6) == toIPv6:
		return stats.ReasonNone
	}
	header := f.Buf[f.Start+p.L3 : f.Start+p.L4]
	if toIPv6 {
		unsummed := p.Proto == packet.ProtoUDP && p.FragmentFirst &&
			packet.UDP(f.Buf[f.Start+p.L4:]).Checksum() == 0
		if unsummed || len(header) > packet.IPv4MinLen && sourceRouted(header) {
			return stats.Untranslatable
		}
		return stats.ReasonNone
	}
	if len(header) > packet.IPv6Len && !fits4(header, p) {
		return stats.Untranslatable
	}
	return stats.ReasonNone
}

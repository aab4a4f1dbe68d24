package translate

import (
	"encoding/binary"
	"math/bits"

	"weir/dataplane/packet"
	"weir/dataplane/queue"
)

// atomicAbove is the length in bytes up to which an IPv4 packet made of an IPv6
// one may be fragmented on its way: IPv6's least MTU, less the difference of
// the headers (RFC 7915 §5.1).
const atomicAbove = 1260

// forward changes the addresses of a packet that stays of its family, takes one
// hop off, and returns where the packet begins in f.Buf.
func forward(f *queue.Frame, p *packet.Parsed, src, dst [16]byte) (l3 uint32) {
	l3 = f.Start + p.L3
	if p.Kind == packet.KindIPv4 {
		h := packet.IPv4(f.Buf[l3:f.End])
		h.DecrementTTL()
		setAddrs4(h, src, dst)
		return l3
	}
	h := packet.IPv6(f.Buf[l3:f.End])
	h.DecrementHopLimit()
	h.SetSrc(src)
	h.SetDst(dst)
	return l3
}

// setAddrs4 sets the addresses of an IPv4 header and adjusts its checksum.
func setAddrs4(h packet.IPv4, src, dst [16]byte) {
	const at = 12 // of both addresses, which follow each other
	before := binary.BigEndian.Uint64(h[at:])
	after := uint64(binary.BigEndian.Uint32(src[12:]))<<32 | uint64(binary.BigEndian.Uint32(dst[12:]))
	binary.BigEndian.PutUint64(h[at:], after)
	sum, carry := bits.Add64(^before, after, 0)
	h.SetChecksum(packet.Delta(fold(sum, carry)).Apply(h.Checksum()))
}

// to6 replaces the IPv4 header of a packet by an IPv6 one that ends at l4, an
// offset in f.Buf, takes one hop off, and returns where the packet begins. What
// follows up to f.End is left alone. fragment is nil for a whole packet (RFC
// 7915 §4.1).
func to6(f *queue.Frame, p *packet.Parsed, l4 uint32, proto uint8, fragment *packet.IPv6FragmentFields, src, dst [16]byte) (l3 uint32) {
	h := packet.IPv6Fields{
		TrafficClass: p.TrafficClass, NextHeader: proto, HopLimit: p.TTL - 1, Src: src, Dst: dst,
		PayloadLength: uint16(f.End - l4),
	}
	return put6(f.Buf, l4, &h, fragment)
}

// put6 writes h so that it ends at l4, with fragment behind it unless that is
// nil, and returns where h begins.
func put6(buf []byte, l4 uint32, h *packet.IPv6Fields, fragment *packet.IPv6FragmentFields) uint32 {
	if fragment != nil {
		l4 -= packet.IPv6FragmentLen
		packet.IPv6Fragment(buf[l4:]).Encode(fragment)
		h.NextHeader = packet.ProtoFragment
		h.PayloadLength += packet.IPv6FragmentLen
	}
	l3 := l4 - packet.IPv6Len
	packet.IPv6(buf[l3:]).Encode(h)
	return l3
}

// fragment6 returns the fragment header of a packet that was a fragment with
// the header h (RFC 7915 §4.1).
func fragment6(h packet.IPv4) packet.IPv6FragmentFields {
	return packet.IPv6FragmentFields{
		NextHeader: h.Protocol(), Offset: h.FragmentOffset(),
		More: h.Flags()&packet.IPv4MoreFragments != 0, ID: uint32(h.ID()),
	}
}

// to4 replaces the IPv6 headers of a packet by an IPv4 one that ends at l4, an
// offset in f.Buf, takes one hop off, and returns where the packet begins. What
// follows up to f.End is left alone. id is the identification of a packet that
// brings none (RFC 7915 §5.1).
func to4(f *queue.Frame, p *packet.Parsed, l4 uint32, proto uint8, id uint16, src, dst [16]byte) (l3 uint32) {
	h := packet.IPv4Fields{
		TOS: p.TrafficClass, TTL: p.TTL - 1, Protocol: proto, ID: id,
		TotalLength: uint16(f.End - l4 + packet.IPv4MinLen),
		Src:         packet.Unmapped(src), Dst: packet.Unmapped(dst),
	}
	return put4(f.Buf, l4, &h, packet.IPv6(f.Buf[f.Start+p.L3:]), p.L4-p.L3)
}

// put4 writes h so that it ends at l4. old is the IPv6 header that it replaces,
// with its extension headers of headersLen bytes in all; it may overlap what is
// written. put4 returns where h begins.
func put4(buf []byte, l4 uint32, h *packet.IPv4Fields, old packet.IPv6, headersLen uint32) uint32 {
	if at := old.FragmentAt(int(headersLen)); at != 0 {
		fragment := packet.IPv6Fragment(old[at:])
		h.ID, h.Offset = uint16(fragment.ID()), fragment.Offset()
		if fragment.More() {
			h.Flags = packet.IPv4MoreFragments
		}
	} else if h.TotalLength > atomicAbove {
		h.Flags = packet.IPv4DontFragment
	}
	l3 := l4 - packet.IPv4MinLen
	packet.IPv4(buf[l3:]).Encode(h)
	return l3
}

// fits4 reports whether an IPv6 packet with these headers can be one of IPv4:
// there is nothing between a fragment header and the payload, and the datagram
// is not too long once reassembled.
func fits4(headers packet.IPv6, p *packet.Parsed) bool {
	at := headers.FragmentAt(len(headers))
	if at == 0 {
		return true
	}
	end := uint32(packet.IPv6Fragment(headers[at:]).Offset()) + p.End - p.L4
	return at+packet.IPv6FragmentLen == len(headers) && packet.IPv4MinLen+end <= maxPacket
}

// IPv4 options (RFC 791 §3.1).
const (
	optionEnd         = 0
	optionNop         = 1
	optionLooseRoute  = 131
	optionStrictRoute = 137
	optionRouteMin    = 3 // bytes of a route option without addresses
)

// sourceRouted reports whether an IPv4 header has a source route that does not
// end here: its pointer is not past its last address.
func sourceRouted(h packet.IPv4) bool {
	options := h[packet.IPv4MinLen:]
	for len(options) > 1 {
		n := int(options[1])
		switch kind := options[0]; {
		case kind == optionEnd:
			return false
		case kind == optionNop:
			n = 1
		case n < 2 || n > len(options):
			return false // malformed: nothing that follows means anything
		case (kind == optionLooseRoute || kind == optionStrictRoute) && n >= optionRouteMin:
			if options[2] <= options[1] {
				return true
			}
		}
		options = options[n:]
	}
	return false
}

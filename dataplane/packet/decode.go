package packet

import (
	"encoding/binary"
	"math/bits"
)

// Kind is what a frame carries.
type Kind uint8

// The kinds of frames. KindOther is everything that weir has no use for.
const (
	KindOther Kind = iota
	KindIPv4
	KindIPv6
	KindARP
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case KindOther:
		return "other"
	case KindIPv4:
		return "ipv4"
	case KindIPv6:
		return "ipv6"
	case KindARP:
		return "arp"
	}
	return "invalid kind"
}

// Problem is why a frame cannot be trusted. Decode stops at the first.
type Problem uint8

// The problems a frame can have.
const (
	ProblemNone        Problem = iota
	ProblemTruncated           // shorter than its headers, or than the IP length says
	ProblemMalformed           // a field contradicts another one or the standard
	ProblemBadChecksum         // the IPv4 header checksum is wrong
	ProblemVLAN                // more than one tag, or a service tag
	ProblemExtension           // the IPv6 extension headers are too many, out of place or unknown
)

// String returns the problem's name.
func (p Problem) String() string {
	switch p {
	case ProblemNone:
		return "none"
	case ProblemTruncated:
		return "truncated"
	case ProblemMalformed:
		return "malformed"
	case ProblemBadChecksum:
		return "bad checksum"
	case ProblemVLAN:
		return "stacked vlan tags"
	case ProblemExtension:
		return "unusable extension headers"
	}
	return "invalid problem"
}

// maxExtensions is how many IPv6 extension headers are walked. RFC 8504 §5.3
// lets a node limit it; no honest sender comes near.
const maxExtensions = 8

// Parsed is what Decode finds in a frame. Its owner reuses one for all frames.
//
// Always L3 <= L4 <= End <= the frame's length. With a Problem, what comes
// before the fault is filled in, as far as it goes: the addresses if the fixed
// IP header was there, the ports if the fixed TCP or UDP header was. The rest
// is zero.
type Parsed struct {
	// Tuple has Src, Dst and Proto for every IP packet, and the ports for TCP
	// and UDP with a complete header. Proto is that of the last header of an
	// IPv6 chain; in a fragment that is not the first, it is the protocol that
	// the fragment header names.
	Tuple

	Kind    Kind
	Problem Problem

	// Flow is true of a whole TCP or UDP packet without a Problem, but not of one
	// in IPv6 that has an IPv4-mapped address, which has no place on a link (RFC
	// 4942 section 2.2): Tuple is its flow's.
	Flow bool

	Tagged bool   // with an 802.1Q tag
	VLAN   uint16 // VLAN ID, 12 bits, only if Tagged

	// Offsets in the frame given to Decode. L4 of a fragment that is not the
	// first is where its payload starts. End is one past the last byte that
	// the IP length covers, or the ARP message; padding lies after it. Where
	// there is no IP, L4 is End for ARP and L3 for everything else.
	L3, L4, End uint32

	TCPSequence   uint32
	TrafficClass  uint8 // type of service or traffic class
	TTL           uint8 // time to live or hop limit
	DontFragment  bool  // the IPv4 flag; always true for IPv6
	Fragment      bool  // a fragment of a larger datagram; not an atomic one (RFC 6946)
	FragmentFirst bool  // the fragment at offset 0
	TCPFlags      uint8
	ICMPType      uint8
	ICMPCode      uint8
}

// Decode reads frame, an Ethernet frame without its check sequence, and
// overwrites all of p. It never reads outside frame, and keeps nothing of it.
// Transport checksums are not verified; the IPv4 header's is.
func (p *Parsed) Decode(frame []byte) {
	*p = Parsed{}
	if len(frame) >= plainMinLen {
		switch binary.BigEndian.Uint16(frame[ethType:]) {
		case EtherTypeIPv4:
			if p.decodePlain4(frame) {
				return
			}
		case EtherTypeIPv6:
			if p.decodePlain6(frame) {
				return
			}
		}
	}
	p.decode(frame)
}

// decode is Decode for any frame; p has been cleared.
func (p *Parsed) decode(frame []byte) {
	if len(frame) < EthernetLen {
		p.stop(ProblemTruncated, 0, frame)
		return
	}
	off := EthernetLen
	kind := binary.BigEndian.Uint16(frame[ethType:])
	if kind == EtherTypeVLAN {
		if len(frame) < EthernetLen+VLANTagLen {
			p.stop(ProblemTruncated, off, frame)
			return
		}
		tag := VLANTag(frame[EthernetLen:])
		p.Tagged, p.VLAN = true, tag.ID()
		kind = tag.Type()
		off += VLANTagLen
	}
	switch kind {
	case EtherTypeIPv4:
		p.decodeIPv4(frame, off)
	case EtherTypeIPv6:
		p.decodeIPv6(frame, off)
	case EtherTypeARP:
		p.decodeARP(frame, off)
	case EtherTypeVLAN, EtherTypeQinQ:
		p.stop(ProblemVLAN, off, frame)
	default:
		p.stop(ProblemNone, off, frame)
	}
}

// stop ends the decoding of a frame of which nothing is known behind off.
func (p *Parsed) stop(why Problem, off int, frame []byte) {
	p.Problem = why
	p.L3, p.L4, p.End = uint32(off), uint32(off), uint32(len(frame))
}

func (p *Parsed) decodeARP(frame []byte, off int) {
	p.Kind = KindARP
	if len(frame)-off < ARPLen {
		p.stop(ProblemTruncated, off, frame)
		return
	}
	if !ARP(frame[off:]).IsEthernetIPv4() {
		p.stop(ProblemMalformed, off, frame)
		return
	}
	p.L3, p.L4, p.End = uint32(off), uint32(off+ARPLen), uint32(off+ARPLen)
}

func (p *Parsed) decodeIPv4(frame []byte, off int) {
	p.Kind = KindIPv4
	if len(frame)-off < IPv4MinLen {
		p.stop(ProblemTruncated, off, frame)
		return
	}
	// The header is read in words, as they lie in memory, lowest byte first.
	h := (*[IPv4MinLen]byte)(frame[off:])
	head, tail := binary.LittleEndian.Uint64(h[0:]), binary.LittleEndian.Uint64(h[ipv4TTL:])
	dst := binary.LittleEndian.Uint32(h[ipv4Dst:])
	binary.LittleEndian.PutUint64(p.Src[8:], mappedWord|tail>>32<<32)
	binary.LittleEndian.PutUint64(p.Dst[8:], mappedWord|uint64(dst)<<32)
	p.TrafficClass = uint8(head >> (8 * ipv4TOS))
	p.TTL = uint8(tail)
	proto := uint8(tail >> 8)
	p.Proto = proto

	headerLen := int(head&0x0f) * 4
	total := int(bits.ReverseBytes16(uint16(head >> (8 * ipv4TotalLen))))
	switch {
	case head>>4&0x0f != 4 || headerLen < IPv4MinLen || total < headerLen:
		p.stop(ProblemMalformed, off, frame)
		return
	case total > len(frame)-off:
		p.stop(ProblemTruncated, off, frame)
		return
	case headerLen == IPv4MinLen && !ipv4SumOK(head, tail, dst),
		headerLen != IPv4MinLen && Checksum(frame[off:off+headerLen], 0) != 0:
		p.stop(ProblemBadChecksum, off, frame)
		return
	}
	p.L3, p.L4, p.End = uint32(off), uint32(off+headerLen), uint32(off+total)

	frag := bits.ReverseBytes16(uint16(head >> (8 * ipv4Flags)))
	p.DontFragment = frag&IPv4DontFragment != 0
	if frag&(IPv4MoreFragments|ipv4OffsetMask) != 0 {
		at := int(frag&ipv4OffsetMask) * 8
		if !p.decodeFragment(at, headerLen) {
			return
		}
	}
	p.decodeTransport(frame[off+headerLen:off+total], proto, ProtoICMPv4)
}

// decodeFragment notes a fragment at offset at, and reports whether a transport
// header is to be looked for. headers is how much of the reassembled packet's
// maximum of 65,535 bytes goes to headers.
func (p *Parsed) decodeFragment(at, headers int) bool {
	p.Fragment, p.FragmentFirst = true, at == 0
	if headers+at+int(p.End-p.L4) > 0xffff {
		p.Problem = ProblemMalformed
		return false
	}
	return at == 0
}

func (p *Parsed) decodeIPv6(frame []byte, off int) {
	p.Kind = KindIPv6
	if len(frame)-off < IPv6Len {
		p.stop(ProblemTruncated, off, frame)
		return
	}
	h := (*[IPv6Len]byte)(frame[off:])
	p.Src = [16]byte(h[ipv6Src:])
	p.Dst = [16]byte(h[ipv6Dst:])
	p.TrafficClass = h[0]<<4 | h[1]>>4
	p.TTL = h[ipv6HopLimit]
	p.Proto = h[ipv6NextHeader]
	p.DontFragment = true
	if h[ipv6VersionClassLabel]>>4 != 6 {
		p.stop(ProblemMalformed, off, frame)
		return
	}
	end := off + IPv6Len + int(binary.BigEndian.Uint16(h[ipv6PayloadLen:]))
	if end > len(frame) {
		p.stop(ProblemTruncated, off, frame)
		return
	}
	p.L3, p.L4, p.End = uint32(off), uint32(off+IPv6Len), uint32(end)
	if p.decodeExtensions(frame[:end]) {
		p.decodeTransport(frame[p.L4:end], p.Proto, ProtoICMPv6)
		p.Flow = p.Flow && !IsMapped(p.Src) && !IsMapped(p.Dst)
	}
}

// decodeTransport reads the header that b, the bytes from L4 to End, begins
// with. icmp is the protocol that is ICMP in this version of IP.
func (p *Parsed) decodeTransport(b []byte, proto, icmp uint8) {
	switch proto {
	case ProtoTCP:
		if len(b) < TCPMinLen {
			p.Problem = ProblemTruncated
			return
		}
		p.setPorts(b)
		p.TCPSequence = binary.BigEndian.Uint32(b[tcpSeq:])
		p.TCPFlags = b[tcpFlags]
		if n := int(b[tcpDataOffset]>>4) * 4; n < TCPMinLen || n > len(b) {
			p.Problem = ProblemMalformed
			return
		}
		p.Flow = !p.Fragment
	case ProtoUDP:
		if len(b) < UDPLen {
			p.Problem = ProblemTruncated
			return
		}
		p.setPorts(b)
		// The first fragment has the length of the whole datagram.
		n := int(binary.BigEndian.Uint16(b[udpLength:]))
		if n < UDPLen || n > len(b) && !p.Fragment {
			p.Problem = ProblemMalformed
			return
		}
		p.Flow = !p.Fragment
	case icmp:
		if len(b) < ICMPLen {
			p.Problem = ProblemTruncated
			return
		}
		p.ICMPType, p.ICMPCode = b[icmpType], b[icmpCode]
	}
}

// setPorts reads the ports that a TCP or UDP header begins with. They are written
// in one piece, as they are read when the tuple is hashed: a load of what was
// stored in two has to wait for both to reach the cache.
func (p *Parsed) setPorts(b []byte) {
	ports := bits.RotateLeft32(bits.ReverseBytes32(binary.LittleEndian.Uint32(b)), 16)
	p.SrcPort = uint16(ports)
	p.DstPort = uint16(ports >> 16)
}

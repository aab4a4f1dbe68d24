package packet

import (
	"encoding/binary"
	"math/bits"
)

// Nearly all frames are of the same shape: untagged, IPv4 without options or IPv6
// without extension headers, TCP or UDP, whole, and right. Every field of those is
// at a place that is known before, so that they are read in few steps. What is not
// of that shape, or wrong, is left to the general decoder, which says the same of
// these frames; FuzzDecode compares the two.

// Where the headers of such frames begin, and how long one is at the least: what is
// shorter Ethernet has padded.
const (
	plain4L3 = EthernetLen
	plain4L4 = plain4L3 + IPv4MinLen
	plain6L4 = plain4L3 + IPv6Len

	plainMinLen = plain4L4 + TCPMinLen
)

// In the first word of an IPv4 header, read lowest byte first: version and header
// length, flags and fragment offset but for Don't Fragment, and what they are in
// these frames.
const (
	plain4Mask  = 0xff3f_0000_0000_00ff &^ (0x40 << 48)
	plain4Value = 4<<4 | IPv4MinLen/4
)

// decodePlain4 decodes a frame with an IPv4 packet if it is of that shape; p is
// clear. Else it does nothing and returns false.
func (p *Parsed) decodePlain4(frame []byte) bool {
	if len(frame) < plain4L4+TCPMinLen {
		return false
	}
	h := (*[plain4L4 + TCPMinLen]byte)(frame)
	head, tail := binary.LittleEndian.Uint64(h[plain4L3:]), binary.LittleEndian.Uint64(h[plain4L3+ipv4TTL:])
	dst := binary.LittleEndian.Uint32(h[plain4L3+ipv4Dst:])
	total := int(bits.ReverseBytes16(uint16(head >> (8 * ipv4TotalLen))))
	if head&plain4Mask != plain4Value || total > len(frame)-plain4L3 || !ipv4SumOK(head, tail, dst) {
		return false
	}
	proto, transport := uint8(tail>>8), (*[TCPMinLen]byte)(h[plain4L4:])
	switch {
	case proto == ProtoTCP && p.plainTCP(transport, total-IPv4MinLen):
	case proto == ProtoUDP && plainUDP(transport, total-IPv4MinLen):
	default:
		return false
	}
	p.setPorts(transport[:])
	binary.LittleEndian.PutUint64(p.Src[8:], mappedWord|tail>>32<<32)
	binary.LittleEndian.PutUint64(p.Dst[8:], mappedWord|uint64(dst)<<32)
	p.Proto = proto
	p.Kind = KindIPv4
	p.Flow = true
	p.L3, p.L4, p.End = plain4L3, plain4L4, uint32(plain4L3+total)
	p.TrafficClass = uint8(head >> (8 * ipv4TOS))
	p.TTL = uint8(tail)
	p.DontFragment = uint16(head>>(8*ipv4Flags))&(IPv4DontFragment>>8) != 0
	return true
}

// decodePlain6 does the same for IPv6.
func (p *Parsed) decodePlain6(frame []byte) bool {
	if len(frame) < plain6L4+TCPMinLen {
		return false
	}
	h := (*[plain6L4 + TCPMinLen]byte)(frame)
	payload := int(binary.BigEndian.Uint16(h[plain4L3+ipv6PayloadLen:]))
	if h[plain4L3]>>4 != 6 || payload > len(frame)-plain6L4 {
		return false
	}
	proto, transport := h[plain4L3+ipv6NextHeader], (*[TCPMinLen]byte)(h[plain6L4:])
	switch {
	case proto == ProtoTCP && p.plainTCP(transport, payload):
	case proto == ProtoUDP && plainUDP(transport, payload):
	default:
		return false
	}
	p.setPorts(transport[:])
	p.Src = [16]byte(h[plain4L3+ipv6Src:])
	p.Dst = [16]byte(h[plain4L3+ipv6Dst:])
	p.Proto = proto
	p.Kind = KindIPv6
	p.Flow = !IsMapped(p.Src) && !IsMapped(p.Dst)
	p.L3, p.L4, p.End = plain4L3, plain6L4, uint32(plain6L4+payload)
	p.TrafficClass = h[plain4L3]<<4 | h[plain4L3+1]>>4
	p.TTL = h[plain4L3+ipv6HopLimit]
	p.DontFragment = true
	return true
}

// plainTCP and plainUDP read the header of such a packet; length is how many bytes
// there are from its beginning to the end of the packet. If it is wrong they do
// nothing and return false. They are two so that the compiler can inline them.

func (p *Parsed) plainTCP(b *[TCPMinLen]byte, length int) bool {
	if n := int(b[tcpDataOffset]>>4) * 4; n < TCPMinLen || n > length {
		return false
	}
	p.TCPSequence = binary.BigEndian.Uint32(b[tcpSeq:])
	p.TCPFlags = b[tcpFlags]
	return true
}

func plainUDP(b *[TCPMinLen]byte, length int) bool {
	n := int(binary.BigEndian.Uint16(b[udpLength:]))
	return n >= UDPLen && n <= length
}

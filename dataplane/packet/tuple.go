package packet

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// Tuple names a flow by its addresses, ports and protocol. IPv4 addresses are
// IPv4-mapped (::ffff:a.b.c.d, RFC 4291 §2.5.5.2), so that one type serves
// both families. It is comparable, and can be a map key.
type Tuple struct {
	Src, Dst         [16]byte
	SrcPort, DstPort uint16
	Proto            uint8
}

// String returns the flow as a person writes it, such as
// "tcp 192.0.2.1:1234 → 203.0.113.10:80". A protocol without ports has none,
// unless the tuple does carry some.
func (t Tuple) String() string {
	var proto string
	switch t.Proto {
	case ProtoTCP:
		proto = "tcp"
	case ProtoUDP:
		proto = "udp"
	case ProtoICMPv4:
		proto = "icmp"
	case ProtoICMPv6:
		proto = "icmpv6"
	default:
		proto = "proto-" + strconv.Itoa(int(t.Proto))
	}
	src, dst := NetipAddr(t.Src), NetipAddr(t.Dst)
	if t.Proto != ProtoTCP && t.Proto != ProtoUDP && t.SrcPort|t.DstPort == 0 {
		return proto + " " + src.String() + " → " + dst.String()
	}
	return proto + " " + netip.AddrPortFrom(src, t.SrcPort).String() +
		" → " + netip.AddrPortFrom(dst, t.DstPort).String()
}

// Reverse returns the tuple of the packets that go the other way.
func (t Tuple) Reverse() Tuple {
	return Tuple{Src: t.Dst, Dst: t.Src, SrcPort: t.DstPort, DstPort: t.SrcPort, Proto: t.Proto}
}

// Addr16 returns the 16-byte form that Tuple uses. Zones are dropped; the
// invalid Addr gives all zeros, which is also ::.
func Addr16(a netip.Addr) [16]byte {
	if !a.IsValid() {
		return [16]byte{}
	}
	return a.As16()
}

// NetipAddr is the way back from Addr16: IPv4-mapped addresses are returned as
// IPv4.
func NetipAddr(a [16]byte) netip.Addr { return netip.AddrFrom16(a).Unmap() }

// mappedPrefix is bytes 8 to 11 of an IPv4-mapped address, in the upper half
// of the address's last 8 bytes.
const mappedPrefix = 0x0000ffff << 32

// mappedWord is the same in the lower half of those 8 bytes, read lowest first.
const mappedWord = 0xffff_0000

// Mapped returns the IPv4-mapped form of an IPv4 address.
func Mapped(a [4]byte) (m [16]byte) {
	binary.BigEndian.PutUint64(m[8:], mappedPrefix|uint64(binary.BigEndian.Uint32(a[:])))
	return m
}

// Unmapped returns the last four bytes of a: the IPv4 address, if IsMapped.
func Unmapped(a [16]byte) [4]byte { return [4]byte(a[12:]) }

// IsMapped reports whether a stands for an IPv4 address.
func IsMapped(a [16]byte) bool {
	return binary.BigEndian.Uint64(a[:]) == 0 && binary.BigEndian.Uint64(a[8:])>>32 == mappedPrefix>>32
}

package packet

import (
	"encoding/binary"
	"net"
)

// Lengths of the link headers, in bytes.
const (
	EthernetLen = 14
	VLANTagLen  = 4
)

const (
	ethDst  = 0
	ethSrc  = 6
	ethType = 12
)

// MAC is a 48-bit Ethernet address. It is comparable.
type MAC [6]byte

// MACFrom converts from the standard library's type. It reports false, with
// the zero MAC, when h is not six bytes long.
func MACFrom(h net.HardwareAddr) (MAC, bool) {
	if len(h) != len(MAC{}) {
		return MAC{}, false
	}
	return MAC(h), true
}

// BroadcastMAC returns ff:ff:ff:ff:ff:ff.
func BroadcastMAC() MAC { return MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// MulticastMAC returns the address to which an IPv6 multicast is sent on
// Ethernet (RFC 2464 §7).
func MulticastMAC(group [16]byte) MAC {
	return MAC{0x33, 0x33, group[12], group[13], group[14], group[15]}
}

// HardwareAddr returns a copy as the standard library's type.
func (m MAC) HardwareAddr() net.HardwareAddr { return m[:] }

// IsZero reports whether m is 00:00:00:00:00:00, which no station has.
func (m MAC) IsZero() bool { return m == MAC{} }

// IsMulticast reports whether m is a group address; broadcast is one.
func (m MAC) IsMulticast() bool { return m[0]&1 != 0 }

// String returns m as six colon-separated bytes.
func (m MAC) String() string { return m.HardwareAddr().String() }

// Ethernet is a view of an Ethernet II header (IEEE 802.3 §3.1.1) and what
// follows.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                      Destination Address                      |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|                         Source Address                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           EtherType           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Ethernet []byte

// EthernetFields is the whole of an Ethernet header.
type EthernetFields struct {
	Dst, Src MAC
	Type     uint16
}

// Encode writes the header.
func (b Ethernet) Encode(f *EthernetFields) {
	b.SetDst(f.Dst)
	b.SetSrc(f.Src)
	b.SetType(f.Type)
}

// Dst returns the destination address.
func (b Ethernet) Dst() MAC { return MAC(b[ethDst:]) }

// SetDst sets the destination address.
func (b Ethernet) SetDst(m MAC) { *(*MAC)(b[ethDst:]) = m }

// Src returns the source address.
func (b Ethernet) Src() MAC { return MAC(b[ethSrc:]) }

// SetSrc sets the source address.
func (b Ethernet) SetSrc(m MAC) { *(*MAC)(b[ethSrc:]) = m }

// Type returns the ethertype, or the length of an 802.3 frame if under 0x600.
func (b Ethernet) Type() uint16 { return binary.BigEndian.Uint16(b[ethType:]) }

// SetType sets the ethertype.
func (b Ethernet) SetType(t uint16) { binary.BigEndian.PutUint16(b[ethType:], t) }

// Payload returns what follows the header.
func (b Ethernet) Payload() []byte { return b[EthernetLen:] }

// VLANTag is a view of what follows an ethertype of EtherTypeVLAN: the tag
// control information and the ethertype of the payload (IEEE 802.1Q §9.6).
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| PCP |D|        VLAN ID        |           EtherType           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type VLANTag []byte

const (
	vlanTCI  = 0
	vlanType = 2

	vlanIDMask    = 0x0fff
	vlanDropBit   = 0x1000
	vlanPCPOffset = 13
)

// VLANFields is the whole of a tag.
type VLANFields struct {
	ID           uint16 // 12 bits
	Priority     uint8  // priority code point, 3 bits
	DropEligible bool
	Type         uint16 // ethertype of the payload
}

// Encode writes the tag.
func (b VLANTag) Encode(f *VLANFields) {
	tci := uint16(f.Priority)<<vlanPCPOffset | f.ID&vlanIDMask
	if f.DropEligible {
		tci |= vlanDropBit
	}
	binary.BigEndian.PutUint16(b[vlanTCI:], tci)
	b.SetType(f.Type)
}

// ID returns the VLAN ID, 0 to 4095; 0 means that the tag has only a priority.
func (b VLANTag) ID() uint16 { return binary.BigEndian.Uint16(b[vlanTCI:]) & vlanIDMask }

// SetID sets the VLAN ID, 12 bits, and leaves the priority alone.
func (b VLANTag) SetID(id uint16) {
	tci := binary.BigEndian.Uint16(b[vlanTCI:])
	binary.BigEndian.PutUint16(b[vlanTCI:], tci&^vlanIDMask|id&vlanIDMask)
}

// Priority returns the priority code point, 0 to 7.
func (b VLANTag) Priority() uint8 {
	return uint8(binary.BigEndian.Uint16(b[vlanTCI:]) >> vlanPCPOffset)
}

// SetPriority sets the priority code point, 3 bits, and leaves the rest alone.
func (b VLANTag) SetPriority(p uint8) {
	tci := binary.BigEndian.Uint16(b[vlanTCI:])
	binary.BigEndian.PutUint16(b[vlanTCI:], tci&(vlanDropBit|vlanIDMask)|uint16(p)<<vlanPCPOffset)
}

// DropEligible returns the drop eligible indicator.
func (b VLANTag) DropEligible() bool {
	return binary.BigEndian.Uint16(b[vlanTCI:])&vlanDropBit != 0
}

// Type returns the ethertype of the payload.
func (b VLANTag) Type() uint16 { return binary.BigEndian.Uint16(b[vlanType:]) }

// SetType sets the ethertype of the payload.
func (b VLANTag) SetType(t uint16) { binary.BigEndian.PutUint16(b[vlanType:], t) }

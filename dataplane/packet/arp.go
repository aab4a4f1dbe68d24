package packet

import "encoding/binary"

// ARPLen is the length of an ARP message for IPv4 over Ethernet, in bytes.
const ARPLen = 28

// ARP operations (RFC 826).
const (
	ARPRequest uint16 = 1
	ARPReply   uint16 = 2
)

// ARP is a view of an ARP message for IPv4 over Ethernet (RFC 826).
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|         Hardware Type         |         Protocol Type         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  HW Addr Len  | Proto Addr Len|           Operation           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Sender Hardware Address                    |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |    Sender Protocol Address    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Sender Protocol Address      |    Target Hardware Address    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Target Protocol Address                    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type ARP []byte

const (
	arpKind      = 0 // hardware and protocol type, and both address lengths
	arpOperation = 6
	arpSenderMAC = 8
	arpSenderIP  = 14
	arpTargetMAC = 18
	arpTargetIP  = 24

	// arpEthernetIPv4 is Ethernet (1), IPv4 (0x0800), 6 bytes, 4 bytes: the
	// message's first six bytes.
	arpEthernetIPv4 = 0x0001_0800_0604
)

// ARPFields is the whole of an ARP message.
type ARPFields struct {
	Operation uint16
	SenderMAC MAC
	SenderIP  [4]byte
	TargetMAC MAC
	TargetIP  [4]byte
}

// Encode writes the message.
func (b ARP) Encode(f *ARPFields) {
	binary.BigEndian.PutUint64(b[arpKind:], arpEthernetIPv4<<16|uint64(f.Operation))
	b.SetSenderMAC(f.SenderMAC)
	b.SetSenderIP(f.SenderIP)
	b.SetTargetMAC(f.TargetMAC)
	b.SetTargetIP(f.TargetIP)
}

// IsEthernetIPv4 reports whether the message is for IPv4 over Ethernet; only
// then do the other accessors mean anything.
func (b ARP) IsEthernetIPv4() bool {
	return binary.BigEndian.Uint64(b[arpKind:])>>16 == arpEthernetIPv4
}

// Operation returns ARPRequest, ARPReply or another value.
func (b ARP) Operation() uint16 { return binary.BigEndian.Uint16(b[arpOperation:]) }

// SetOperation sets the operation.
func (b ARP) SetOperation(op uint16) { binary.BigEndian.PutUint16(b[arpOperation:], op) }

// SenderMAC returns the sender's hardware address.
func (b ARP) SenderMAC() MAC { return MAC(b[arpSenderMAC:]) }

// SetSenderMAC sets the sender's hardware address.
func (b ARP) SetSenderMAC(m MAC) { *(*MAC)(b[arpSenderMAC:]) = m }

// SenderIP returns the sender's protocol address.
func (b ARP) SenderIP() [4]byte { return [4]byte(b[arpSenderIP:]) }

// SetSenderIP sets the sender's protocol address.
func (b ARP) SetSenderIP(a [4]byte) { *(*[4]byte)(b[arpSenderIP:]) = a }

// TargetMAC returns the target's hardware address.
func (b ARP) TargetMAC() MAC { return MAC(b[arpTargetMAC:]) }

// SetTargetMAC sets the target's hardware address.
func (b ARP) SetTargetMAC(m MAC) { *(*MAC)(b[arpTargetMAC:]) = m }

// TargetIP returns the target's protocol address.
func (b ARP) TargetIP() [4]byte { return [4]byte(b[arpTargetIP:]) }

// SetTargetIP sets the target's protocol address.
func (b ARP) SetTargetIP(a [4]byte) { *(*[4]byte)(b[arpTargetIP:]) = a }

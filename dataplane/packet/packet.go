// Package packet reads and changes the headers of frames in place: Ethernet,
// 802.1Q, ARP, IPv4, IPv6, TCP, UDP, ICMP and ICMPv6.
//
// The problem it solves: the packet path has some tens of nanoseconds for a
// frame, cannot allocate, and is fed by strangers. So there are two halves.
// [Parsed.Decode] validates a frame once and leaves the result in a struct that
// its owner reuses; a bad frame gives a [Problem] and never an error or a
// panic. The views, such as [IPv4], are byte slices with accessors; they
// validate nothing and rely on somebody having done it, by Decode or by hand.
//
// A view's methods panic when the slice is shorter than the header's fixed
// length, which each type names in a constant (IPv4MinLen and so on). All
// multi-byte fields are in network byte order in the slice and in host order
// at the accessor.
package packet

// Ethertypes, from the IANA registry "IEEE 802 Numbers".
const (
	EtherTypeIPv4 uint16 = 0x0800
	EtherTypeARP  uint16 = 0x0806
	EtherTypeVLAN uint16 = 0x8100 // 802.1Q customer tag
	EtherTypeIPv6 uint16 = 0x86dd
	EtherTypeQinQ uint16 = 0x88a8 // 802.1ad service tag
)

// Protocol numbers, from the IANA registry "Protocol Numbers". In IPv6 they are
// the values of the Next Header field.
const (
	ProtoHopByHop    uint8 = 0
	ProtoICMPv4      uint8 = 1
	ProtoIPv4        uint8 = 4 // IPv4 inside IP, RFC 2003
	ProtoTCP         uint8 = 6
	ProtoUDP         uint8 = 17
	ProtoIPv6        uint8 = 41 // IPv6 inside IP, RFC 2473 and RFC 4213
	ProtoRouting     uint8 = 43
	ProtoFragment    uint8 = 44
	ProtoGRE         uint8 = 47
	ProtoAH          uint8 = 51
	ProtoICMPv6      uint8 = 58
	ProtoNoNext      uint8 = 59
	ProtoDestOptions uint8 = 60
	ProtoMobility    uint8 = 135
	ProtoHIP         uint8 = 139
	ProtoShim6       uint8 = 140
)

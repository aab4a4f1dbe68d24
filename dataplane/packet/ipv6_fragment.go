package packet

import "encoding/binary"

// IPv6FragmentLen is the length of an IPv6 fragment header, in bytes.
const IPv6FragmentLen = extUnit

// IPv6Fragment is a view of an IPv6 fragment header (RFC 8200 §4.5).
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Next Header  |   Reserved    |      Fragment Offset    |Res|M|
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                         Identification                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type IPv6Fragment []byte

const (
	fragmentReserved = 1
	fragmentID       = 4
)

// IPv6FragmentFields is the whole of an IPv6 fragment header.
type IPv6FragmentFields struct {
	NextHeader uint8
	Offset     uint16 // in bytes, a multiple of 8
	More       bool
	ID         uint32
}

// Encode writes the header.
func (b IPv6Fragment) Encode(f *IPv6FragmentFields) {
	field := f.Offset & extFragmentOffset
	if f.More {
		field |= extFragmentMore
	}
	b[extNextHeader] = f.NextHeader
	b[fragmentReserved] = 0
	binary.BigEndian.PutUint16(b[extFragment:], field)
	binary.BigEndian.PutUint32(b[fragmentID:], f.ID)
}

// NextHeader returns the protocol of what follows.
func (b IPv6Fragment) NextHeader() uint8 { return b[extNextHeader] }

// Offset returns the fragment's place in the datagram, in bytes.
func (b IPv6Fragment) Offset() uint16 {
	return binary.BigEndian.Uint16(b[extFragment:]) & extFragmentOffset
}

// More reports whether more fragments follow.
func (b IPv6Fragment) More() bool {
	return binary.BigEndian.Uint16(b[extFragment:])&extFragmentMore != 0
}

// ID returns the identification of the datagram's fragments.
func (b IPv6Fragment) ID() uint32 { return binary.BigEndian.Uint32(b[fragmentID:]) }

// FragmentAt returns the offset in the packet of its fragment header, atomic or
// not, and 0 if it has none. l4 is where the extension headers end, which
// Decode has walked before (Parsed.L4 - Parsed.L3).
func (b IPv6) FragmentAt(l4 int) int {
	next, at := b.NextHeader(), IPv6Len
	for at+extUnit <= l4 {
		if next == ProtoFragment {
			return at
		}
		next, at = b[at+extNextHeader], at+extUnit+int(b[at+extLen])*extUnit
	}
	return 0
}

package packet

import "encoding/binary"

// ICMPLen is the length of the part that all ICMP and ICMPv6 messages used
// here have in common, in bytes.
const ICMPLen = 8

// ICMP types for IPv4 (RFC 792), and a code of ICMPv4Unreachable.
const (
	ICMPv4EchoReply    uint8 = 0
	ICMPv4Unreachable  uint8 = 3
	ICMPv4EchoRequest  uint8 = 8
	ICMPv4TimeExceeded uint8 = 11
	ICMPv4ParamProblem uint8 = 12

	ICMPv4CodeFragNeeded uint8 = 4 // MTU is the next hop's, RFC 1191 §4
)

// ICMPv4 is a view of an ICMP message (RFC 792).
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Type      |     Code      |          Checksum             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|    Identifier, or unused      |    Sequence Number, or MTU    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   Data, or the header and first bytes of the packet at fault  |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type ICMPv4 []byte

const (
	icmpType     = 0
	icmpCode     = 1
	icmpChecksum = 2
	icmpIdent    = 4
	icmpSequence = 6
)

// Type returns the type.
func (b ICMPv4) Type() uint8 { return b[icmpType] }

// SetType sets the type; the checksum is left alone.
func (b ICMPv4) SetType(t uint8) { b[icmpType] = t }

// Code returns the code.
func (b ICMPv4) Code() uint8 { return b[icmpCode] }

// SetCode sets the code; the checksum is left alone.
func (b ICMPv4) SetCode(c uint8) { b[icmpCode] = c }

// Checksum returns the checksum.
func (b ICMPv4) Checksum() uint16 { return binary.BigEndian.Uint16(b[icmpChecksum:]) }

// SetChecksum sets the checksum.
func (b ICMPv4) SetChecksum(c uint16) { binary.BigEndian.PutUint16(b[icmpChecksum:], c) }

// ComputeChecksum returns the checksum that the message, all of b, should have.
func (b ICMPv4) ComputeChecksum() uint16 { return checksumSkipping(b, icmpChecksum, 0) }

// Ident returns an echo's identifier.
func (b ICMPv4) Ident() uint16 { return binary.BigEndian.Uint16(b[icmpIdent:]) }

// SetIdent sets an echo's identifier; the checksum is left alone.
func (b ICMPv4) SetIdent(id uint16) { binary.BigEndian.PutUint16(b[icmpIdent:], id) }

// Sequence returns an echo's sequence number.
func (b ICMPv4) Sequence() uint16 { return binary.BigEndian.Uint16(b[icmpSequence:]) }

// SetSequence sets an echo's sequence number; the checksum is left alone.
func (b ICMPv4) SetSequence(n uint16) { binary.BigEndian.PutUint16(b[icmpSequence:], n) }

// MTU returns the next hop's MTU of a "fragmentation needed", in bytes.
func (b ICMPv4) MTU() uint16 { return binary.BigEndian.Uint16(b[icmpSequence:]) }

// SetMTU sets the next hop's MTU, in bytes; the checksum is left alone.
func (b ICMPv4) SetMTU(n uint16) { binary.BigEndian.PutUint16(b[icmpSequence:], n) }

// Payload returns what follows the first ICMPLen bytes.
func (b ICMPv4) Payload() []byte { return b[ICMPLen:] }

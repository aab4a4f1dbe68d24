package packet

import "encoding/binary"

// UDPLen is the length of a UDP header, in bytes.
const UDPLen = 8

// UDP is a view of a UDP header (RFC 768) and what follows.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Source Port          |       Destination Port        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|            Length             |           Checksum            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type UDP []byte

const (
	udpSrcPort  = 0
	udpDstPort  = 2
	udpLength   = 4
	udpChecksum = 6
)

// UDPFields is a UDP header.
type UDPFields struct {
	SrcPort, DstPort uint16
	Length           uint16 // header and payload, in bytes
	Checksum         uint16 // 0: none, which only IPv4 allows
}

// Encode writes the header.
func (b UDP) Encode(f *UDPFields) {
	b.SetSrcPort(f.SrcPort)
	b.SetDstPort(f.DstPort)
	b.SetLength(f.Length)
	b.SetChecksum(f.Checksum)
}

// SrcPort returns the source port.
func (b UDP) SrcPort() uint16 { return binary.BigEndian.Uint16(b[udpSrcPort:]) }

// SetSrcPort sets the source port; the checksum is left alone.
func (b UDP) SetSrcPort(p uint16) { binary.BigEndian.PutUint16(b[udpSrcPort:], p) }

// DstPort returns the destination port.
func (b UDP) DstPort() uint16 { return binary.BigEndian.Uint16(b[udpDstPort:]) }

// SetDstPort sets the destination port; the checksum is left alone.
func (b UDP) SetDstPort(p uint16) { binary.BigEndian.PutUint16(b[udpDstPort:], p) }

// Length returns the length of header and payload, in bytes.
func (b UDP) Length() uint16 { return binary.BigEndian.Uint16(b[udpLength:]) }

// SetLength sets the length of header and payload, in bytes; the checksum is
// left alone.
func (b UDP) SetLength(n uint16) { binary.BigEndian.PutUint16(b[udpLength:], n) }

// Checksum returns the checksum; 0 means that there is none.
func (b UDP) Checksum() uint16 { return binary.BigEndian.Uint16(b[udpChecksum:]) }

// SetChecksum sets the checksum.
func (b UDP) SetChecksum(c uint16) { binary.BigEndian.PutUint16(b[udpChecksum:], c) }

// ComputeChecksum returns the checksum that the datagram, all of b, should have
// under the given pseudo-header sum. It is never 0.
func (b UDP) ComputeChecksum(pseudo uint32) uint16 {
	return UDPNonZero(checksumSkipping(b, udpChecksum, pseudo))
}

// Payload returns what follows the header, up to the length field.
func (b UDP) Payload() []byte { return b[UDPLen:b.Length()] }

package packet

import "encoding/binary"

// TCPMinLen is the length of a TCP header without options, in bytes.
const TCPMinLen = 20

// TCP flags (RFC 9293 §3.1).
const (
	TCPFin uint8 = 1 << iota
	TCPSyn
	TCPRst
	TCPPsh
	TCPAck
	TCPUrg
	TCPEce
	TCPCwr
)

// TCP is a view of a TCP header (RFC 9293 §3.1) and what follows.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Source Port          |       Destination Port        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                        Sequence Number                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Acknowledgment Number                      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Data |       |C|E|U|A|P|R|S|F|                               |
//	| Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
//	|       |       |R|E|G|K|H|T|N|N|                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           Checksum            |         Urgent Pointer        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                           [Options]                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type TCP []byte

const (
	tcpSrcPort    = 0
	tcpDstPort    = 2
	tcpSeq        = 4
	tcpAck        = 8
	tcpDataOffset = 12
	tcpFlags      = 13
	tcpWindow     = 14
	tcpChecksum   = 16
	tcpUrgent     = 18
)

// SrcPort returns the source port.
func (b TCP) SrcPort() uint16 { return binary.BigEndian.Uint16(b[tcpSrcPort:]) }

// SetSrcPort sets the source port; the checksum is left alone.
func (b TCP) SetSrcPort(p uint16) { binary.BigEndian.PutUint16(b[tcpSrcPort:], p) }

// DstPort returns the destination port.
func (b TCP) DstPort() uint16 { return binary.BigEndian.Uint16(b[tcpDstPort:]) }

// SetDstPort sets the destination port; the checksum is left alone.
func (b TCP) SetDstPort(p uint16) { binary.BigEndian.PutUint16(b[tcpDstPort:], p) }

// Seq returns the sequence number.
func (b TCP) Seq() uint32 { return binary.BigEndian.Uint32(b[tcpSeq:]) }

// SetSeq sets the sequence number; the checksum is left alone.
func (b TCP) SetSeq(n uint32) { binary.BigEndian.PutUint32(b[tcpSeq:], n) }

// Ack returns the acknowledgment number.
func (b TCP) Ack() uint32 { return binary.BigEndian.Uint32(b[tcpAck:]) }

// SetAck sets the acknowledgment number; the checksum is left alone.
func (b TCP) SetAck(n uint32) { binary.BigEndian.PutUint32(b[tcpAck:], n) }

// HeaderLen returns the header's length with options, in bytes.
func (b TCP) HeaderLen() int { return int(b[tcpDataOffset]>>4) * 4 }

// SetHeaderLen sets the header's length with options, in bytes, a multiple of
// 4; the checksum is left alone.
func (b TCP) SetHeaderLen(n int) {
	b[tcpDataOffset] = b[tcpDataOffset]&0x0f | uint8(n/4)<<4
}

// Flags returns the flags, TCPFin to TCPCwr.
func (b TCP) Flags() uint8 { return b[tcpFlags] }

// SetFlags sets the flags; the checksum is left alone.
func (b TCP) SetFlags(f uint8) { b[tcpFlags] = f }

// Window returns the window, unscaled.
func (b TCP) Window() uint16 { return binary.BigEndian.Uint16(b[tcpWindow:]) }

// SetWindow sets the window, unscaled; the checksum is left alone.
func (b TCP) SetWindow(n uint16) { binary.BigEndian.PutUint16(b[tcpWindow:], n) }

// Checksum returns the checksum.
func (b TCP) Checksum() uint16 { return binary.BigEndian.Uint16(b[tcpChecksum:]) }

// SetChecksum sets the checksum.
func (b TCP) SetChecksum(c uint16) { binary.BigEndian.PutUint16(b[tcpChecksum:], c) }

// ComputeChecksum returns the checksum that the segment, all of b, should have
// under the given pseudo-header sum.
func (b TCP) ComputeChecksum(pseudo uint32) uint16 {
	return checksumSkipping(b, tcpChecksum, pseudo)
}

// Urgent returns the urgent pointer.
func (b TCP) Urgent() uint16 { return binary.BigEndian.Uint16(b[tcpUrgent:]) }

// SetUrgent sets the urgent pointer; the checksum is left alone.
func (b TCP) SetUrgent(n uint16) { binary.BigEndian.PutUint16(b[tcpUrgent:], n) }

// Options returns the options with their padding.
func (b TCP) Options() []byte { return b[TCPMinLen:b.HeaderLen()] }

// Payload returns what follows the header.
func (b TCP) Payload() []byte { return b[b.HeaderLen():] }

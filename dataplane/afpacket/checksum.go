package afpacket

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/sys/unix"
)

// finishChecksum completes the TCP or UDP checksum of a frame that comes from a
// host on the same machine, over a veth say. Such a host leaves the checksum to
// the NIC, and there is none on the way (CHECKSUM_PARTIAL in
// include/linux/skbuff.h): the field holds the sum over the pseudo header only,
// not complemented. If weir sent the frame on like that, it would be corrupt.
//
// It returns false, and changes nothing, if the frame is not a whole TCP or UDP
// packet that can be parsed.
func finishChecksum(frame []byte) bool {
	segment, protocol := transport(frame)
	var field int
	switch protocol {
	case unix.IPPROTO_TCP:
		field = 16 // RFC 9293, section 3.1
	case unix.IPPROTO_UDP:
		field = 6 // RFC 768
	default:
		return false
	}
	if len(segment) < field+2 {
		return false
	}
	sum := ^onesSum(segment)
	if sum == 0 {
		sum = 0xffff // equal, and for UDP zero would mean that there is none
	}
	binary.BigEndian.PutUint16(segment[field:], sum)
	return true
}

// transport returns the payload of the IP packet in an Ethernet frame and its
// protocol, or nil and -1. The payload ends where the IP header says, as the
// frame may be padded.
func transport(frame []byte) (payload []byte, protocol int) {
	off, etherType := 12, uint16(0)
	for {
		if len(frame) < off+2 {
			return nil, -1
		}
		etherType = binary.BigEndian.Uint16(frame[off:])
		off += 2
		if etherType != unix.ETH_P_8021Q && etherType != unix.ETH_P_8021AD {
			break
		}
		off += 2
	}
	packet := frame[off:]
	switch etherType {
	case unix.ETH_P_IP:
		return transport4(packet)
	case unix.ETH_P_IPV6:
		return transport6(packet)
	}
	return nil, -1
}

// transport4 is transport for an IPv4 packet (RFC 791, section 3.1). A fragment
// is not a whole packet.
func transport4(packet []byte) ([]byte, int) {
	if len(packet) < 20 {
		return nil, -1
	}
	header := int(packet[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(packet[2:]))
	fragment := binary.BigEndian.Uint16(packet[6:]) &^ 0x4000 // all but "don't fragment"
	if packet[0]>>4 != 4 || header < 20 || total < header || total > len(packet) || fragment != 0 {
		return nil, -1
	}
	return packet[header:total], int(packet[9])
}

// transport6 is transport for an IPv6 packet (RFC 8200, sections 3 and 4).
func transport6(packet []byte) ([]byte, int) {
	if len(packet) < 40 || packet[0]>>4 != 6 {
		return nil, -1
	}
	end := 40 + int(binary.BigEndian.Uint16(packet[4:]))
	if end > len(packet) {
		return nil, -1
	}
	next, rest := int(packet[6]), packet[40:end]
	for next == unix.IPPROTO_HOPOPTS || next == unix.IPPROTO_DSTOPTS || next == unix.IPPROTO_ROUTING {
		if len(rest) < 8 || len(rest) < 8+int(rest[1])*8 {
			return nil, -1
		}
		next, rest = int(rest[0]), rest[8+int(rest[1])*8:]
	}
	return rest, next
}

// onesSum is the ones' complement sum of b as 16-bit words, padded with a zero
// (RFC 1071).
func onesSum(b []byte) uint16 {
	var sum, carry uint64
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	var tail [8]byte
	copy(tail[:], b)
	sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(tail[:]), carry)
	sum, carry = bits.Add64(sum, 0, carry)
	sum += carry
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

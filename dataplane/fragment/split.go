package fragment

import (
	"weir/dataplane/packet"
)

// Bits and kinds of IPv4 options (RFC 791 section 3.1).
const (
	optionEnd    = 0
	optionNop    = 1
	optionCopied = 0x80 // of the type: goes into every fragment

	maxHeaderLen = 60
)

// Splitter yields the fragments of one IPv4 packet, by the procedure of RFC 791
// section 3.2. It is a value that needs no closing; it reads the packet until
// the last fragment has been made.
type Splitter struct {
	packet []byte
	mtu    int
	at     int // of the next byte of payload in packet
	later  [maxHeaderLen]byte
	header int // length of later in bytes
}

// NewSplitter makes a Splitter of packet, a valid IPv4 packet that may be a
// fragment itself, for links of mtu bytes. It yields nothing if the packet has
// Don't Fragment set, or if mtu is below the 68 bytes that every link carries.
// A packet that fits is yielded as it is.
func NewSplitter(p []byte, mtu int) Splitter {
	const leastMTU = 68
	ip := packet.IPv4(p)
	if mtu < leastMTU || ip.Flags()&packet.IPv4DontFragment != 0 {
		return Splitter{}
	}
	s := Splitter{packet: p[:ip.TotalLength()], mtu: mtu}
	s.header = copy(s.later[:], p[:packet.IPv4MinLen])
	for options := p[packet.IPv4MinLen:ip.HeaderLen()]; len(options) > 0 && options[0] != optionEnd; {
		n := 1
		if options[0] != optionNop {
			if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
				break // nobody can tell where the next one is
			}
			n = int(options[1])
		}
		if options[0]&optionCopied != 0 {
			s.header += copy(s.later[s.header:], options[:n])
		}
		options = options[n:]
	}
	s.header = (s.header + 3) &^ 3 // the zeros behind are ends of the list
	s.later[0] = 4<<4 | uint8(s.header/4)
	return s
}

// Next writes the next fragment into dst, for which mtu bytes are enough, and
// returns its length. ok is false after the last one, and when dst is too
// short.
func (s *Splitter) Next(dst []byte) (n int, ok bool) {
	if s.at >= len(s.packet) {
		return 0, false
	}
	ip := packet.IPv4(s.packet)
	whole := ip.HeaderLen()
	header := s.later[:s.header]
	if s.at == 0 {
		header, s.at = s.packet[:whole], whole
	}
	size, flags := len(s.packet)-s.at, ip.Flags()
	if len(header)+size > s.mtu {
		size = (s.mtu - len(header)) &^ (unit - 1)
		flags |= packet.IPv4MoreFragments
	}
	n = len(header) + size
	if n > len(dst) {
		s.packet = nil
		return 0, false
	}
	out := packet.IPv4(dst[:n])
	copy(out, header)
	copy(out[len(header):], s.packet[s.at:s.at+size])
	out.SetTotalLength(uint16(n))
	out.SetFragment(flags, ip.FragmentOffset()+uint16(s.at-whole))
	out.SetChecksum(out.ComputeChecksum())
	s.at += size
	if s.at == len(s.packet) {
		s.packet = nil
	}
	return n, true
}

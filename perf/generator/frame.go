package generator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Offsets in a frame, and lengths.
const (
	ethernetLen = 14
	ipLen       = 20
	tcpLen      = 24 // with one option
	ipAt        = ethernetLen
	transportAt = ipAt + ipLen
)

// sums are the one's complement sums (RFC 1071) over what is the same in all
// frames: the IPv4 header without checksum and source, and what it carries with
// its pseudo-header but without checksum, source address, source port and
// sequence number.
type sums struct{ ip, transport uint32 }

// frame returns what all frames have in common, with zeros for the rest.
func (opt *Options) frame() ([]byte, sums, error) {
	if len(opt.Source) != 6 || len(opt.Destination) != 6 {
		return nil, sums{}, errors.New("source and destination have to be Ethernet addresses")
	}
	if !opt.To.Addr().Is4() {
		return nil, sums{}, fmt.Errorf("send to %s: not an IPv4 address and port", opt.To)
	}
	switch {
	case opt.Flood == netip.Prefix{}:
		if opt.Flows < 1 || opt.Flows > MaxFlows {
			return nil, sums{}, fmt.Errorf("%d flows: from 1 to %d are possible", opt.Flows, MaxFlows)
		}
	case !opt.Flood.IsValid() || !opt.Flood.Addr().Is4():
		return nil, sums{}, fmt.Errorf("flood from %s: not an IPv4 prefix", opt.Flood)
	case opt.Flows != 0:
		return nil, sums{}, fmt.Errorf("%d flows: a flood has none", opt.Flows)
	}
	switch {
	case opt.Beside == 0:
	case !opt.Flood.IsValid() || !opt.SYN:
		return nil, sums{}, fmt.Errorf("%d flows beside a flood: there is none of TCP connection requests", opt.Beside)
	case opt.Beside > MaxFlows:
		return nil, sums{}, fmt.Errorf("%d flows beside the flood: %d are possible", opt.Beside, MaxFlows)
	case opt.Flood.Overlaps(FlowSources()):
		return nil, sums{}, fmt.Errorf("flood from %s: the flows beside it are from %s", opt.Flood, FlowSources())
	}
	b := make([]byte, FrameLen)
	copy(b, opt.Destination)
	copy(b[6:], opt.Source)
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IP)

	proto, transport := uint8(unix.IPPROTO_UDP), b[transportAt:]
	if opt.SYN {
		proto, transport = unix.IPPROTO_TCP, b[transportAt:transportAt+tcpLen] // and two bytes of padding
	}
	ip := b[ipAt:transportAt] // RFC 791, section 3.1
	ip[0] = 4<<4 | ipLen/4
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(transport)))
	ip[8] = 64
	ip[9] = proto
	to := opt.To.Addr().As4()
	copy(ip[16:], to[:])

	binary.BigEndian.PutUint16(transport[2:], opt.To.Port())
	if opt.SYN { // RFC 9293, section 3.1
		transport[12] = tcpLen / 4 << 4
		binary.BigEndian.PutUint16(transport[14:], 65535)
		copy(transport[20:], []byte{2, 4, 1460 >> 8, 1460 & 0xff}) // maximum segment size
	} else { // RFC 768
		binary.BigEndian.PutUint16(transport[4:], uint16(len(transport)))
		copy(transport[8:], "weir measurement")
	}

	pseudo := sum(to[:]) + uint32(proto) + uint32(len(transport))
	return b, sums{sum(ip), fold(sum(transport) + pseudo)}, nil
}

// sources returns the first address of a flood and which of its bits are free.
func (opt *Options) sources() (first, mask uint32) {
	if !opt.Flood.IsValid() {
		return 0, 0
	}
	a := opt.Flood.Masked().Addr().As4()
	return binary.BigEndian.Uint32(a[:]), uint32(1<<(32-opt.Flood.Bits()) - 1)
}

// sum returns the folded sum of an even number of bytes.
func sum(b []byte) uint32 {
	s := uint32(0)
	for ; len(b) > 0; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	return fold(s)
}

func fold(s uint32) uint32 {
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return s
}

package generator

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Offsets in a frame, and lengths.
const (
	ethernetLen = 14
	ipLen       = 20
	ipAt        = ethernetLen
	udpAt       = ipAt + ipLen
)

// sums are the one's complement sums (RFC 1071) over what is the same in all
// frames: the IPv4 header without checksum and source, and the datagram with
// its pseudo-header but without checksum, source address and source port.
type sums struct{ ip, udp uint32 }

// frame returns what all frames have in common, with zeros for the rest.
func (opt *Options) frame() ([]byte, sums, error) {
	if len(opt.Source) != 6 || len(opt.Destination) != 6 {
		return nil, sums{}, errors.New("source and destination have to be Ethernet addresses")
	}
	if !opt.To.Addr().Is4() {
		return nil, sums{}, fmt.Errorf("send to %s: not an IPv4 address and port", opt.To)
	}
	if opt.Flows < 1 || opt.Flows > MaxFlows {
		return nil, sums{}, fmt.Errorf("%d flows: from 1 to %d are possible", opt.Flows, MaxFlows)
	}
	b := make([]byte, FrameLen)
	copy(b, opt.Destination)
	copy(b[6:], opt.Source)
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IP)

	ip := b[ipAt:] // RFC 791, section 3.1
	ip[0] = 4<<4 | ipLen/4
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	ip[8] = 64
	ip[9] = unix.IPPROTO_UDP
	to := opt.To.Addr().As4()
	copy(ip[16:], to[:])

	udp := b[udpAt:] // RFC 768
	binary.BigEndian.PutUint16(udp[2:], opt.To.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	copy(udp[8:], "weir measurement")

	pseudo := sum(to[:]) + unix.IPPROTO_UDP + uint32(len(udp))
	return b, sums{sum(ip[:ipLen]), fold(sum(udp) + pseudo)}, nil
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

package generator

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Lengths of headers, and of a stamp (bpf/stamp.h), in bytes.
const (
	ethernetLen = 14
	ipv4Len     = 20
	ipv6Len     = 40
	udpLen      = 8
	tcpLen      = 20
	synLen      = tcpLen + 4 // with one option
	stampLen    = 16
	mostHead    = 96 // MOST_HEAD in bpf/generator.c
)

const stampMagic = 0x77656972

// kind is what a frame carries behind its IP header.
type kind struct {
	proto     uint8
	headerLen int
}

func datagram() kind { return kind{unix.IPPROTO_UDP, udpLen} }
func segment() kind  { return kind{unix.IPPROTO_TCP, tcpLen} }
func opening() kind  { return kind{unix.IPPROTO_TCP, synLen} }

// head is what frames of one kind have in common: struct head in
// bpf/generator.c. The sums are one's complement sums (RFC 1071) over what is
// the same in all of them: the IPv4 header without checksum and source, and what
// it carries with its pseudo-header but without checksum, the bytes of the
// source that change, source port, sequence number, control bits, and the stamp
// but for its magic number.
type head struct {
	Bytes        [mostHead]byte
	IPSum        uint32
	TransportSum uint32
	Source       uint32
}

// main is what frames are that neither open new connections nor are beside a flood.
func (opt *Options) main() kind {
	switch {
	case opt.SYN:
		return opening()
	case opt.TCP:
		return segment()
	}
	return datagram()
}

// transportAt is where the IP header ends.
func (opt *Options) transportAt() int {
	if opt.To.Addr().Is4() {
		return ethernetLen + ipv4Len
	}
	return ethernetLen + ipv6Len
}

// stampAt is where the stamp is, zero without one.
func (opt *Options) stampAt(k kind) uint32 {
	if !opt.Stamp {
		return 0
	}
	return uint32(opt.transportAt() + k.headerLen)
}

// headLen is how many bytes of a frame have to be written for each, and so the
// least length that it can have.
func (opt *Options) headLen() int {
	headers := opt.main().headerLen
	if opt.SYNShare > 0 {
		headers = max(headers, opening().headerLen)
	}
	n := opt.transportAt() + headers
	if opt.Stamp {
		n += stampLen
	}
	return max(n, FrameLen)
}

// frameLen is the length of all frames.
func (opt *Options) frameLen() (int, error) {
	n := opt.FrameLen
	if n == 0 {
		n = opt.headLen()
	}
	if n < opt.headLen() || n > MaxFrameLen {
		return 0, fmt.Errorf("frames of %d bytes: from %d to %d are possible", n, opt.headLen(), MaxFrameLen)
	}
	return n, nil
}

// frame returns a frame of this kind and length, with zeros for all that
// changes, and its head. The addresses count from source on.
func (opt *Options) frame(k kind, n int, source netip.Addr) ([]byte, head) {
	b := make([]byte, n)
	copy(b, opt.Destination)
	copy(b[6:], opt.Source)
	transport := b[opt.transportAt():]
	if k == opening() {
		transport = transport[:k.headerLen] // and padding
		if opt.Stamp {
			transport = transport[:k.headerLen+stampLen]
		}
	}
	k.fill(transport, opt)

	from, to := source.AsSlice(), opt.To.Addr().AsSlice()
	fixed := len(from) - 4
	h := head{Source: binary.BigEndian.Uint32(from[fixed:])}
	clear(from[fixed:])
	ip := b[ethernetLen:opt.transportAt()]
	if opt.To.Addr().Is4() { // RFC 791, section 3.1
		binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IP)
		ip[0] = 4<<4 | ipv4Len/4
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(transport)))
		ip[8] = 64
		ip[9] = k.proto
		copy(ip[16:], to)
		h.IPSum = sum(ip)
	} else { // RFC 8200, section 3
		binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IPV6)
		ip[0] = 6 << 4
		binary.BigEndian.PutUint16(ip[4:], uint16(len(transport)))
		ip[6] = k.proto
		ip[7] = 64
		copy(ip[8:], from)
		copy(ip[24:], to)
	}
	h.TransportSum = fold(sum(transport) + sum(from) + sum(to) + uint32(k.proto) + uint32(len(transport)))
	copy(h.Bytes[:], b)
	return b, h
}

// fill writes the transport header and the payload.
func (k kind) fill(transport []byte, opt *Options) {
	binary.BigEndian.PutUint16(transport[2:], opt.To.Port())
	payload := transport[k.headerLen:]
	switch k { // RFC 768, and RFC 9293, section 3.1
	case datagram():
		binary.BigEndian.PutUint16(transport[4:], uint16(len(transport)))
	case segment():
		binary.BigEndian.PutUint32(transport[8:], 1) // the server has sent nothing but its SYN, number 0
	case opening():
		copy(transport[tcpLen:], []byte{2, 4, 1460 >> 8, 1460 & 0xff}) // maximum segment size
	}
	if k.proto == unix.IPPROTO_TCP {
		transport[12] = byte(k.headerLen / 4 << 4)
		binary.BigEndian.PutUint16(transport[14:], 65535)
	}
	for rest := payload; len(rest) > 0; {
		rest = rest[copy(rest, "weir measurement"):]
	}
	if opt.Stamp {
		clear(payload[:stampLen])
		binary.BigEndian.PutUint32(payload, stampMagic)
	}
}

// sum returns the folded sum of some bytes, with a zero after an odd one.
func sum(b []byte) uint32 {
	s := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		s += uint32(b[0]) << 8
	}
	return fold(s)
}

func fold(s uint32) uint32 {
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return s
}

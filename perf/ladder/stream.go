package ladder

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"weir/dataplane/forward"
	"weir/dataplane/packet"
	"weir/dataplane/queue"
)

// frameLen is the shortest frame there is, without its check sequence, in bytes.
// An IPv6 packet has the same payload, and is longer.
const frameLen = 60

const udpPayload = frameLen - packet.EthernetLen - packet.IPv4MinLen - packet.UDPLen

// template is a frame, and where in it the packets of different flows differ:
// the last 16 bits of both addresses, and both ports.
type template struct {
	frame      []byte
	src, dst   int // offsets of the addresses' last two bytes
	ports      int // of the source port; the destination port follows
	checksum   int // of TCP or UDP
	identifier int // of the IPv4 header; 0 in IPv6
	sum        uint32
}

// key is what is put into a template.
type key struct{ src, dst, srcPort, dstPort uint16 }

// newTemplate returns the template of packets between two addresses, the last 16
// bits of which do not count.
func newTemplate(to, from packet.MAC, src, dst netip.Addr, proto Protocol, flags uint8) *template {
	l4Len := packet.UDPLen + udpPayload
	number := packet.ProtoUDP
	if proto == TCP {
		l4Len, number = packet.TCPMinLen, packet.ProtoTCP
	}
	ipLen := packet.IPv4MinLen
	if src.Is6() {
		ipLen = packet.IPv6Len
	}
	l3, l4 := packet.EthernetLen, packet.EthernetLen+ipLen
	t := &template{frame: make([]byte, max(l4+l4Len, frameLen)), ports: l4}

	transport := t.frame[l4 : l4+l4Len]
	if proto == TCP {
		tcp := packet.TCP(transport)
		tcp.SetHeaderLen(packet.TCPMinLen)
		tcp.SetFlags(flags)
		tcp.SetWindow(65535)
		// The first packet of a connection, or the one after it: the next in
		// sequence.
		if tcp.SetSeq(1000); flags&packet.TCPSyn == 0 {
			tcp.SetSeq(1001)
			tcp.SetAck(2001)
		}
		t.checksum = l4 + 16 // RFC 9293 section 3.1
	} else {
		packet.UDP(transport).Encode(&packet.UDPFields{Length: uint16(l4Len)})
		copy(transport[packet.UDPLen:], "weir measurement")
		t.checksum = l4 + 6 // RFC 768
	}

	ethernet := packet.EthernetFields{Dst: to, Src: from, Type: packet.EtherTypeIPv4}
	var pseudo uint32
	if src.Is6() {
		ethernet.Type = packet.EtherTypeIPv6
		a, b := zeroed(src), zeroed(dst)
		packet.IPv6(t.frame[l3:]).Encode(&packet.IPv6Fields{
			PayloadLength: uint16(l4Len), NextHeader: number, HopLimit: 64, Src: a, Dst: b,
		})
		t.src, t.dst = l3+22, l3+38 // RFC 8200 section 3
		pseudo = packet.PseudoIPv6(a, b, number, uint32(l4Len))
	} else {
		a, b := packet.Unmapped(zeroed(src)), packet.Unmapped(zeroed(dst))
		// What the addresses do to the header's checksum, the identification makes
		// up for: together they are one's complement zero.
		ip := packet.IPv4(t.frame[l3:l4])
		ip.Encode(&packet.IPv4Fields{
			TotalLength: uint16(ipLen + l4Len), ID: 0xffff, TTL: 64, Protocol: number, Src: a, Dst: b,
		})
		ip.SetChecksum(ip.ComputeChecksum())
		t.src, t.dst, t.identifier = l3+14, l3+18, l3+4 // RFC 791 section 3.1
		pseudo = packet.PseudoIPv4(a, b, number, uint16(l4Len))
	}
	packet.Ethernet(t.frame).Encode(&ethernet)
	t.sum = packet.Sum(transport, pseudo)
	return t
}

// zeroed returns an address without its last 16 bits.
func zeroed(a netip.Addr) [16]byte {
	b := packet.Addr16(a)
	b[14], b[15] = 0, 0
	return b
}

// put makes f the packet with this key. All its checksums are right.
func (t *template) put(f *queue.Frame, k key) {
	f.Start, f.End = queue.Headroom, queue.Headroom+uint32(len(t.frame))
	b := f.Buf[f.Start:f.End]
	copy(b, t.frame)
	addresses := uint32(k.src) + uint32(k.dst)
	if t.identifier != 0 {
		binary.BigEndian.PutUint16(b[t.identifier:], ^packet.Fold(addresses))
	}
	binary.BigEndian.PutUint16(b[t.src:], k.src)
	binary.BigEndian.PutUint16(b[t.dst:], k.dst)
	binary.BigEndian.PutUint32(b[t.ports:], uint32(k.srcPort)<<16|uint32(k.dstPort))
	// UDP sends a computed 0 as 0xffff (RFC 768), which TCP takes for the same.
	sum := ^packet.Fold(t.sum + addresses + uint32(k.srcPort) + uint32(k.dstPort))
	binary.BigEndian.PutUint16(b[t.checksum:], packet.UDPNonZero(sum))
}

// filler makes the next packets.
type filler interface{ fill(frames []queue.Frame) }

// clients makes the packets of many flows, round and round. Which flow is next
// is computed and not looked up, so that nothing but packets is in the cache
// because of it.
type clients struct {
	*template
	port     uint16 // of the services
	services uint64

	// A linear congruential generator modulo the number of flows, a power of two.
	// Its period is that number, so each flow comes once in a round (Knuth, The Art
	// of Computer Programming, volume 2, section 3.2.1.2, theorem A).
	next, factor, step, mask uint32
}

func newClients(t *template, port uint16, c Cell) *clients {
	s := &clients{template: t, port: port, services: uint64(c.Services), factor: 1, step: 1, mask: c.Flows - 1}
	if c.Scattered {
		s.factor, s.step = 1664525, 1013904223 // Numerical Recipes, second edition, section 7.1
	}
	return s
}

func (s *clients) fill(frames []queue.Frame) {
	for i := range frames {
		s.put(&frames[i], s.keyOf(s.next))
		s.next = (s.next*s.factor + s.step) & s.mask
	}
}

// keyOf returns a flow's key. Flows that follow each other are of different
// services.
func (s *clients) keyOf(n uint32) key {
	spread := uint64(n * 0x9e3779b1) // the golden ratio's (Knuth, volume 3, section 6.4)
	return key{src: uint16(n >> 16), dst: uint16(spread * s.services >> 32), srcPort: uint16(n), dstPort: s.port}
}

// answers makes the packets with the given keys, round and round.
type answers struct {
	*template
	keys []key
	next int
}

func (s *answers) fill(frames []queue.Frame) {
	for i := range frames {
		s.put(&frames[i], s.keys[s.next])
		if s.next++; s.next == len(s.keys) {
			s.next = 0
		}
	}
}

// stream is where packets come from.
type stream struct {
	buffers *buffers
	fill    filler
}

// restore makes the packets of some batches, one after the other in the same
// frames. Whatever makes packets calls it, so that restoring is the same in all
// rungs, by itself and with something else.
//
//go:noinline
func (s *stream) restore(frames *[forward.BatchSize]queue.Frame, batches int) {
	for range batches {
		s.buffers.lend(frames[:])
		s.fill.fill(frames[:])
	}
}

// bufferSize is that of the AF_XDP driver, in bytes.
const bufferSize = 2048

// buffers lends packet memory, one batch after the other and round and round.
type buffers struct {
	memory []byte
	batch  int // bytes of the buffers of one
	next   int
}

// newBuffers returns n buffers, which are lent a batch at a time. They ask for
// huge pages, as those of the AF_XDP driver do.
func newBuffers(n, batch int) (*buffers, error) {
	if n < batch {
		return nil, fmt.Errorf("%d buffers: a batch takes %d", n, batch)
	}
	memory, err := unix.Mmap(-1, 0, n*bufferSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d buffers: %w", n, err)
	}
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE)
	clear(memory) // so that no packet waits for a page
	return &buffers{memory: memory, batch: batch * bufferSize}, nil
}

// close gives the memory back.
func (b *buffers) close() error { return unix.Munmap(b.memory) }

// lend gives frames their buffers; there are as many as in a batch, or fewer.
func (b *buffers) lend(frames []queue.Frame) {
	if b.next+b.batch > len(b.memory) {
		b.next = 0
	}
	at := b.next
	for i := range frames {
		frames[i].Buf = b.memory[at : at+bufferSize : at+bufferSize]
		at += bufferSize
	}
	b.next += b.batch
}

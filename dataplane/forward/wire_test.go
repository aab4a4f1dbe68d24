package forward_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/stats"
)

// readFrame is what gopacket reads in a frame of TCP or UDP.
type readFrame struct {
	wire
	payload []byte
}

func reasonName(r int) string { return stats.Reason(r).String() }

// ipOf returns the addresses and protocol of a frame, whether it is a fragment
// and which, and what follows IP.
func ipOf(t *testing.T, frame []byte) (src, dst netip.Addr, proto uint8, payload []byte, at int, more bool) {
	t.Helper()
	if err := packettest.CheckWellFormed(frame); err != nil {
		t.Fatalf("sent %x: %v", frame, err)
	}
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	addr := func(ip []byte) netip.Addr { a, _ := netip.AddrFromSlice(ip); return a }
	if l, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok {
		return addr(l.SrcIP.To4()), addr(l.DstIP.To4()), uint8(l.Protocol), l.Payload, int(l.FragOffset) * 8,
			l.Flags&layers.IPv4MoreFragments != 0
	}
	l, ok := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	if !ok {
		t.Fatalf("sent %x, which is not IP", frame)
	}
	proto, payload = uint8(l.NextHeader), l.Payload
	if proto == packet.ProtoFragment {
		field := binary.BigEndian.Uint16(payload[2:])
		proto, at, more, payload = payload[0], int(field&^7), field&1 != 0, payload[8:]
	}
	return addr(l.SrcIP), addr(l.DstIP), proto, payload, at, more
}

// transport adds the ports of a transport header to addresses.
func transportOf(src, dst netip.Addr, proto uint8, b []byte) wire {
	return wire{
		netip.AddrPortFrom(src, binary.BigEndian.Uint16(b)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:])), proto,
	}
}

// read reads a whole frame of TCP or UDP.
func read(t *testing.T, frame []byte) readFrame {
	t.Helper()
	src, dst, proto, b, at, more := ipOf(t, frame)
	if at != 0 || more || proto != packet.ProtoTCP && proto != packet.ProtoUDP {
		t.Fatalf("sent %x, which is not whole", frame)
	}
	headers := 8
	if proto == packet.ProtoTCP {
		headers = int(b[12]>>4) * 4
	}
	return readFrame{transportOf(src, dst, proto, b), b[headers:]}
}

// join puts the fragments of one datagram of UDP together, in whatever order
// they were sent.
func join(t *testing.T, sent []sentFrame) readFrame {
	t.Helper()
	type piece struct {
		at   int
		more bool
		b    []byte
	}
	var pieces []piece
	var src, dst netip.Addr
	for i, f := range sent {
		s, d, proto, b, at, more := ipOf(t, f.frame)
		if i > 0 && (s != src || d != dst) || proto != packet.ProtoUDP {
			t.Fatalf("fragments from %v to %v and from %v to %v of protocol %d", src, dst, s, d, proto)
		}
		src, dst = s, d
		pieces = append(pieces, piece{at, more, b})
	}
	slices.SortFunc(pieces, func(a, b piece) int { return a.at - b.at })
	var whole []byte
	for i, p := range pieces {
		if p.at != len(whole) || p.more == (i == len(pieces)-1) {
			t.Fatalf("fragment %d of %d is at %d, want %d", i, len(pieces), p.at, len(whole))
		}
		whole = append(whole, p.b...)
	}
	return readFrame{transportOf(src, dst, packet.ProtoUDP, whole), whole[8:]}
}

// readError returns whom an ICMP error goes to, from whom, and what it quotes.
func readError(t *testing.T, frame []byte) (from, to netip.Addr, quoted wire) {
	t.Helper()
	from, to, proto, b, _, _ := ipOf(t, frame)
	if proto != packet.ProtoICMPv4 && proto != packet.ProtoICMPv6 {
		t.Fatalf("sent %x, which is not ICMP", frame)
	}
	b = b[8:]
	addr := func(b []byte) netip.Addr { a, _ := netip.AddrFromSlice(b); return a }
	if proto == packet.ProtoICMPv4 {
		return from, to, transportOf(addr(b[12:16]), addr(b[16:20]), b[9], b[int(b[0]&15)*4:])
	}
	return from, to, transportOf(addr(b[8:24]), addr(b[24:40]), b[6], b[40:])
}

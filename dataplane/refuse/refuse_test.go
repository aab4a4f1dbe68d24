package refuse_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/refuse"
)

func spec(proto uint8, v6 bool, size int) packettest.Spec {
	s := packettest.Spec{
		SrcMAC: packet.MAC{2, 0, 0, 0, 0, 1}, DstMAC: packet.MAC{2, 0, 0, 0, 0, 2},
		Src: netip.MustParseAddrPort("192.0.2.1:4001"), Dst: netip.MustParseAddrPort("203.0.113.10:443"),
		Proto: proto, ID: 0xbeef, TOS: 0x2e, FlowLabel: 0x12345, Payload: make([]byte, size),
	}
	for i := range s.Payload {
		s.Payload[i] = byte(i*7 + 1)
	}
	if v6 {
		s.Src = netip.MustParseAddrPort("[2001:db8::1]:4001")
		s.Dst = netip.MustParseAddrPort("[2001:db8::10]:443")
	}
	return s
}

// guard is how many bytes before and after a frame's buffer are watched.
const guard = 64

// lend puts a packet into a frame with headroom bytes before it and none
// behind.
func lend(b []byte, headroom int) (f queue.Frame, p *packet.Parsed, memory []byte) {
	memory = bytes.Repeat([]byte{0xee}, guard+headroom+len(b)+guard)
	end := guard + headroom + len(b)
	buf := memory[guard:end:end]
	copy(buf[headroom:], b)
	p = new(packet.Parsed)
	p.Decode(b)
	return queue.Frame{Buf: buf, Start: uint32(headroom), End: uint32(headroom + len(b))}, p, memory
}

func checkGuards(t *testing.T, memory []byte) {
	t.Helper()
	for i, b := range memory {
		if b != 0xee && (i < guard || i >= len(memory)-guard) {
			t.Fatal("bytes outside the buffer were written")
		}
	}
}

type builder func(*queue.Frame, *packet.Parsed) bool

func fragmentationNeeded(mtu uint16) builder {
	return func(f *queue.Frame, p *packet.Parsed) bool { return refuse.FragmentationNeeded(f, p, mtu) }
}

func packetTooBig(mtu uint32) builder {
	return func(f *queue.Frame, p *packet.Parsed) bool { return refuse.PacketTooBig(f, p, mtu) }
}

// answer is what an independent decoder makes of a frame.
type answer struct {
	link     []byte
	src, dst netip.Addr
	hops     uint8
	class    uint8
	flags    layers.IPv4Flag
	length   int // of the IP packet
	payload  []byte
}

func read(t *testing.T, b []byte) (a answer) {
	t.Helper()
	if err := packettest.CheckWellFormed(b); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	link := 14
	if b[12] == 0x81 {
		link = 18
	}
	a.link = b[:link]
	a.length = len(b) - link
	parsed := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	if ip, ok := parsed.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok {
		a.src, _ = netip.AddrFromSlice(ip.SrcIP)
		a.dst, _ = netip.AddrFromSlice(ip.DstIP)
		a.hops, a.class, a.flags, a.payload = ip.TTL, ip.TOS, ip.Flags, ip.Payload
		return a
	}
	ip := parsed.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	a.src, _ = netip.AddrFromSlice(ip.SrcIP)
	a.dst, _ = netip.AddrFromSlice(ip.DstIP)
	a.hops, a.class, a.payload = ip.HopLimit, ip.TrafficClass, ip.Payload
	return a
}

func TestErrors(t *testing.T) {
	const tcp, udp = packet.ProtoTCP, packet.ProtoUDP
	with := func(s packettest.Spec, change func(*packettest.Spec)) packettest.Spec {
		change(&s)
		return s
	}
	tagged := func(s *packettest.Spec) { s.VLAN, s.Priority = 100, 3 }
	padded := func(s *packettest.Spec) { s.Padding = 20 }
	for name, test := range map[string]struct {
		spec   packettest.Spec
		build  builder
		header []byte // of the ICMP message, without the checksum
		length int    // of the IP packet
	}{
		"fragmentation needed": {
			spec(tcp, false, 1460), fragmentationNeeded(1400), []byte{3, 4, 0, 0, 0, 0, 0x05, 0x78}, 576},
		"fragmentation needed, tagged": {
			with(spec(udp, false, 1460), tagged), fragmentationNeeded(1400), []byte{3, 4, 0, 0, 0, 0, 0x05, 0x78}, 576},
		"fragmentation needed, short packet": {
			spec(udp, false, 60), fragmentationNeeded(80), []byte{3, 4, 0, 0, 0, 0, 0, 80}, 20 + 8 + 88},
		"fragmentation needed, impossible mtu": {
			spec(udp, false, 60), fragmentationNeeded(0), []byte{3, 4, 0, 0, 0, 0, 0, 68}, 20 + 8 + 88},
		"packet too big": {
			spec(tcp, true, 1440), packetTooBig(1400), []byte{2, 0, 0, 0, 0, 0, 0x05, 0x78}, 1280},
		"packet too big, tagged": {
			with(spec(tcp, true, 1440), tagged), packetTooBig(1460), []byte{2, 0, 0, 0, 0, 0, 0x05, 0xb4}, 1280},
		"packet too big, below the least": {
			spec(udp, true, 1300), packetTooBig(1200), []byte{2, 0, 0, 0, 0, 0, 0x05, 0x00}, 1280},
		"packet too big, large mtu": {
			spec(udp, true, 100), packetTooBig(70000), []byte{2, 0, 0, 0, 0, 1, 0x11, 0x70}, 40 + 8 + 148},
		"port unreachable": {
			spec(udp, false, 5), refuse.PortUnreachable, []byte{3, 3, 0, 0, 0, 0, 0, 0}, 20 + 8 + 33},
		"port unreachable, padded": {
			with(spec(udp, false, 5), padded), refuse.PortUnreachable, []byte{3, 3, 0, 0, 0, 0, 0, 0}, 20 + 8 + 33},
		"port unreachable, options": {
			with(spec(udp, false, 5), func(s *packettest.Spec) { s.IPOptions = 10 }),
			refuse.PortUnreachable, []byte{3, 3, 0, 0, 0, 0, 0, 0}, 20 + 8 + 73},
		"port unreachable, IPv6": {
			spec(udp, true, 5), refuse.PortUnreachable, []byte{1, 4, 0, 0, 0, 0, 0, 0}, 40 + 8 + 53},
		"port unreachable, IPv6 with extension headers": {
			with(spec(udp, true, 5), func(s *packettest.Spec) { s.Extensions = []uint8{packet.ProtoHopByHop, packet.ProtoFragment} }),
			refuse.PortUnreachable, []byte{1, 4, 0, 0, 0, 0, 0, 0}, 40 + 8 + 69},
		"time exceeded": {
			with(spec(udp, false, 5), func(s *packettest.Spec) { s.TTL = 1 }),
			refuse.TimeExceeded, []byte{11, 0, 0, 0, 0, 0, 0, 0}, 20 + 8 + 33},
		"time exceeded, IPv6": {
			with(spec(udp, true, 5), func(s *packettest.Spec) { s.TTL = 1 }),
			refuse.TimeExceeded, []byte{3, 0, 0, 0, 0, 0, 0, 0}, 40 + 8 + 53},
	} {
		t.Run(name, func(t *testing.T) {
			in := packettest.Frame(test.spec)
			f, p, memory := lend(in, queue.Headroom)
			if !refuse.Allowed(p, in) || !test.build(&f, p) {
				t.Fatal("there is no answer")
			}
			checkGuards(t, memory)
			a := read(t, f.Bytes())
			if !bytes.Equal(a.link, in[:p.L3]) {
				t.Errorf("link header %x, want %x", a.link, in[:p.L3])
			}
			if a.src != test.spec.Dst.Addr() || a.dst != test.spec.Src.Addr() || a.hops != 64 || a.length != test.length {
				t.Errorf("%d bytes from %v to %v with %d hops, want %d", a.length, a.src, a.dst, a.hops, test.length)
			}
			if p.Kind == packet.KindIPv4 && (a.class != 0xc0 || a.flags != layers.IPv4DontFragment) {
				t.Errorf("type of service %#x, flags %v", a.class, a.flags)
			}
			header, quoted := bytes.Clone(a.payload[:8]), a.payload[8:]
			header[2], header[3] = 0, 0
			if !bytes.Equal(header, test.header) {
				t.Errorf("ICMP header %x, want %x", header, test.header)
			}
			if !bytes.Equal(quoted, in[p.L3:int(p.L3)+len(quoted)]) {
				t.Errorf("quoted %x of %x", quoted, in[p.L3:])
			}
		})
	}
}

func TestReset(t *testing.T) {
	const (
		fin, syn, rst, ack, seq = packet.TCPFin, packet.TCPSyn, packet.TCPRst, packet.TCPAck, 0xfffffffe
	)
	for name, test := range map[string]struct {
		flags    uint8
		size     int
		refused  bool
		seq, ack uint32
		ackFlag  bool
	}{
		"SYN":              {flags: syn, ack: 0xffffffff, ackFlag: true},
		"SYN with data":    {flags: syn, size: 7, ack: 6, ackFlag: true},
		"SYN and FIN":      {flags: syn | fin, ack: 0, ackFlag: true},
		"data without ACK": {flags: 0, size: 100, ack: 98, ackFlag: true},
		"ACK":              {flags: ack, seq: 77},
		"ACK with data":    {flags: ack, size: 100, seq: 77},
		"SYN-ACK":          {flags: syn | ack, seq: 77},
		"FIN-ACK":          {flags: fin | ack, seq: 77},
		"RST":              {flags: rst, refused: true},
		"RST-ACK":          {flags: rst | ack, refused: true},
	} {
		for _, v6 := range []bool{false, true} {
			for _, extra := range []bool{false, true} {
				s := spec(packet.ProtoTCP, v6, test.size)
				s.TCPFlags, s.Seq, s.Ack = test.flags, seq, 77
				if extra {
					s.VLAN, s.TCPOptions, s.IPOptions, s.Padding = 9, true, 3, 12
					s.Extensions = []uint8{packet.ProtoDestOptions}
				}
				in := packettest.Frame(s)
				f, p, memory := lend(in, 0)
				ok := refuse.Reset(&f, p)
				checkGuards(t, memory)
				if ok == test.refused {
					t.Errorf("%s: answered: %v", name, ok)
				}
				if !ok {
					if !bytes.Equal(f.Bytes(), in) {
						t.Errorf("%s: refused and changed", name)
					}
					continue
				}
				a := read(t, f.Bytes())
				if !bytes.Equal(a.link, in[:p.L3]) || a.src != s.Dst.Addr() || a.dst != s.Src.Addr() || a.hops != 64 ||
					a.class != 0 || a.length != int(f.End-f.Start)-len(a.link) {
					t.Errorf("%s: %+v", name, a)
				}
				var tcp layers.TCP
				if err := tcp.DecodeFromBytes(a.payload, gopacket.NilDecodeFeedback); err != nil {
					t.Fatal(err)
				}
				if tcp.SrcPort != 443 || tcp.DstPort != 4001 || tcp.Seq != test.seq || tcp.Ack != test.ack ||
					!tcp.RST || tcp.ACK != test.ackFlag || tcp.SYN || tcp.FIN || tcp.Window != 0 ||
					len(tcp.Options) != 0 || len(tcp.Payload) != 0 {
					t.Errorf("%s (IPv6 %v): %+v", name, v6, tcp)
				}
			}
		}
	}
}

// TestCannot asks for answers that there are not: nothing may change.
func TestCannot(t *testing.T) {
	udp4, udp6 := packettest.Frame(spec(packet.ProtoUDP, false, 100)), packettest.Frame(spec(packet.ProtoUDP, true, 100))
	broken := bytes.Clone(udp4)
	broken[14+10]++
	tcp := spec(packet.ProtoTCP, false, 100)
	tcp.TCPFlags = packet.TCPSyn
	arp := packettest.ARPRequest(spec(0, false, 0), netip.MustParseAddr("203.0.113.10"))
	for name, test := range map[string]struct {
		in       []byte
		headroom int
		build    builder
	}{
		"IPv4 error to IPv6":       {udp6, 64, fragmentationNeeded(1400)},
		"IPv6 error to IPv4":       {udp4, 64, packetTooBig(1400)},
		"ARP":                      {arp, 64, refuse.PortUnreachable},
		"ARP, time exceeded":       {arp, 64, refuse.TimeExceeded},
		"ARP, reset":               {arp, 64, refuse.Reset},
		"no room, IPv4":            {udp4, 27, refuse.PortUnreachable},
		"no room, IPv6":            {udp6, 47, refuse.PortUnreachable},
		"a problem":                {broken, 64, refuse.PortUnreachable},
		"reset of UDP":             {udp4, 64, refuse.Reset},
		"reset of a fragment":      {packettest.Fragments(tcp, 40)[0], 64, refuse.Reset},
		"reset of a later one":     {packettest.Fragments(tcp, 40)[1], 64, refuse.Reset},
		"time exceeded of nothing": {nil, 64, refuse.TimeExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			f, p, memory := lend(test.in, test.headroom)
			before, start, end := bytes.Clone(memory), f.Start, f.End
			if test.build(&f, p) {
				t.Error("there is an answer")
			}
			if f.Start != start || f.End != end || !bytes.Equal(memory, before) {
				t.Error("the frame has changed")
			}
		})
	}
	for _, in := range [][]byte{udp4, udp6} { // just enough room
		f, p, _ := lend(in, map[bool]int{true: 28, false: 48}[in[12] == 0x08])
		if !refuse.PortUnreachable(&f, p) || f.Start != 0 {
			t.Errorf("no answer with just enough room: %d", f.Start)
		}
	}
}

func TestAllowed(t *testing.T) {
	v4, v6 := spec(packet.ProtoUDP, false, 10), spec(packet.ProtoUDP, true, 10)
	from := func(s packettest.Spec, addr string) []byte {
		s.Src = netip.AddrPortFrom(netip.MustParseAddr(addr), 1)
		return packettest.Frame(s)
	}
	to := func(s packettest.Spec, addr string) []byte {
		s.Dst = netip.AddrPortFrom(netip.MustParseAddr(addr), 1)
		return packettest.Frame(s)
	}
	toGroup := v4
	toGroup.DstMAC = packet.MAC{1, 0, 0x5e, 1, 2, 3}
	short := packettest.Frame(v4)[:30]
	mapped := packettest.Frame(v6)
	copy(mapped[14+8:], netip.MustParseAddr("::ffff:192.0.2.1").AsSlice())
	long4, long6 := spec(packet.ProtoUDP, false, 3000), spec(packet.ProtoUDP, true, 3000)
	gre := spec(packet.ProtoGRE, false, 40)
	for name, test := range map[string]struct {
		in   []byte
		want bool
	}{
		"UDP":                     {packettest.Frame(v4), true},
		"UDP over IPv6":           {packettest.Frame(v6), true},
		"GRE":                     {packettest.Frame(gre), true},
		"first fragment":          {packettest.Fragments(long4, 1400)[0], true},
		"later fragment":          {packettest.Fragments(long4, 1400)[1], false},
		"first fragment of IPv6":  {packettest.Fragments(long6, 1400)[0], true},
		"later fragment of IPv6":  {packettest.Fragments(long6, 1400)[1], false},
		"link multicast":          {packettest.Frame(toGroup), false},
		"problem":                 {short, false},
		"ARP":                     {packettest.ARPRequest(v4, netip.MustParseAddr("203.0.113.10")), false},
		"empty":                   {nil, false},
		"from itself":             {from(v4, "203.0.113.10"), false},
		"from itself, IPv6":       {from(v6, "2001:db8::10"), false},
		"from 0.0.0.0":            {from(v4, "0.0.0.0"), false},
		"from 0.1.2.3":            {from(v4, "0.1.2.3"), false},
		"from 1.0.0.1":            {from(v4, "1.0.0.1"), true},
		"from loopback":           {from(v4, "127.1.2.3"), false},
		"from multicast":          {from(v4, "224.0.0.1"), false},
		"from 223.255.255.254":    {from(v4, "223.255.255.254"), true},
		"from class E":            {from(v4, "240.0.0.1"), false},
		"from broadcast":          {from(v4, "255.255.255.255"), false},
		"to multicast":            {to(v4, "239.1.1.1"), false},
		"to broadcast":            {to(v4, "255.255.255.255"), false},
		"from ::":                 {from(v6, "::"), false},
		"from ::1":                {from(v6, "::1"), false},
		"from link-local":         {from(v6, "fe80::1"), true},
		"from multicast, IPv6":    {from(v6, "ff02::1"), false},
		"to multicast, IPv6":      {to(v6, "ff02::1"), false},
		"from an IPv4 in an IPv6": {mapped, false},
	} {
		t.Run(name, func(t *testing.T) {
			var p packet.Parsed
			p.Decode(test.in)
			if got := refuse.Allowed(&p, test.in); got != test.want {
				t.Errorf("%v, want %v (%+v)", got, test.want, p)
			}
		})
	}
}

func TestAllowedICMP(t *testing.T) {
	queries4 := map[int]bool{}
	for _, typ := range []int{0, 1, 2, 6, 7, 8, 9, 10, 13, 14, 15, 16, 17, 18} {
		queries4[typ] = true
	}
	for typ := range 256 {
		in := packettest.ICMP(spec(0, false, 40), uint8(typ), 0, 0)
		var p packet.Parsed
		p.Decode(in)
		if got, want := refuse.Allowed(&p, in), queries4[typ]; got != want {
			t.Errorf("ICMP type %d: %v, want %v", typ, got, want)
		}
		in = packettest.ICMP(spec(0, true, 40), uint8(typ), 0, 0)
		p.Decode(in)
		if got, want := refuse.Allowed(&p, in), typ >= 128 && typ != 137; got != want {
			t.Errorf("ICMPv6 type %d: %v, want %v", typ, got, want)
		}
	}
}

func builders() map[string]builder {
	return map[string]builder{
		"fragmentation needed": fragmentationNeeded(1400),
		"packet too big":       packetTooBig(1400),
		"port unreachable":     refuse.PortUnreachable,
		"time exceeded":        refuse.TimeExceeded,
		"reset":                refuse.Reset,
	}
}

func TestNoAllocs(t *testing.T) {
	for name, build := range builders() {
		s := spec(packet.ProtoTCP, name == "packet too big", 1400)
		in := packettest.Frame(s)
		f, p, _ := lend(in, queue.Headroom)
		given := f
		if n := testing.AllocsPerRun(100, func() {
			f = given
			copy(f.Bytes(), in)
			if !refuse.Allowed(p, in) || !build(&f, p) {
				t.Fatal("no answer")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func FuzzRefuse(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		s := spec(packet.ProtoTCP, v6, 40)
		s.TCPFlags = packet.TCPSyn
		f.Add(packettest.Frame(s), uint8(64), uint32(1400))
		s.VLAN, s.TCPOptions, s.IPOptions, s.Extensions = 3, true, 2, []uint8{packet.ProtoHopByHop}
		f.Add(packettest.Frame(s), uint8(64), uint32(0))
		f.Add(packettest.Frame(spec(packet.ProtoUDP, v6, 1400)), uint8(48), uint32(1500))
		f.Add(packettest.Fragments(spec(packet.ProtoUDP, v6, 100), 40)[0], uint8(20), uint32(68))
		f.Add(packettest.EchoRequest(spec(0, v6, 60), 1, 2), uint8(30), uint32(576))
		f.Add(packettest.ICMP(spec(0, v6, 60), 3, 4, 1400), uint8(64), uint32(576))
	}
	f.Add(packettest.ARPRequest(spec(0, false, 0), netip.MustParseAddr("203.0.113.10")), uint8(64), uint32(1))
	f.Fuzz(func(t *testing.T, in []byte, headroom uint8, mtu uint32) {
		if len(in) > 14+20 && in[12] == 0x08 && in[13] == 0x00 { // a fuzzer does not find checksums
			if ip := packet.IPv4(in[14:]); ip.HeaderLen() >= 20 && ip.HeaderLen() <= len(ip) {
				ip.SetChecksum(ip.ComputeChecksum())
			}
		}
		all := builders()
		all["fragmentation needed"] = fragmentationNeeded(uint16(mtu))
		all["packet too big"] = packetTooBig(mtu)
		for name, build := range all {
			f, p, memory := lend(in, int(headroom))
			allowed := refuse.Allowed(p, in)
			before := bytes.Clone(memory)
			ok := build(&f, p)
			checkGuards(t, memory)
			if !ok {
				if !bytes.Equal(memory, before) || int(f.Start) != int(headroom) || f.Len() != len(in) {
					t.Fatalf("%s: no answer, but %x has changed", name, in)
				}
				continue
			}
			var out packet.Parsed
			b := f.Bytes()
			out.Decode(b)
			if err := packettest.CheckWellFormed(b); err != nil || out.Problem != packet.ProblemNone {
				t.Fatalf("%s: %x became\n%x: %v, %v", name, in, b, err, out.Problem)
			}
			if out.Src != p.Dst || out.Dst != p.Src || out.Kind != p.Kind || !bytes.Equal(b[:out.L3], in[:p.L3]) ||
				int(out.End) != len(b) {
				t.Fatalf("%s: %x became\n%x", name, in, b)
			}
			if limit := map[packet.Kind]int{packet.KindIPv4: 576, packet.KindIPv6: 1280}[p.Kind]; len(b)-int(out.L3) > limit {
				t.Fatalf("%s: %d bytes", name, len(b))
			}
			// An answer to an answer would go round for ever. A reset is none to
			// Allowed, but Reset knows.
			if name != "reset" && refuse.Allowed(&out, b) || name == "reset" && refuse.Reset(&f, &out) {
				t.Fatalf("%s: the answer %x may be answered", name, b)
			}
			if allowed && p.Src == p.Dst {
				t.Fatalf("%x may be answered to weir itself", in)
			}
		}
	})
}

func BenchmarkRefuse(b *testing.B) {
	for name, build := range builders() {
		b.Run(name, func(b *testing.B) {
			in := packettest.Frame(spec(packet.ProtoTCP, name == "packet too big", 1400))
			f, p, _ := lend(in, queue.Headroom)
			given := f
			b.ReportAllocs()
			for range b.N {
				f = given
				copy(f.Buf[f.Start:], in[:60]) // a reset writes over the headers
				if !refuse.Allowed(p, in) || !build(&f, p) {
					b.Fatal("no answer")
				}
			}
		})
	}
}

package steer

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

var (
	shared4  = netip.MustParseAddr("203.0.113.2") // the box's own, as the next three
	shared6  = netip.MustParseAddr("2001:db8:1::2")
	local4   = netip.MustParseAddr("10.0.0.1")
	local6   = netip.MustParseAddr("2001:db8:a::1")
	backend4 = netip.MustParseAddr("10.0.0.11")
	backend6 = netip.MustParseAddr("2001:db8:a::11")
	tunnel4  = netip.MustParseAddr("10.0.0.21")
	tunnel6  = netip.MustParseAddr("2001:db8:a::21")

	// wholeSet has something of everything.
	wholeSet = Set{
		VIPs:   []netip.Addr{vip4, vip6},
		Shared: []Shared{{shared4, 50000, 59999}, {shared6, 50000, 59999}},
		Answers: []Answers{
			{backend4, packet.ProtoTCP, 8080}, {backend4, packet.ProtoUDP, 53},
			{backend6, packet.ProtoTCP, 8080}, {backend6, packet.ProtoUDP, 53},
		},
		Local:   []netip.Addr{shared4, shared6, local4, local6},
		Tunnels: []netip.Addr{tunnel4, tunnel6},
	}
)

// family has what tests need twice.
type family struct {
	name                                             string
	v6                                               bool
	vip, other, peer, shared, local, backend, tunnel netip.Addr
	unreachable, expired, problem, tooBig            [2]uint8 // types and codes
	notAnError                                       [][2]uint8
}

var families = []family{
	{
		"v4", false, vip4, other4, peer4, shared4, local4, backend4, tunnel4,
		[2]uint8{3, 1}, [2]uint8{11, 0}, [2]uint8{12, 0}, [2]uint8{3, 4},
		[][2]uint8{{0, 0}, {4, 0}, {5, 1}, {8, 0}, {10, 0}, {13, 0}},
	},
	{
		"v6", true, vip6, other6, peer6, shared6, local6, backend6, tunnel6,
		[2]uint8{1, 4}, [2]uint8{3, 0}, [2]uint8{4, 1}, [2]uint8{2, 0},
		[][2]uint8{{0, 0}, {5, 0}, {100, 0}, {128, 0}, {129, 0}, {137, 0}},
	},
}

// toUs is a frame to the box's MAC address.
func toUs(proto uint8, src netip.Addr, sport uint16, dst netip.Addr, dport uint16) packettest.Spec {
	return packettest.Spec{
		SrcMAC: packet.MAC(peerMAC), DstMAC: packet.MAC(ownMAC), Proto: proto, ID: 4711,
		Src: netip.AddrPortFrom(src, sport), Dst: netip.AddrPortFrom(dst, dport),
		Payload: []byte("0123456789abcdefghijklmnopqrstuvwxyz"),
	}
}

// about is an ICMP error about a packet, sent to an address.
func about(kind [2]uint8, to netip.Addr, quoted packettest.Spec) []byte {
	from := peer4
	if to.Is6() {
		from = netip.MustParseAddr("2001:db8:9::9")
	}
	s := toUs(0, from, 0, to, 0)
	s.Payload = packettest.Frame(quoted)[14:]
	return packettest.ICMP(s, kind[0], kind[1], 1400)
}

// sequenceCase is frames that come one after the other.
type sequenceCase struct {
	name   string
	frames [][]byte
	weirs  []bool
}

func novipCases() (cases []sequenceCase) {
	for _, f := range families {
		add := func(name string, weirs bool, frames ...[]byte) {
			cases = append(cases, sequenceCase{f.name + " " + name, frames, slices.Repeat([]bool{weirs}, len(frames))})
		}
		spec := func(proto uint8, src netip.Addr, sport uint16, dst netip.Addr, dport uint16, change ...func(*packettest.Spec)) packettest.Spec {
			s := toUs(proto, src, sport, dst, dport)
			for _, c := range change {
				c(&s)
			}
			return s
		}
		for _, proto := range []uint8{packet.ProtoTCP, packet.ProtoUDP} {
			service := map[uint8]uint16{packet.ProtoTCP: 8080, packet.ProtoUDP: 53}[proto]
			other := map[uint8]uint16{packet.ProtoTCP: 53, packet.ProtoUDP: 8080}[proto]
			add := func(name string, weirs bool, frames ...[]byte) {
				add(fmt.Sprintf("protocol %d %s", proto, name), weirs, frames...)
			}
			frame := func(src netip.Addr, sport uint16, dst netip.Addr, dport uint16, change ...func(*packettest.Spec)) []byte {
				return packettest.Frame(spec(proto, src, sport, dst, dport, change...))
			}
			vlan := func(s *packettest.Spec) { s.VLAN = 100 }
			options := func(s *packettest.Spec) { s.IPOptions = 10 }
			foreign := func(s *packettest.Spec) { s.DstMAC = packet.MAC(peerMAC) }
			atomic := func(s *packettest.Spec) { s.Extensions = []uint8{packet.ProtoFragment} }
			hop := func(s *packettest.Spec) { s.Extensions = []uint8{packet.ProtoHopByHop} }
			chain := func(s *packettest.Spec) { s.Extensions = []uint8{packet.ProtoFragment, packet.ProtoDestOptions} }

			add("to weir's ports of a shared address", true,
				frame(f.peer, 80, f.shared, 50000), frame(f.peer, 80, f.shared, 55555), frame(f.peer, 80, f.shared, 59999),
				frame(f.peer, 80, f.shared, 50000, vlan), frame(f.peer, 80, f.shared, 50000, options))
			add("to other ports of a shared address", false,
				frame(f.peer, 50000, f.shared, 49999), frame(f.peer, 50000, f.shared, 60000), frame(f.peer, 50000, f.shared, 0),
				frame(f.peer, 50000, f.shared, 22, vlan), frame(f.peer, 50000, f.shared, 22, options))
			add("to another address of the box", false, frame(f.peer, 80, f.local, 50000))
			add("to a shared address, foreign MAC", false, frame(f.peer, 80, f.shared, 50000, foreign))

			add("answer", true,
				frame(f.backend, service, f.peer, 1234), frame(f.backend, service, f.peer, 1234, vlan),
				frame(f.backend, service, f.peer, 1234, options))
			add("from another port of the backend", false,
				frame(f.backend, 22, f.peer, 1234), frame(f.backend, other, f.peer, 1234), frame(f.backend, 1234, f.peer, service))
			add("from another host", false, frame(f.other, service, f.peer, 1234))
			add("from the backend to the box", false, frame(f.backend, service, f.local, 1234), frame(f.backend, service, f.shared, 1234))
			add("from the backend to weir's ports of the box", true, frame(f.backend, service, f.shared, 50001))
			add("from the backend, foreign MAC", false, frame(f.backend, service, f.peer, 1234, foreign))
			add("to the backend", false, frame(f.peer, 1234, f.backend, service))
			if f.v6 {
				add("atomic fragment", true, frame(f.peer, 80, f.shared, 50000, atomic), frame(f.backend, service, f.peer, 1234, atomic))
				add("other extension headers", false, frame(f.peer, 80, f.shared, 50000, hop), frame(f.backend, service, f.peer, 1234, hop),
					frame(f.peer, 80, f.shared, 50000, chain))
				mapped := toUs(proto, f.peer, 80, f.shared, 50000)
				b := packettest.Frame(mapped)
				v4 := shared4.As16()
				copy(b[14+24:], v4[:])
				add("IPv4-mapped destination", false, b)
			}

			for _, kind := range [][2]uint8{f.unreachable, f.expired, f.problem, f.tooBig} {
				add(fmt.Sprintf("error %d about what weir sent", kind), true,
					about(kind, f.shared, spec(proto, f.shared, 50000, f.other, 80)),
					about(kind, f.shared, spec(proto, f.shared, 59999, f.other, 80, options)),
					about(kind, f.peer, spec(proto, f.peer, 1234, f.backend, service)),
					about(kind, f.peer, spec(proto, f.peer, 1234, f.backend, service, options)))
				add(fmt.Sprintf("error %d about what the box or others sent", kind), false,
					about(kind, f.shared, spec(proto, f.shared, 49999, f.other, 50000)),
					about(kind, f.local, spec(proto, f.local, 50000, f.other, 80)),
					about(kind, f.local, spec(proto, f.shared, 50000, f.other, 80)),
					about(kind, f.shared, spec(proto, f.other, 50000, f.shared, 50000)),
					about(kind, f.local, spec(proto, f.local, 1234, f.backend, service)),
					about(kind, f.peer, spec(proto, f.peer, service, f.backend, other)),
					about(kind, f.peer, spec(proto, f.backend, service, f.peer, 1234)))
			}
			for _, kind := range f.notAnError {
				add(fmt.Sprintf("ICMP %d that is no error", kind), false,
					about(kind, f.shared, spec(proto, f.shared, 50000, f.other, 80)),
					about(kind, f.peer, spec(proto, f.peer, 1234, f.backend, service)))
			}
			if f.v6 {
				add("error about an atomic fragment", true, about(f.unreachable, f.shared, spec(proto, f.shared, 50000, f.other, 80, atomic)))
			}

			weirs := packettest.Fragments(toUs(proto, f.peer, 80, f.shared, 50000), 16)
			kernels := packettest.Fragments(toUs(proto, f.peer, 80, f.shared, 22), 16)
			answer := packettest.Fragments(toUs(proto, f.backend, service, f.peer, 1234), 16)
			others := spec(proto, f.peer, 80, f.shared, 22, func(s *packettest.Spec) { s.ID++ })
			from := spec(proto, f.other, 80, f.shared, 22)
			add("fragments to a shared address", true, weirs...)
			add("fragments of the kernel's with the same identification", false, kernels...)
			add("fragments of the kernel's with another one", false, packettest.Fragments(others, 16)...)
			add("fragments from another host with the same one", false, packettest.Fragments(from, 16)[1:]...)
			add("fragments of an answer", true, answer...)
			add("fragments to the box of a backend's", false, packettest.Fragments(toUs(proto, f.backend, service, f.local, 1234), 16)...)
			cases = append(cases, sequenceCase{
				fmt.Sprintf("%s protocol %d later fragment comes first", f.name, proto),
				append([][]byte{kernels[0]}, weirs[1], weirs[0], weirs[2], kernels[0], weirs[1]),
				[]bool{false, false, true, true, false, false},
			})
			// A first fragment that ends before the ports is nobody's but the kernel's.
			tiny := packettest.Fragments(toUs(proto, f.peer, 80, f.shared, 50000), 8)[0]
			add("tiny first fragment", false, tiny[:len(tiny)-5])
		}

		tunnel := func(proto uint8, to netip.Addr, more ...func(*packettest.Spec)) packettest.Spec {
			return spec(proto, f.local, 0, to, 0, more...)
		}
		for _, proto := range []uint8{packet.ProtoIPv4, packet.ProtoIPv6} {
			add(fmt.Sprintf("tunnel of protocol %d, packet too big", proto), true,
				about(f.tooBig, f.local, tunnel(proto, f.tunnel)), about(f.tooBig, f.shared, tunnel(proto, f.tunnel)),
				about(f.tooBig, f.other, tunnel(proto, f.tunnel)))
			add(fmt.Sprintf("tunnel of protocol %d, other", proto), false,
				about(f.tooBig, f.local, tunnel(proto, f.other)), about(f.unreachable, f.local, tunnel(proto, f.tunnel)),
				about(f.expired, f.local, tunnel(proto, f.tunnel)), about(f.problem, f.local, tunnel(proto, f.tunnel)),
				packettest.Frame(tunnel(proto, f.tunnel)))
		}
		// Headers that are not what they should be, where everything else is.
		ip, quoted := 14, 14+20+8
		if f.v6 {
			quoted = 14 + 40 + 8
		}
		for name, at := range map[string]int{"packet": ip, "quoted packet": quoted} {
			good := packettest.Frame(toUs(packet.ProtoTCP, f.peer, 80, f.shared, 50000))
			if at == quoted {
				good = about(f.unreachable, f.shared, toUs(packet.ProtoTCP, f.shared, 50000, f.other, 80))
			}
			add(name+" as it should be", true, good)
			for _, first := range []byte{0x05, 0x35, 0x55, 0xf5, 0x40, 0x44, 0x50, 0x64, 0x70, 0x00} {
				bad := slices.Clone(good)
				bad[at] = first
				add(fmt.Sprintf("%s that begins with %#x", name, first), f.v6 && first>>4 == 6, bad)
			}
		}
		gre := toUs(packet.ProtoGRE, f.peer, 0, f.shared, 0)
		gre.Payload = []byte{0, 80, 0xc3, 0x50, 0, 0, 0, 0} // ports 80 and 50000, were it TCP
		add("what has no ports", false, packettest.Frame(gre))
		gre = toUs(packet.ProtoGRE, f.shared, 0, f.other, 0)
		gre.Payload = []byte{0xc3, 0x50, 0, 80, 0, 0, 0, 0}
		add("error about what has no ports", false, about(f.unreachable, f.shared, gre))
		pieces := toUs(packet.ProtoUDP, f.shared, 50000, f.other, 80)
		pieces.Payload = append([]byte{0, 0, 0, 0, 0, 0, 0, 0}, 0xc3, 0x50, 0, 80, 0, 0, 0, 0)
		for i, piece := range packettest.Fragments(pieces, 16) {
			s := toUs(0, f.peer, 0, f.shared, 0)
			s.Payload = piece[14:]
			add(fmt.Sprintf("error about fragment %d", i), i == 0, packettest.ICMP(s, f.unreachable[0], f.unreachable[1], 0))
		}
		add("packet too big about GRE", false, about(f.tooBig, f.local, tunnel(packet.ProtoGRE, f.tunnel)))
		add("ping to a shared address", false, packettest.EchoRequest(toUs(0, f.peer, 0, f.shared, 0), 50000, 50000))
	}
	// ICMP of the other family means nothing.
	wrong := toUs(packet.ProtoICMPv6, peer4, 0, shared4, 0)
	wrong.Payload = append([]byte{1, 0, 0, 0, 0, 0, 0, 0}, packettest.Frame(toUs(6, shared4, 50000, other4, 80))[14:]...)
	wrong6 := toUs(packet.ProtoICMPv4, peer6, 0, shared6, 0)
	wrong6.Payload = append([]byte{3, 0, 0, 0, 0, 0, 0, 0}, packettest.Frame(toUs(6, shared6, 50000, other6, 80))[14:]...)
	crossed := toUs(packet.ProtoICMPv4, peer4, 0, shared4, 0)
	crossed.Payload = append([]byte{3, 0, 0, 0, 0, 0, 0, 0}, packettest.Frame(toUs(6, shared6, 50000, other6, 80))[14:]...)
	cases = append(cases, sequenceCase{
		"ICMP of the other family",
		[][]byte{packettest.Frame(wrong), packettest.Frame(wrong6), packettest.Frame(crossed)}, []bool{false, false, false},
	})
	neighbor := packettest.NeighborSolicitation(toUs(0, peer6, 0, shared6, 0), shared6)
	cases = append(cases, sequenceCase{
		"who has a shared address",
		[][]byte{packettest.ARPRequest(toUs(0, peer4, 0, shared4, 0), shared4), neighbor}, []bool{false, false},
	})
	return cases
}

// steered returns a Filter with this set whose XDP program has a socket, and an
// oracle for it.
func steered(t testing.TB, set Set) (*Filter, *oracle) {
	t.Helper()
	f := loaded(t)
	for _, err := range []error{f.SetSocket(0, xdpSocket(t)), f.Steer(set)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return f, newOracle(set)
}

func TestWithoutVIP(t *testing.T) {
	f, o := steered(t, wholeSet)
	for _, test := range novipCases() {
		for i, frame := range test.frames {
			if got := verdicts(t, f, frame); got != test.weirs[i] {
				t.Errorf("%s, frame %d: weir's = %v, want %v", test.name, i, got, test.weirs[i])
			}
			if got := o.takes(frame); got != test.weirs[i] {
				t.Errorf("%s, frame %d: oracle says %v, want %v", test.name, i, got, test.weirs[i])
			}
		}
		for i, frame := range test.frames {
			for n := 15; n < len(frame); n++ {
				if got, want := verdicts(t, f, frame[:n]), o.takes(frame[:n]); got != want {
					t.Errorf("%s, frame %d cut to %d bytes: weir's = %v, want %v", test.name, i, n, got, want)
				}
			}
		}
	}
}

// What a set does not have is the kernel's, and nothing of a set before it.
func TestParts(t *testing.T) {
	f, _ := steered(t, Set{})
	for _, set := range []Set{
		wholeSet,
		{VIPs: wholeSet.VIPs},
		{Shared: wholeSet.Shared},
		{Answers: wholeSet.Answers, Local: wholeSet.Local},
		{Answers: wholeSet.Answers},
		{Tunnels: wholeSet.Tunnels},
		{Shared: []Shared{{shared4, 1, 65535}, {shared6, 50000, 50000}}, Tunnels: wholeSet.Tunnels, Local: wholeSet.Local},
		{VIPs: []netip.Addr{shared4, shared6}, Answers: wholeSet.Answers[:1]},
		{},
		wholeSet,
	} {
		if err := f.Steer(set); err != nil {
			t.Fatal(err)
		}
		forget(t, f)
		o := newOracle(set)
		for _, test := range novipCases() {
			for i, frame := range test.frames {
				if got, want := verdicts(t, f, frame), o.takes(frame); got != want {
					t.Errorf("%s, frame %d, with %+v: weir's = %v, want %v", test.name, i, set, got, want)
				}
			}
		}
		for _, test := range frameCases(t) {
			if got, want := verdicts(t, f, test.frame), o.takes(test.frame); got != want {
				t.Errorf("%s, with %+v: weir's = %v, want %v", test.name, set, got, want)
			}
		}
	}
}

// forget makes the programs forget all fragments.
func forget(t testing.TB, f *Filter) {
	t.Helper()
	var keys []datagram
	var key datagram
	var value uint32
	known := f.objects.Maps[steerMapDatagrams]
	for entries := known.Iterate(); entries.Next(&key, &value); {
		keys = append(keys, key)
	}
	for _, key := range keys {
		if err := known.Delete(key); err != nil {
			t.Fatal(err)
		}
	}
}

// However many datagrams there are, the latest is known.
func TestManyDatagrams(t *testing.T) {
	f, _ := steered(t, wholeSet)
	s := toUs(packet.ProtoUDP, peer6, 80, shared6, 50000)
	fragments := packettest.Fragments(s, 16)
	first, later := fragments[0], fragments[1]
	const idAt = 14 + 40 + 4
	for n := range 2 * 16384 {
		for i := range 4 {
			first[idAt+i] = byte(n >> (8 * i))
			later[idAt+i] = byte(n >> (8 * i))
		}
		if got := run(t, f.XDP(), first); got != xdpRedirect {
			t.Fatalf("datagram %d, first fragment: %d", n, got)
		}
		if got := run(t, f.XDP(), later); got != xdpRedirect {
			t.Fatalf("datagram %d, second fragment: %d", n, got)
		}
	}
}

// FuzzPrograms checks that all programs do to any two frames what the oracle
// does, and that none ends in anything but its two verdicts.
func FuzzPrograms(f *testing.F) {
	filter, o := steered(f, wholeSet)
	for _, test := range frameCases(f) {
		f.Add(test.frame, test.frame)
	}
	for _, test := range novipCases() {
		f.Add(test.frames[0], test.frames[len(test.frames)-1])
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		for known := range o.datagrams {
			if err := filter.objects.Maps[steerMapDatagrams].Delete(known); err != nil {
				t.Fatal(err)
			}
		}
		clear(o.datagrams)
		for _, frame := range [][]byte{first, second} {
			if len(frame) < 15 || len(frame) > 1500 {
				t.Skip("not a frame that a test run takes")
			}
			if got, want := verdicts(t, filter, frame), o.takes(frame); got != want {
				t.Errorf("weir's = %v, want %v: % x", got, want, frame)
			}
		}
	})
}

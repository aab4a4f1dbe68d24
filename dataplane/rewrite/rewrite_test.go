package rewrite_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/flow"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/rewrite"
	"weir/dataplane/stats"
)

var (
	clientMAC  = packet.MAC{0x02, 0, 0, 0, 0, 0x01}
	weirMAC    = packet.MAC{0x02, 0, 0, 0, 0, 0x02}
	backendMAC = packet.MAC{0x02, 0, 0, 0, 0, 0x03}

	client4 = netip.MustParseAddrPort("192.0.2.1:1234")
	vip4    = netip.MustParseAddrPort("203.0.113.10:80")
	client6 = netip.MustParseAddrPort("[2001:db8::1]:1234")
	vip6    = netip.MustParseAddrPort("[2001:db8:1::10]:80")

	tunnel4 = rewrite.Tunnel{Source: netip.MustParseAddr("10.0.0.2"), Destination: netip.MustParseAddr("10.0.0.11")}
	tunnel6 = rewrite.Tunnel{Source: netip.MustParseAddr("fd00::2"), Destination: netip.MustParseAddr("fd00::11")}
)

func spread(t rewrite.Tunnel) rewrite.Tunnel {
	t.Spread = true
	return t
}

func link(vlan uint16) rewrite.Link {
	return rewrite.Link{Egress: 3, Src: weirMAC, Dst: backendMAC, VLAN: vlan, MTU: 1500}
}

// variants are the packets that go through every rewriting.
func variants(v6 bool) map[string]packettest.Spec {
	s := packettest.Spec{
		SrcMAC: clientMAC, DstMAC: weirMAC, Src: client4, Dst: vip4, Proto: packet.ProtoTCP,
		TCPFlags: packet.TCPAck, ID: 0x4711, Payload: []byte("what the client wants"),
	}
	if v6 {
		s.Src, s.Dst, s.FlowLabel = client6, vip6, 0x12345
	}
	with := func(change func(*packettest.Spec)) packettest.Spec {
		c := s
		change(&c)
		return c
	}
	m := map[string]packettest.Spec{
		"tcp":       s,
		"udp":       with(func(s *packettest.Spec) { s.Proto = packet.ProtoUDP }),
		"no sum":    with(func(s *packettest.Spec) { s.Proto = packet.ProtoUDP; s.NoUDPChecksum = true }),
		"padded":    with(func(s *packettest.Spec) { s.Payload = nil; s.Padding = 6 }),
		"last hop":  with(func(s *packettest.Spec) { s.TTL = 2 }),
		"most hops": with(func(s *packettest.Spec) { s.TTL = 255 }),
		"df":        with(func(s *packettest.Spec) { s.DontFragment = true }),
		"id":        with(func(s *packettest.Spec) { s.ID = 0xffff }),
		"class":     with(func(s *packettest.Spec) { s.TOS = 0xbb }),
		"all class": with(func(s *packettest.Spec) { s.TOS = 0xff }),
		"odd":       with(func(s *packettest.Spec) { s.Payload = []byte{1} }),
		"options":   with(func(s *packettest.Spec) { s.IPOptions = 10; s.TCPOptions = true }),
	}
	if v6 {
		delete(m, "no sum")
		m["chain"] = with(func(s *packettest.Spec) {
			s.Extensions = []uint8{packet.ProtoHopByHop, packet.ProtoRouting, packet.ProtoDestOptions}
		})
	}
	return m
}

// buffer puts a frame into a buffer with headroom and room behind it.
func buffer(frame []byte) queue.Frame {
	buf := bytes.Repeat([]byte{0xee}, queue.Headroom+len(frame)+32)
	copy(buf[queue.Headroom:], frame)
	return queue.Frame{Buf: buf, Start: queue.Headroom, End: uint32(queue.Headroom + len(frame)), ID: 9}
}

func apply(t *testing.T, r *rewrite.Rewrite, frame []byte) (queue.Frame, stats.Reason) {
	t.Helper()
	f := buffer(frame)
	var p packet.Parsed
	p.Decode(f.Bytes())
	if p.Problem != packet.ProblemNone {
		t.Fatalf("the test's frame is bad: %v", p.Problem)
	}
	reason := r.Apply(&f, &p)
	checkDirect(t, r, frame, f.Bytes(), reason)
	return f, reason
}

// wantFrame builds by gopacket what must come out for a packet of s. A nil
// tunnel is DSR.
func wantFrame(s packettest.Spec, vlan uint16, tunnel *rewrite.Tunnel) []byte {
	v6 := s.Src.Addr().Is6()
	if tunnel == nil {
		s.SrcMAC, s.DstMAC, s.VLAN = weirMAC, backendMAC, vlan
		return packettest.Frame(s)
	}
	tuple := packet.Tuple{
		Src: s.Src.Addr().As16(), Dst: s.Dst.Addr().As16(),
		SrcPort: s.Src.Port(), DstPort: s.Dst.Port(), Proto: s.Proto,
	}
	hash := flow.HashStable(&tuple)
	if s.TTL == 0 {
		s.TTL = 64
	}
	s.TTL--
	s.VLAN, s.Padding = 0, 0
	inner := packettest.Frame(s)[14:]
	next := layers.IPProtocolIPv4
	if v6 {
		next = layers.IPProtocolIPv6
	}
	src, dst := tunnel.Source.AsSlice(), tunnel.Destination.AsSlice()
	var outer gopacket.SerializableLayer
	typ := layers.EthernetTypeIPv4
	if tunnel.Source.Is4() {
		if tunnel.Spread {
			binary.BigEndian.PutUint16(src[2:], uint16(hash>>48))
		}
		outer = &layers.IPv4{
			Version: 4, TOS: s.TOS, Flags: layers.IPv4DontFragment, TTL: 64,
			Protocol: next, SrcIP: src, DstIP: dst,
		}
	} else {
		typ = layers.EthernetTypeIPv6
		if tunnel.Spread {
			binary.BigEndian.PutUint32(src[12:], uint32(hash>>32))
		}
		outer = &layers.IPv6{
			Version: 6, TrafficClass: s.TOS, FlowLabel: uint32(hash & 0xfffff), HopLimit: 64,
			NextHeader: next, SrcIP: src, DstIP: dst,
		}
	}
	eth := &layers.Ethernet{SrcMAC: weirMAC.HardwareAddr(), DstMAC: backendMAC.HardwareAddr(), EthernetType: typ}
	stack := []gopacket.SerializableLayer{eth}
	if vlan != 0 {
		eth.EthernetType = layers.EthernetTypeDot1Q
		stack = append(stack, &layers.Dot1Q{VLANIdentifier: vlan, Type: typ})
	}
	b := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(b, options, append(stack, outer, gopacket.Payload(inner))...); err != nil {
		panic(err)
	}
	return b.Bytes()
}

type mode struct {
	name   string
	tunnel *rewrite.Tunnel // nil: DSR
}

func modes() []mode {
	spread4, spread6 := spread(tunnel4), spread(tunnel6)
	return []mode{
		{"dsr", nil}, {"ipip over 4", &tunnel4}, {"ipip over 6", &tunnel6},
		{"ipip over 4 spread", &spread4}, {"ipip over 6 spread", &spread6},
	}
}

func (m mode) make(l rewrite.Link, v6 bool) (rewrite.Rewrite, error) {
	if m.tunnel == nil {
		return rewrite.DSR(l, v6)
	}
	return rewrite.IPIP(l, v6, *m.tunnel)
}

// overhead is the number of bytes put before each IP packet.
func (m mode) overhead() int {
	switch {
	case m.tunnel == nil:
		return 0
	case m.tunnel.Source.Is4():
		return 20
	}
	return 40
}

func TestApply(t *testing.T) {
	for _, m := range modes() {
		for _, v6 := range []bool{false, true} {
			for _, in := range []uint16{0, 7} {
				for _, out := range []uint16{0, 4094} {
					r, err := m.make(link(out), v6)
					if err != nil {
						t.Fatal(err)
					}
					for name, s := range variants(v6) {
						s.VLAN = in
						name := fmt.Sprintf("%s v6=%t vlan %d to %d %s", m.name, v6, in, out, name)
						checkApply(t, name, &r, packettest.Frame(s), wantFrame(s, out, m.tunnel))
					}
				}
			}
		}
	}
}

func checkApply(t *testing.T, name string, r *rewrite.Rewrite, in, want []byte) {
	t.Helper()
	if r.Egress != 3 {
		t.Errorf("%s: egress %d", name, r.Egress)
	}
	f, reason := apply(t, r, in)
	if reason != stats.ReasonNone || f.ID != 9 {
		t.Errorf("%s: reason %v, frame %d", name, reason, f.ID)
		return
	}
	if !bytes.Equal(f.Bytes(), want) {
		t.Errorf("%s:\n got %x\nwant %x", name, f.Bytes(), want)
	}
	if err := packettest.CheckWellFormed(f.Bytes()); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	untouched := buffer(in)
	low := min(f.Start, untouched.Start)
	if !bytes.Equal(f.Buf[:low], untouched.Buf[:low]) || !bytes.Equal(f.Buf[untouched.End:], untouched.Buf[untouched.End:]) {
		t.Errorf("%s: bytes outside the packet have changed", name)
	}
}

// The spread source differs between flows and never between the packets of
// one.
func TestSpreadFollowsTheFlow(t *testing.T) {
	for _, tunnel := range []rewrite.Tunnel{spread(tunnel4), spread(tunnel6)} {
		r, err := rewrite.IPIP(link(0), false, tunnel)
		if err != nil {
			t.Fatal(err)
		}
		outer := func(port uint16, payload string) string {
			s := variants(false)["tcp"]
			s.Src = netip.AddrPortFrom(s.Src.Addr(), port)
			s.Payload = []byte(payload)
			f, _ := apply(t, &r, packettest.Frame(s))
			if tunnel.Source.Is4() {
				return string(f.Bytes()[14+12 : 14+16])
			}
			return string(f.Bytes()[14+8 : 14+24])
		}
		seen := map[string]bool{}
		for port := range uint16(64) {
			a := outer(port, "a")
			if b := outer(port, "longer"); a != b {
				t.Errorf("port %d: one flow has two outer sources %x and %x", port, a, b)
			}
			seen[a] = true
		}
		if len(seen) < 60 {
			t.Errorf("64 flows have %d outer sources", len(seen))
		}
	}
}

func TestMTU(t *testing.T) {
	for _, m := range modes() {
		for _, v6 := range []bool{false, true} {
			for _, vlan := range []uint16{0, 7} {
				l := link(vlan)
				l.MTU = 1280
				r, err := m.make(l, v6)
				if err != nil {
					t.Fatal(err)
				}
				s := variants(v6)["tcp"]
				s.Payload = nil
				headers := len(packettest.Frame(s)) - 14
				fits := l.MTU - m.overhead() - headers
				for _, test := range []struct {
					payload, padding int
					want             stats.Reason
				}{
					{fits, 0, stats.ReasonNone}, {fits + 1, 0, stats.TooBig},
					{fits, 100, stats.ReasonNone}, // padding is not counted
				} {
					s.Payload, s.Padding = make([]byte, test.payload), test.padding
					checkReason(t, &r, packettest.Frame(s), test.want,
						fmt.Sprintf("%s v6=%t payload %d", m.name, v6, test.payload))
				}
			}
		}
	}
}

// checkReason applies r, and expects the frame as it was if that failed.
func checkReason(t *testing.T, r *rewrite.Rewrite, frame []byte, want stats.Reason, name string) {
	t.Helper()
	f, reason := apply(t, r, frame)
	if reason != want {
		t.Errorf("%s: reason %v, want %v", name, reason, want)
	}
	before := buffer(frame)
	if reason != stats.ReasonNone && (f.Start != before.Start || f.End != before.End || !bytes.Equal(f.Buf, before.Buf)) {
		t.Errorf("%s: the frame has changed although it was refused", name)
	}
}

// Only a tunnel takes a hop: without one, weir is a switch.
func TestTTL(t *testing.T) {
	for _, m := range modes() {
		for _, v6 := range []bool{false, true} {
			r, err := m.make(link(0), v6)
			if err != nil {
				t.Fatal(err)
			}
			for ttl := range 3 {
				want := stats.ReasonNone
				if m.tunnel != nil && ttl < 2 {
					want = stats.TTLExpired
				}
				s := variants(v6)["tcp"]
				s.TTL = 1
				frame := packettest.Frame(s)
				setTTL(frame, v6, uint8(ttl))
				checkReason(t, &r, frame, want, fmt.Sprintf("%s v6=%t TTL %d", m.name, v6, ttl))
			}
		}
	}
}

// Two balancers that have each other for a backend send each other nothing. A
// tunnel may lead back through the gateway that the packet came by.
func TestLooped(t *testing.T) {
	for _, m := range modes() {
		for _, v6 := range []bool{false, true} {
			for _, vlan := range []uint16{0, 7} {
				r, err := m.make(link(vlan), v6)
				if err != nil {
					t.Fatal(err)
				}
				for i := range 6 {
					s := variants(v6)["tcp"]
					s.SrcMAC = backendMAC
					s.SrcMAC[i] ^= 0x10 // each byte counts
					checkReason(t, &r, packettest.Frame(s), stats.ReasonNone,
						fmt.Sprintf("%s v6=%t vlan %d from %s", m.name, v6, vlan, s.SrcMAC))
				}
				want := stats.ReasonNone
				if m.tunnel == nil {
					want = stats.Looped
				}
				for name, s := range variants(v6) {
					s.SrcMAC = backendMAC
					checkReason(t, &r, packettest.Frame(s), want,
						fmt.Sprintf("%s v6=%t vlan %d %s from the next hop", m.name, v6, vlan, name))
				}
			}
		}
	}
}

// setTTL exists since the builder takes a TTL of 0 for the default.
func setTTL(frame []byte, v6 bool, ttl uint8) {
	if v6 {
		frame[14+7] = ttl
		return
	}
	ip := packet.IPv4(frame[14:])
	ip.SetTTL(ttl)
	ip.SetChecksum(ip.ComputeChecksum())
}

func TestBuildErrors(t *testing.T) {
	addr := netip.MustParseAddr
	change := func(f func(*rewrite.Link)) rewrite.Link {
		l := link(0)
		f(&l)
		return l
	}
	for name, test := range map[string]struct {
		link   rewrite.Link
		tunnel rewrite.Tunnel
		want   string
	}{
		"fine":               {link(4094), tunnel4, ""},
		"least MTU":          {change(func(l *rewrite.Link) { l.MTU = 68 }), tunnel4, ""},
		"most MTU":           {change(func(l *rewrite.Link) { l.MTU = 65535 }), tunnel6, ""},
		"small MTU":          {change(func(l *rewrite.Link) { l.MTU = 67 }), tunnel4, "MTU 67"},
		"no MTU":             {change(func(l *rewrite.Link) { l.MTU = 0 }), tunnel4, "MTU 0"},
		"negative MTU":       {change(func(l *rewrite.Link) { l.MTU = -1 }), tunnel4, "MTU -1"},
		"large MTU":          {change(func(l *rewrite.Link) { l.MTU = 65536 }), tunnel4, "MTU 65536"},
		"VLAN":               {change(func(l *rewrite.Link) { l.VLAN = 4095 }), tunnel4, "VLAN 4095"},
		"no MAC":             {change(func(l *rewrite.Link) { l.Dst = packet.MAC{} }), tunnel4, "no destination MAC"},
		"families":           {link(0), rewrite.Tunnel{Source: tunnel4.Source, Destination: tunnel6.Destination}, "not of one family"},
		"families reversed":  {link(0), rewrite.Tunnel{Source: tunnel6.Source, Destination: tunnel4.Destination}, "not of one family"},
		"no source":          {link(0), rewrite.Tunnel{Destination: tunnel4.Destination}, "not of one family"},
		"no destination":     {link(0), rewrite.Tunnel{Source: tunnel6.Source}, "not of one family"},
		"nothing":            {link(0), rewrite.Tunnel{}, "not of one family"},
		"mapped source":      {link(0), rewrite.Tunnel{Source: addr("::ffff:10.0.0.2"), Destination: tunnel6.Destination}, "not of one family"},
		"mapped destination": {link(0), rewrite.Tunnel{Source: tunnel6.Source, Destination: addr("::ffff:10.0.0.11")}, "not of one family"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := rewrite.IPIP(test.link, false, test.tunnel)
			checkError(t, "IPIP", err, test.want)
			if !strings.Contains(test.want, "family") {
				_, err := rewrite.DSR(test.link, true)
				checkError(t, "DSR", err, test.want)
			}
		})
	}
}

func checkError(t *testing.T, what string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: error %v, want %q", what, err, want)
	}
}

func TestApplyAllocatesNothing(t *testing.T) {
	for _, m := range modes() {
		for _, v6 := range []bool{false, true} {
			r, err := m.make(link(7), v6)
			if err != nil {
				t.Fatal(err)
			}
			frame := packettest.Frame(variants(v6)["tcp"])
			f := buffer(frame)
			var p packet.Parsed
			if n := testing.AllocsPerRun(100, func() {
				f.Start, f.End = queue.Headroom, uint32(queue.Headroom+len(frame))
				copy(f.Bytes(), frame)
				p.Decode(f.Bytes())
				if reason := r.Apply(&f, &p); reason != stats.ReasonNone {
					t.Fatal(reason)
				}
			}); n != 0 {
				t.Errorf("%s v6=%t: %v allocations per packet", m.name, v6, n)
			}
		}
	}
}

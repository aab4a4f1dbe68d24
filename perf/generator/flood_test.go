package generator

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet/packettest"
	"weir/lab/labtest"
)

// Every frame of a flood is well-formed, and like no other.
func TestFlood(t *testing.T) {
	labtest.NeedRoot(t)
	const frames = 5_000
	type made struct{ sources, ports, sequences map[string]bool }
	flood := func(t *testing.T, opt Options) (all string, m made) {
		g, err := New(opt)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		if err := g.SetRate(Unlimited); err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		m = made{make(map[string]bool), make(map[string]bool), make(map[string]bool)}
		for range frames {
			verdict, b := once(t, g)
			if verdict != 4 { // XDP_REDIRECT
				t.Fatalf("verdict %d", verdict)
			}
			if err := packettest.CheckWellFormed(b); err != nil {
				t.Fatalf("%v: % x", err, b)
			}
			source, port, sequence := checkFlood(t, &opt, b)
			m.sources[source.String()] = true
			m.ports[fmt.Sprint(port)] = true
			m.sequences[fmt.Sprint(sequence)] = true
			text.Write(b)
		}
		return text.String(), m
	}
	for _, syn := range []bool{true, false} {
		for _, test := range []struct {
			prefix  string
			sources int // at least, as few may be there twice
		}{{"0.0.0.0/0", frames - 10}, {"10.0.0.0/8", frames - 50}, {"198.18.0.0/15", frames * 9 / 10}, {"192.0.2.128/25", 128}, {"192.0.2.7/32", 1}} {
			t.Run(fmt.Sprintf("%s SYN %t", test.prefix, syn), func(t *testing.T) {
				stayOnOneCPU(t) // each has a counter of its own
				opt := options
				opt.Flows, opt.Flood, opt.SYN = 0, netip.MustParsePrefix(test.prefix), syn
				first, m := flood(t, opt)
				if len(m.sources) < test.sources {
					t.Errorf("%d sources, want %d at least", len(m.sources), test.sources)
				}
				if len(m.ports) < frames*8/10 {
					t.Errorf("%d ports", len(m.ports))
				}
				if syn && len(m.sequences) < frames-10 {
					t.Errorf("%d sequence numbers", len(m.sequences))
				}
				if again, _ := flood(t, opt); again != first {
					t.Error("another flood with the same seed is another")
				}
				opt.Seed = 1 << 40
				if other, _ := flood(t, opt); other == first {
					t.Error("another seed makes no difference")
				}
			})
		}
	}
}

// checkFlood fails if a well-formed frame is not of the flood.
func checkFlood(t *testing.T, opt *Options, b []byte) (source netip.Addr, port uint16, sequence uint32) {
	t.Helper()
	packet := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	header, _ := packet.NetworkLayer().(*layers.IPv4)
	var to uint16
	switch l := packet.TransportLayer().(type) {
	case *layers.TCP:
		if !opt.SYN || !l.SYN || l.ACK || l.RST || l.FIN || l.Ack != 0 || len(l.Payload) != 0 || len(l.Options) != 1 {
			t.Fatalf("not a connection request: %v", packet)
		}
		port, to, sequence = uint16(l.SrcPort), uint16(l.DstPort), l.Seq
	case *layers.UDP:
		if opt.SYN || len(l.Payload) != 18 {
			t.Fatalf("not a datagram of the flood: %v", packet)
		}
		port, to = uint16(l.SrcPort), uint16(l.DstPort)
	default:
		t.Fatalf("neither TCP nor UDP: %v", packet)
	}
	source = netip.AddrFrom4([4]byte(header.SrcIP))
	if !opt.Flood.Contains(source) || port < 1024 || header.DstIP.String() != opt.To.Addr().String() || to != opt.To.Port() {
		t.Fatalf("from %s port %d to %s port %d", source, port, header.DstIP, to)
	}
	return source, port, sequence
}

// Connections beside a flood open and go on in sequence, all in turn, and the
// flood is what it is without them.
func TestBeside(t *testing.T) {
	labtest.NeedRoot(t)
	stayOnOneCPU(t) // each has a counter of its own
	opt := options
	opt.Flows, opt.Flood, opt.SYN, opt.Beside = 0, netip.MustParsePrefix("10.0.0.0/8"), true, 1000
	g, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := g.SetRate(Unlimited); err != nil {
		t.Fatal(err)
	}
	next := func() []byte {
		verdict, b := once(t, g)
		if verdict != 4 { // XDP_REDIRECT
			t.Fatalf("verdict %d", verdict)
		}
		if err := packettest.CheckWellFormed(b); err != nil {
			t.Fatalf("%v: % x", err, b)
		}
		return b
	}
	sent := func(flood, beside uint64) {
		t.Helper()
		for _, c := range []struct {
			read func() (uint64, error)
			want uint64
		}{{g.Sent, flood}, {g.SentBeside, beside}} {
			if n, err := c.read(); err != nil || n != c.want {
				t.Errorf("counted %d, %v; want %d", n, err, c.want)
			}
		}
	}
	checkFlood(t, &opt, next())
	sent(1, 0)

	sequences := make(map[string]uint32) // of what each connection has opened with
	for _, flags := range []uint8{Open, Acknowledge, Acknowledge} {
		if err := g.SetBeside(flags, Unlimited); err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]bool)
		for range opt.Beside {
			packet := gopacket.NewPacket(next(), layers.LayerTypeEthernet, gopacket.Default)
			ip, _ := packet.NetworkLayer().(*layers.IPv4)
			tcp, _ := packet.TransportLayer().(*layers.TCP)
			if ip == nil || tcp == nil || !FlowSources().Contains(netip.AddrFrom4([4]byte(ip.SrcIP))) ||
				netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip.DstIP)), uint16(tcp.DstPort)) != opt.To {
				t.Fatalf("not of a connection: %v", packet)
			}
			if tcp.SYN != (flags == Open) || tcp.ACK != (flags == Acknowledge) || tcp.FIN || tcp.RST || tcp.PSH || tcp.URG {
				t.Fatalf("flags %#x wanted: %v", flags, packet)
			}
			from := fmt.Sprint(ip.SrcIP, tcp.SrcPort)
			seen[from] = true
			if flags == Open {
				sequences[from] = tcp.Seq
			} else if first, ok := sequences[from]; !ok || tcp.Seq != first+1 {
				t.Fatalf("%s opened with %d, %t, and goes on with %d", from, first, ok, tcp.Seq)
			}
		}
		if len(seen) != int(opt.Beside) {
			t.Errorf("%d connections, want %d", len(seen), opt.Beside)
		}
	}
	if err := g.SetBeside(Acknowledge, 0); err != nil {
		t.Fatal(err)
	}
	checkFlood(t, &opt, next())
	sent(2, 3*uint64(opt.Beside))
}

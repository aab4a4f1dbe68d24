package reconcile

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/dataplane/engine"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// parse returns the configuration with these services, on eth1 and eth2.
func parse(t testing.TB, text string) *config.Config {
	t.Helper()
	cfg, _, err := config.Parse("test.yaml", []byte("node: lb1\ninterfaces: [{name: eth1}, {name: eth2}]\n"+text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// world is what a configuration is compiled against. Every backend is on the
// link of eth1 and answers, unless a test says otherwise.
type world struct{ input }

// checked is put behind the text of a service to have it checked.
const checked = `
    health: {tcp: {}}
`

func newWorld(cfg *config.Config) *world {
	w := &world{input{
		config: cfg,
		hops:   make(map[netip.Addr]nexthop.Hop),
		health: make(map[string]health.Result),
		interfaces: []engine.InterfaceStatus{
			{Name: "eth1", Ifindex: 2, MAC: packet.MAC{2, 0, 0, 0, 1, 1}, MTU: 1500, Up: true, Workers: 1},
			{Name: "eth2", Ifindex: 3, MAC: packet.MAC{2, 0, 0, 0, 1, 2}, MTU: 1500, Up: true, Workers: 1},
		},
	}}
	for i := range cfg.Services {
		for _, b := range cfg.Services[i].Backends {
			last := b.Address.As16()[15]
			source := netip.MustParseAddr("10.0.0.2")
			if b.Address.Is6() {
				source = netip.MustParseAddr("2001:db8::2")
			}
			w.hops[b.Address] = nexthop.Hop{
				Addr: b.Address, State: nexthop.Resolved, Ifindex: 2, Interface: "eth1",
				SrcMAC: nexthop.MAC{2, 0, 0, 0, 1, 1}, DstMAC: nexthop.MAC{2, 0, 0, 0, 2, last},
				Source: source, MTU: 1500,
			}
		}
	}
	return w
}

// hop changes the way to a backend.
func (w *world) hop(addr string, change func(*nexthop.Hop)) {
	a := netip.MustParseAddr(addr)
	h := w.hops[a]
	change(&h)
	w.hops[a] = h
}

func (w *world) sick(service, addr string, state health.State) {
	w.health[service+" "+addr] = health.Result{State: state, LastError: "connection refused", LastDuration: time.Millisecond}
}

func (w *world) compile(t testing.TB, c *compiler) (*snapshot.Snapshot, *View) {
	t.Helper()
	snap, view, err := c.compile(w.input)
	if err != nil {
		t.Fatal(err)
	}
	return snap, view
}

// describe writes a snapshot and its view as text. What is done to packets is
// told from a packet it was done to, decoded by gopacket.
func describe(t testing.TB, cfg *config.Config, snap *snapshot.Snapshot, view *View) string {
	t.Helper()
	var b strings.Builder
	for i := range snap.Services {
		s := &snap.Services[i]
		fmt.Fprintf(&b, "service %d %s: slots %v", i, s.Name, s.Members)
		if s.Affinity == snapshot.AffinitySource {
			b.WriteString(", by source")
		}
		if len(s.Table) == 0 {
			fmt.Fprintf(&b, ", no table: %s", s.Empty)
		}
		b.WriteString("\n")
		for _, claim := range claims(cfg, snap, uint32(i)) {
			fmt.Fprintf(&b, "  %s\n", claim)
		}
	}
	for i := range snap.Backends {
		s := &snap.Backends[i]
		state := map[snapshot.BackendState]string{snapshot.Removed: "removed", snapshot.Keeps: "keeps", snapshot.Active: "active"}[s.State]
		fmt.Fprintf(&b, "slot %d/%d %s", i, s.Generation, state)
		if use, used := view.Slot(uint32(i), s.Generation); used {
			fmt.Fprintf(&b, " %s %s (service %d)", use.Service, use.Backend, s.Service)
		}
		if s.State != snapshot.Removed {
			fmt.Fprintf(&b, ": %s", effect(t, snap, s))
		}
		b.WriteString("\n")
	}
	for i := range view.Services {
		s := &view.Services[i]
		fmt.Fprintf(&b, "%s: %d of %d usable\n", s.Name, s.Usable(), len(s.Backends))
		for k := range s.Backends {
			be := &s.Backends[k]
			fmt.Fprintf(&b, "  %s %s, share %.2f, slots %v", be.Address, be.Status, be.Share, be.Slots)
			if be.Reason != "" {
				fmt.Fprintf(&b, ": %s", be.Reason)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// claims looks up every configured VIP and port in the snapshot.
func claims(cfg *config.Config, snap *snapshot.Snapshot, service uint32) []string {
	found := make(map[string]bool)
	for i := range cfg.Services {
		for _, a := range cfg.Services[i].Addresses {
			addr := packet.Addr16(a)
			vip := snap.VIP(&addr)
			for _, p := range cfg.Services[i].Ports {
				if vip != nil && vip.Service(uint8(p.Proto), p.Lo) == service && vip.Service(uint8(p.Proto), p.Hi) == service {
					found[fmt.Sprintf("%s %s", a, p)] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// effect says what a slot does to a packet of its family.
func effect(t testing.TB, snap *snapshot.Snapshot, s *snapshot.Backend) string {
	t.Helper()
	for _, addrs := range [][2]string{{"198.51.100.7:4000", "203.0.113.1:80"}, {"[2001:db8:7::7]:4000", "[2001:db8:1::1]:80"}} {
		frame := packettest.Frame(packettest.Spec{
			Proto: packet.ProtoUDP, Src: netip.MustParseAddrPort(addrs[0]), Dst: netip.MustParseAddrPort(addrs[1]),
		})
		f := queue.Frame{Buf: append(make([]byte, queue.Headroom), frame...), Start: queue.Headroom}
		f.End = uint32(len(f.Buf))
		var p packet.Parsed
		p.Decode(f.Bytes())
		if reason := s.Rewrite.Apply(&f, &p); reason != stats.ReasonNone {
			t.Fatalf("packet was dropped: %s", reason)
		}
		// A rewrite of the other family makes a frame that contradicts itself.
		if packettest.CheckWellFormed(f.Bytes()) == nil {
			return layersOf(f.Bytes()) + " on " + snap.Interfaces[s.Rewrite.Egress].Name
		}
	}
	return "nonsense"
}

func layersOf(frame []byte) string {
	var words []string
	for _, l := range gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default).Layers() {
		switch l := l.(type) {
		case *layers.Ethernet:
			words = append(words, fmt.Sprintf("%s > %s", l.SrcMAC, l.DstMAC))
		case *layers.Dot1Q:
			words = append(words, fmt.Sprintf("vlan %d", l.VLANIdentifier))
		case *layers.IPv4:
			words = append(words, fmt.Sprintf("(%s > %s)", l.SrcIP, l.DstIP))
		case *layers.IPv6:
			words = append(words, fmt.Sprintf("(%s > %s)", l.SrcIP, l.DstIP))
		}
	}
	return strings.Join(words, " ")
}

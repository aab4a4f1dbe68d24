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

	"weir/controlplane/changelog"
	"weir/controlplane/config"
	"weir/controlplane/health"
	"weir/controlplane/nexthop"
	"weir/dataplane/engine"
	"weir/dataplane/nat"
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

// noon is when a world begins.
var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// world is what a configuration is compiled against. Every backend is on the
// link of eth1 and answers, unless a test says otherwise.
type world struct {
	input
	health map[string]health.Result // by check
	space  *nat.Space

	// What setHop and setHealth have changed.
	moved    changelog.Log[netip.Addr]
	observed changelog.Log[string]
}

// checked is put behind the text of a service to have it checked.
const checked = `
    health: {tcp: {}}
`

func newWorld(cfg *config.Config) *world {
	space := nat.NewSpace()
	w := &world{space: space, health: make(map[string]health.Result), input: input{
		config:  cfg,
		hops:    make(map[netip.Addr]nexthop.Hop),
		changes: changes{all: true},
		interfaces: []engine.InterfaceStatus{
			{Name: "eth1", Ifindex: 2, MAC: packet.MAC{2, 0, 0, 0, 1, 1}, MTU: 1500, Up: true, Workers: 1},
			{Name: "eth2", Ifindex: 3, MAC: packet.MAC{2, 0, 0, 0, 1, 2}, MTU: 1500, Up: true, Workers: 1},
		},
		own:       []nexthop.Address{{Prefix: netip.MustParsePrefix("10.0.0.2/24"), Interface: "eth1"}},
		mtus:      make(map[netip.Addr]int),
		drains:    make(map[member]Drain),
		now:       noon,
		snatSlots: space.Slots,
	}}
	w.input.health = func(check string) health.Result { return w.health[check] }
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

// sick has all checks of a backend end in a state.
func (w *world) sick(service, addr string, state health.State) {
	for _, c := range checks(w.config) {
		if c.ID == service+" "+addr || strings.HasPrefix(c.ID, service+" "+addr+" ") {
			w.health[c.ID] = health.Result{State: state, LastError: "connection refused", LastDuration: time.Millisecond}
		}
	}
}

func (w *world) compile(t testing.TB, c *compiler) (*snapshot.Snapshot, *View) {
	t.Helper()
	out := w.output(t, c)
	return out.snap, out.view
}

func (w *world) output(t testing.TB, c *compiler) output {
	t.Helper()
	out, err := c.compile(w.input)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// describe writes a snapshot and its view as text. What is done to packets is
// told from a packet it was done to, decoded by gopacket. What is as it is by
// default is left out.
func describe(t testing.TB, cfg *config.Config, out output) string {
	t.Helper()
	snap, view := out.snap, out.view
	var b strings.Builder
	for i := range snap.Services {
		s := &snap.Services[i]
		fmt.Fprintf(&b, "service %d %s: slots %v", i, s.Name, s.Members)
		if s.Affinity == snapshot.AffinitySource {
			fmt.Fprintf(&b, ", by %d bits of the source", s.AffinityBits)
		}
		if s.Mode != snapshot.Direct {
			fmt.Fprintf(&b, ", %s", map[snapshot.Mode]string{snapshot.NAT: "nat", snapshot.NATKeep: "nat that keeps"}[s.Mode])
		}
		if s.ID != uint32(i) {
			fmt.Fprintf(&b, ", ID %d", s.ID)
		}
		if len(s.Table) == 0 {
			fmt.Fprintf(&b, ", no table: %s", s.Empty)
		}
		b.WriteString("\n")
		describeDoor(&b, s)
		for _, claim := range claims(cfg, snap, uint32(i)) {
			fmt.Fprintf(&b, "  %s\n", claim)
		}
	}
	for i := range uint32(snap.Slots()) {
		s := snap.Backend(i)
		state := map[snapshot.BackendState]string{snapshot.Removed: "removed", snapshot.Keeps: "keeps", snapshot.Active: "active"}[s.State]
		fmt.Fprintf(&b, "slot %d/%d %s", i, s.Generation, state)
		if use, used := view.Slot(uint32(i), s.Generation); used {
			fmt.Fprintf(&b, " %s %s (service %d)", use.Service, use.Backend, s.Service)
		}
		if s.State != snapshot.Removed {
			fmt.Fprintf(&b, ": %s", effect(t, snap, s))
			if room := s.Rewrite.Room(); room < 1460 {
				fmt.Fprintf(&b, ", up to %d bytes", room)
			}
		}
		b.WriteString("\n")
	}
	for i := range view.Services {
		s := &view.Services[i]
		fmt.Fprintf(&b, "%s: %d of %d usable\n", s.Name, s.Usable(), len(s.Backends))
		for k := range s.Backends {
			be := &s.Backends[k]
			fmt.Fprintf(&b, "  %s %s, share %.2f, slots %v", be.Address, be.Status, be.Share, be.Slots)
			if be.Level != steps {
				fmt.Fprintf(&b, ", weight %v of %d", be.WeightNow(), be.Weight)
			}
			if be.MTUSource != MTULink {
				fmt.Fprintf(&b, ", MTU %d %s", be.MTU, be.MTUSource)
			}
			if be.Reason != "" {
				fmt.Fprintf(&b, ": %s", be.Reason)
			}
			b.WriteString("\n")
		}
	}
	describeAddresses(&b, cfg, out)
	return b.String()
}

// describeDoor says what a service keeps out.
func describeDoor(b *strings.Builder, s *snapshot.Service) {
	if l := s.Limits; l.NewFlows.PerSecond+l.Packets.PerSecond > 0 {
		fmt.Fprintf(b, "  each worker lets in %d new flows/s, %d packets/s\n", l.NewFlows.PerSecond, l.Packets.PerSecond)
	}
	if l := s.Limits; l.SourceNewFlows.PerSecond+l.SourcePackets.PerSecond > 0 {
		fmt.Fprintf(b, "  of each /%d: %d new flows/s, %d packets/s\n", l.SourceBits, l.SourceNewFlows.PerSecond, l.SourcePackets.PerSecond)
	}
	if s.ACL == nil {
		return
	}
	for _, text := range []string{"192.0.2.1", "192.0.2.7", "198.51.100.7", "2001:db8:7::7"} {
		addr := packet.Addr16(netip.MustParseAddr(text))
		fmt.Fprintf(b, "  lets %s in: %v\n", text, s.ACL.Allows(&addr))
	}
}

// describeAddresses says what weir does as a host, and what it takes from the
// kernel beyond the VIPs.
func describeAddresses(b *strings.Builder, cfg *config.Config, out output) {
	for _, a := range VIPs(cfg) {
		addr := packet.Addr16(a)
		p := out.snap.VIP(&addr).Policy
		if p.Mute {
			fmt.Fprintf(b, "%s does not answer ping\n", a)
		}
		if p.Reject != snapshot.RejectSilently {
			fmt.Fprintf(b, "%s rejects: %d\n", a, p.Reject)
		}
	}
	for _, all := range [][]snapshot.SNAT{out.snap.SNAT4, out.snap.SNAT6} {
		for _, a := range all {
			fmt.Fprintf(b, "SNAT %s %d-%d, slot %d, shared %v\n", packet.NetipAddr(a.Addr), a.Range.Lo, a.Range.Hi, a.Range.Slot, a.Shared)
		}
	}
	if want := VIPs(cfg); !slices.Equal(out.set.VIPs, want) {
		fmt.Fprintf(b, "taken from the kernel: %v\n", out.set.VIPs)
	}
	for _, s := range out.set.Shared {
		fmt.Fprintf(b, "taken from the kernel: ports %d-%d of %s\n", s.Lo, s.Hi, s.Addr)
	}
	for _, a := range out.set.Answers {
		fmt.Fprintf(b, "taken from the kernel: answers of %s from port %d/%d, unless to %v\n", a.Addr, a.Proto, a.Port, out.set.Local)
	}
	for _, a := range out.set.Tunnels {
		fmt.Fprintf(b, "taken from the kernel: what is too big for the tunnel to %s\n", a)
	}
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
	on := " on " + snap.Interfaces[s.Rewrite.Egress].Name
	if snap.Services[s.Service].Mode != snapshot.Direct {
		f := queue.Frame{Buf: make([]byte, queue.Headroom+40), Start: queue.Headroom, End: queue.Headroom + 40}
		s.Rewrite.Frame(&f, f.Start)
		eth := packet.Ethernet(f.Bytes())
		return fmt.Sprintf("%s > %s, to %s port %d%s", eth.Src(), eth.Dst(), packet.NetipAddr(s.Addr), s.Port, on)
	}
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
			return layersOf(f.Bytes()) + on
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

// setHop and setHealth change the way to a backend, and what a check has found.
func (w *world) setHop(a netip.Addr, change func(*nexthop.Hop)) {
	h := w.hops[a]
	change(&h)
	w.hops[a] = h
	w.moved.Add(a)
}

func (w *world) setHealth(check string, r health.Result) {
	w.health[check] = r
	w.observed.Add(check)
}

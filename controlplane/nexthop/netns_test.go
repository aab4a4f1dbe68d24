package nexthop

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/lab/labtest"
)

// pair is the machine with weir, and a server on its eth1.
func pair(t *testing.T) (weir, server *host) {
	t.Helper()
	labtest.NeedRoot(t)
	weir, server = newHost(t), newHost(t)
	cable(weir, server, "eth1", "srv1",
		[]string{"10.0.0.2/24", "2001:db8::2/64"}, []string{"10.0.0.9/24", "2001:db8::9/64"})
	return weir, server
}

func TestKernelResolves(t *testing.T) {
	weir, server := pair(t)
	tr := weir.track("10.0.0.9", "2001:db8::9")
	for addr, source := range map[string]string{"10.0.0.9": "10.0.0.2", "2001:db8::9": "2001:db8::2"} {
		got := await(t, tr, addr, "resolve", isResolved)
		want := Hop{
			Addr: netip.MustParseAddr(addr), State: Resolved,
			Ifindex: weir.link("eth1").Attrs().Index, Interface: "eth1",
			SrcMAC: weir.mac("eth1"), DstMAC: server.mac("srv1"),
			Source: netip.MustParseAddr(source), MTU: 1500,
		}
		if got != want {
			t.Errorf("\n got %+v\nwant %+v", got, want)
		}
	}
}

func TestKernelOwnAddresses(t *testing.T) {
	weir, _ := pair(t)
	tr := weir.track()
	has := func(addr string, want bool) {
		t.Helper()
		a := netip.MustParseAddr(addr)
		for deadline := time.Now().Add(20 * time.Second); slices.ContainsFunc(tr.Addresses(), func(o Address) bool { return o.Prefix.Addr() == a }) != want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("own addresses are %v; is %s to be one: %v", tr.Addresses(), addr, want)
			}
		}
	}
	has("10.0.0.2", true)
	has("2001:db8::2", true)
	has("10.0.0.9", false)
	weir.addr("lo", "192.0.2.77/32")
	has("192.0.2.77", true)
	a, err := netlink.ParseAddr("192.0.2.77/32")
	weir.must(err)
	weir.must(weir.AddrDel(weir.link("lo"), a))
	has("192.0.2.77", false)
}

func TestKernelMACChange(t *testing.T) {
	weir, server := pair(t)
	tr := weir.track("10.0.0.9", "2001:db8::9")
	await(t, tr, "10.0.0.9", "resolve", isResolved)
	await(t, tr, "2001:db8::9", "resolve", isResolved)
	mac := MAC{2, 0, 0, 0, 0xbe, 0xef}
	server.must(server.LinkSetHardwareAddr(server.link("srv1"), mac[:]))
	for _, addr := range []string{"10.0.0.9", "2001:db8::9"} {
		await(t, tr, addr, "new MAC of the server", func(h Hop) bool { return h.State == Resolved && h.DstMAC == mac })
	}
	weir.must(weir.LinkSetHardwareAddr(weir.link("eth1"), net.HardwareAddr{2, 0, 0, 0, 0xca, 0xfe}))
	await(t, tr, "10.0.0.9", "new MAC of our own", func(h Hop) bool { return h.State == Resolved && h.SrcMAC == weir.mac("eth1") })
}

func TestKernelRouteMoves(t *testing.T) {
	weir, server := pair(t)
	cable(weir, server, "eth2", "srv2", []string{"10.0.2.2/24"}, []string{"10.0.2.9/24"})
	server.addr("lo", "192.0.2.9/32")
	by := func(gateway string) func(*netlink.Route) {
		return func(r *netlink.Route) { r.Gw, r.MTU = net.ParseIP(gateway), 1400 }
	}
	weir.route("192.0.2.0/24", "eth1", by("10.0.0.9"))
	tr := weir.track("192.0.2.9", "10.0.0.9")
	got := await(t, tr, "192.0.2.9", "by the gateway", isResolved)
	if got.Interface != "eth1" || got.Gateway != netip.MustParseAddr("10.0.0.9") || got.DstMAC != server.mac("srv1") || got.MTU != 1400 {
		t.Errorf("got %+v", got)
	}
	weir.route("192.0.2.0/24", "eth2", by("10.0.2.9"))
	got = await(t, tr, "192.0.2.9", "by the other gateway", func(h Hop) bool { return h.State == Resolved && h.Interface == "eth2" })
	if got.Gateway != netip.MustParseAddr("10.0.2.9") || got.DstMAC != server.mac("srv2") || got.SrcMAC != weir.mac("eth2") ||
		got.Source != netip.MustParseAddr("10.0.2.2") {
		t.Errorf("got %+v", got)
	}
	if h := tr.Hops()[netip.MustParseAddr("10.0.0.9")]; h.Interface != "eth1" {
		t.Errorf("the other backend moved too: %+v", h)
	}
}

func TestKernelLinkLocalGateways(t *testing.T) {
	weir, server := pair(t)
	server.addr("srv1", "fe80::99/64")
	gateway := net.ParseIP("fe80::99")
	weir.route("2001:db8:5::/48", "eth1", func(r *netlink.Route) { r.Gw = gateway })
	weir.route("192.0.2.0/24", "eth1", func(r *netlink.Route) {
		r.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: gateway}
	})
	tr := weir.track("2001:db8:5::9", "192.0.2.9")
	for _, addr := range []string{"2001:db8:5::9", "192.0.2.9"} {
		got := await(t, tr, addr, "resolve", isResolved)
		if got.Gateway != netip.MustParseAddr("fe80::99") || got.DstMAC != server.mac("srv1") {
			t.Errorf("got %+v", got)
		}
	}
}

// A server that vanishes sends nothing that would tell. The address is taken
// away from it, so that nobody answers for it any more.
func TestKernelSilentServer(t *testing.T) {
	weir, server := pair(t)
	tr := weir.track("10.0.0.9", "2001:db8::9", "10.0.0.77")
	await(t, tr, "10.0.0.77", "never there", because("10.0.0.77 does not answer ARP on eth1"))
	for _, backend := range []struct{ addr, prefix, protocol string }{
		{"10.0.0.9", "10.0.0.9/24", "ARP"}, {"2001:db8::9", "2001:db8::9/64", "NDP"},
	} {
		await(t, tr, backend.addr, "resolve", isResolved)
		a, err := netlink.ParseAddr(backend.prefix)
		server.must(err)
		server.must(server.AddrDel(server.link("srv1"), a))
		await(t, tr, backend.addr, "vanish", because(backend.addr+" does not answer "+backend.protocol+" on eth1"))
		server.addr("srv1", backend.prefix)
		await(t, tr, backend.addr, "come back", isResolved)
	}
}

// While a silent server is asked for again and again, its hop must not flap.
func TestKernelSilentServerStaysUnreachable(t *testing.T) {
	weir, _ := pair(t)
	tr := weir.track("10.0.0.77")
	await(t, tr, "10.0.0.77", "silence", because("10.0.0.77 does not answer ARP on eth1"))
	weir.must(weir.NeighDel(&netlink.Neigh{LinkIndex: weir.link("eth1").Attrs().Index, IP: net.ParseIP("10.0.0.77")}))
	select {
	case <-tr.Changes():
		t.Errorf("changed to %+v", tr.Hops())
	case <-time.After(2 * beat):
	}
}

func TestKernelLinkDown(t *testing.T) {
	weir, server := pair(t)
	tr := weir.track("10.0.0.9", "2001:db8::9")
	await(t, tr, "10.0.0.9", "resolve", isResolved)
	await(t, tr, "2001:db8::9", "resolve", isResolved)

	server.down("srv1") // takes the carrier away
	await(t, tr, "10.0.0.9", "no carrier", because("interface eth1 is down"))
	await(t, tr, "2001:db8::9", "no carrier", because("interface eth1 is down"))
	server.up("srv1")
	await(t, tr, "10.0.0.9", "carrier", isResolved)

	weir.down("eth1") // takes the routes away
	await(t, tr, "10.0.0.9", "switched off", because("interface eth1 is down"))
	weir.up("eth1")
	await(t, tr, "10.0.0.9", "switched on", isResolved)

	weir.must(weir.LinkDel(weir.link("eth1")))
	await(t, tr, "10.0.0.9", "removed", because("no route to 10.0.0.9"))
}

// The MAC must not be lost for the time the kernel needs to find it again.
func TestKernelFlushIsNotNoticed(t *testing.T) {
	weir, _ := pair(t)
	tr := weir.track("10.0.0.9")
	await(t, tr, "10.0.0.9", "resolve", isResolved)
	entry := &netlink.Neigh{LinkIndex: weir.link("eth1").Attrs().Index, IP: net.ParseIP("10.0.0.9")}
	limit := time.After(20 * time.Second)
	for flushed := 0; flushed < 3; {
		if weir.NeighDel(entry) == nil { // or else it has not been found again yet
			flushed++
		}
		select {
		case <-tr.Changes():
			t.Fatalf("changed to %+v", tr.Hops())
		case <-limit:
			t.Fatal("the kernel was not asked to find the neighbour again")
		case <-time.After(settle):
		}
	}
}

func TestKernelPermanentEntry(t *testing.T) {
	weir, _ := pair(t)
	mac := MAC{2, 0, 0, 0, 0, 0x77}
	entry := &netlink.Neigh{
		LinkIndex: weir.link("eth1").Attrs().Index, IP: net.ParseIP("10.0.0.77"),
		State: netlink.NUD_PERMANENT, HardwareAddr: mac[:],
	}
	tr := weir.track("10.0.0.77")
	await(t, tr, "10.0.0.77", "silence", because("10.0.0.77 does not answer ARP on eth1"))
	weir.must(weir.NeighSet(entry))
	await(t, tr, "10.0.0.77", "permanent", func(h Hop) bool { return h.State == Resolved && h.DstMAC == mac })
	time.Sleep((askMissing + 1) * beat) // long enough for a probe that must not be
	list, err := weir.NeighList(entry.LinkIndex, unix.AF_INET)
	weir.must(err)
	for _, n := range list {
		if n.IP.Equal(entry.IP) && n.State != netlink.NUD_PERMANENT {
			t.Errorf("the entry is no longer permanent: state %#x", n.State)
		}
	}
}

func TestKernelNoWay(t *testing.T) {
	weir, _ := pair(t)
	for prefix, kind := range map[string]int{
		"192.0.2.1/32": unix.RTN_BLACKHOLE, "2001:db8:1::1/128": unix.RTN_BLACKHOLE,
		"192.0.2.2/32": unix.RTN_UNREACHABLE, "2001:db8:1::2/128": unix.RTN_UNREACHABLE,
		"192.0.2.3/32": unix.RTN_PROHIBIT, "2001:db8:1::3/128": unix.RTN_PROHIBIT,
	} {
		weir.route(prefix, "", func(r *netlink.Route) { r.Type = kind })
	}
	reasons := map[string]string{
		"192.0.2.1":     "the route to 192.0.2.1 is a blackhole",
		"2001:db8:1::1": "the route to 2001:db8:1::1 is a blackhole",
		"192.0.2.2":     "the route to 192.0.2.2 is of type unreachable",
		"2001:db8:1::2": "the route to 2001:db8:1::2 is of type unreachable",
		"192.0.2.3":     "the route to 192.0.2.3 is of type prohibit",
		"2001:db8:1::3": "the route to 2001:db8:1::3 is of type prohibit",
		"198.51.100.1":  "no route to 198.51.100.1",
		"2001:db8:9::1": "no route to 2001:db8:9::1",
		"10.0.0.2":      "10.0.0.2 is an address of this machine",
		"2001:db8::2":   "2001:db8::2 is an address of this machine",
		"127.0.0.1":     "127.0.0.1 is an address of this machine",
		"10.0.0.255":    "10.0.0.255 is a broadcast address",
	}
	var targets []string
	for addr := range reasons {
		targets = append(targets, addr)
	}
	tr := weir.track(targets...)
	for addr, reason := range reasons {
		await(t, tr, addr, reason, because(reason))
	}
	// An address that is given to this machine, and taken away again.
	await(t, tr, "198.51.100.1", "at first", because("no route to 198.51.100.1"))
	weir.addr("lo", "198.51.100.1/32")
	await(t, tr, "198.51.100.1", "ours", because("198.51.100.1 is an address of this machine"))
}

// A policy routing rule is a change that no route tells of.
func TestKernelRule(t *testing.T) {
	weir, server := pair(t)
	cable(weir, server, "eth2", "srv2", []string{"10.0.2.2/24"}, []string{"10.0.2.9/24"})
	weir.route("192.0.2.0/24", "eth1", func(r *netlink.Route) { r.Gw = net.ParseIP("10.0.0.9") })
	weir.route("192.0.2.0/24", "eth2", func(r *netlink.Route) { r.Gw, r.Table = net.ParseIP("10.0.2.9"), 100 })
	tr := weir.track("192.0.2.9")
	await(t, tr, "192.0.2.9", "main table", func(h Hop) bool { return h.State == Resolved && h.Interface == "eth1" })
	rule := netlink.NewRule()
	rule.Table, rule.Priority = 100, 100
	weir.must(weir.RuleAdd(rule))
	await(t, tr, "192.0.2.9", "other table", func(h Hop) bool { return h.State == Resolved && h.Interface == "eth2" })
}

// What the regular refresh would find too must be notified all the same.
func TestKernelNotifies(t *testing.T) {
	rule := func(family int) func(*host) error {
		return func(h *host) error {
			r := netlink.NewRule()
			r.Family, r.Table, r.Priority = family, 100, 100
			return h.RuleAdd(r)
		}
	}
	address := func(prefix string) func(*host) error {
		return func(h *host) error {
			h.addr("lo", prefix)
			return nil
		}
	}
	route := func(prefix string) func(*host) error {
		return func(h *host) error {
			h.route(prefix, "", func(r *netlink.Route) { r.Type = unix.RTN_BLACKHOLE })
			return nil
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*host) error
		want   eventKind
		prefix string
	}{
		{"IPv4 rule", rule(unix.AF_INET), anyRouteChanged, ""},
		{"IPv6 rule", rule(unix.AF_INET6), anyRouteChanged, ""},
		{"IPv4 address", address("192.0.2.1/24"), anyRouteChanged, ""},
		{"IPv6 address", address("2001:db8:7::1/64"), anyRouteChanged, ""},
		{"IPv4 route", route("192.0.2.0/24"), routeChanged, "192.0.2.0/24"},
		{"IPv6 route", route("2001:db8:7::/48"), routeChanged, "2001:db8:7::/48"},
		{"default route", route("0.0.0.0/0"), routeChanged, "0.0.0.0/0"},
		{"link", func(h *host) error { return h.LinkSetMTU(h.link("eth1"), 1400) }, linkChanged, ""},
		{"link gone", func(h *host) error { return h.LinkDel(h.link("eth1")) }, linkGone, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			weir, _ := pair(t)
			k := weir.openIn()
			weir.must(tt.change(weir))
			for {
				events, err := k.Receive()
				if err != nil {
					t.Fatalf("not notified: %v", err)
				}
				for _, e := range events {
					if e.kind == tt.want && (tt.prefix == "" || e.prefix == netip.MustParsePrefix(tt.prefix)) {
						return
					}
				}
			}
		})
	}
}

// When the socket's buffer has no room, Receive must not go on as if nothing
// had been lost.
func TestKernelOverrun(t *testing.T) {
	weir, _ := pair(t)
	k := weir.openIn()
	weir.must(k.events.SetReceiveBufferSize(1, false))
	for range 100 {
		weir.must(weir.LinkSetMTU(weir.link("eth1"), 1400))
		weir.must(weir.LinkSetMTU(weir.link("eth1"), 1500))
	}
	for {
		if _, err := k.Receive(); errors.Is(err, unix.ENOBUFS) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

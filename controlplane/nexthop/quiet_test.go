package nexthop

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/lab/labtest"
)

// quietPair is a pair whose server announces nothing, on a kernel that trusts
// an answer for as long as kernels do if nobody says otherwise.
func quietPair(t *testing.T) (weir, server *host) {
	t.Helper()
	labtest.NeedRoot(t)
	weir, server = newHost(t), newHost(t)
	server.set("ipv4/conf/default/arp_notify", "0")
	server.set("ipv6/conf/default/ndisc_notify", "0")
	cablePatient(weir, server, "eth1", "srv1",
		[]string{"10.0.0.2/24", "2001:db8::2/64"}, []string{"10.0.0.9/24", "2001:db8::9/64"})
	return weir, server
}

// tolerance is how long a quiet change may take at most: less than the
// 15 seconds for which a kernel trusts an answer at least, and than the 5 that
// it takes if it has to be doubted first; much more than weir needs.
const tolerance = 3 * time.Second

// awaitSoon is await, and tells how long it took.
func awaitSoon(t *testing.T, tr *Tracker, addr, what string, ok func(Hop) bool) {
	t.Helper()
	start := time.Now()
	await(t, tr, addr, what, ok)
	took := time.Since(start)
	t.Logf("%s: %s: after %v", addr, what, took.Round(time.Millisecond))
	if took > tolerance {
		t.Errorf("%s: %s: took %v", addr, what, took)
	}
}

// Another machine takes an address over and says nothing.
func TestKernelQuietMACChange(t *testing.T) {
	for _, addr := range []string{"10.0.0.9", "2001:db8::9"} {
		t.Run(addr, func(t *testing.T) {
			weir, server := quietPair(t)
			tr := weir.track(addr)
			await(t, tr, addr, "resolve", isResolved)
			time.Sleep(3 * time.Second) // the kernel does not look for it any more
			for i := range 3 {
				mac := MAC{2, 0, 0, 0, 0xbe, byte(i)}
				server.must(server.LinkSetHardwareAddr(server.link("srv1"), mac[:]))
				awaitSoon(t, tr, addr, "new MAC", func(h Hop) bool { return h.State == Resolved && h.DstMAC == mac })
			}
		})
	}
}

// The same for gateways, one of them of the other family, and with a source
// address of the route that is on another interface.
func TestKernelQuietGateway(t *testing.T) {
	weir, server := quietPair(t)
	server.addr("srv1", "fe80::99/64")
	weir.addr("lo", "192.0.2.1/32")
	weir.route("198.51.100.0/24", "eth1", func(r *netlink.Route) {
		r.Gw, r.Src = net.ParseIP("10.0.0.9"), net.ParseIP("192.0.2.1")
	})
	weir.route("203.0.113.0/24", "eth1", func(r *netlink.Route) {
		r.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: net.ParseIP("fe80::99")}
	})
	// As routers do, the server answers its own network only.
	server.set("ipv4/conf/srv1/rp_filter", "1")
	backends := []string{"198.51.100.9", "203.0.113.9"}
	tr := weir.track(backends...)
	for _, addr := range backends {
		await(t, tr, addr, "resolve", isResolved)
	}
	time.Sleep(2 * time.Second)
	mac := MAC{2, 0, 0, 0, 0xbe, 0xef}
	server.must(server.LinkSetHardwareAddr(server.link("srv1"), mac[:]))
	for _, addr := range backends {
		awaitSoon(t, tr, addr, "new MAC", func(h Hop) bool { return h.State == Resolved && h.DstMAC == mac })
	}
}

// The kernel's entry for a server that answers stays reachable, without ever
// having been anything else, although the kernel itself sends it nothing.
func TestKernelPolledStaysReachable(t *testing.T) {
	weir, _ := quietPair(t)
	for _, family := range []string{"ipv4", "ipv6"} { // it would be stale within 4.5 seconds
		weir.set(family+"/neigh/eth1/base_reachable_time_ms", "3000")
	}
	tr := weir.track("10.0.0.9", "2001:db8::9")
	for _, addr := range []string{"10.0.0.9", "2001:db8::9"} {
		await(t, tr, addr, "resolve", isResolved)
	}
	time.Sleep(2 * roundSlots * slot)
	k := weir.openIn()
	time.Sleep(6 * time.Second)
	weir.must(weir.LinkSetMTU(weir.link("eth1"), 1400)) // marks the end
	for {
		events, err := k.Receive()
		weir.must(err)
		for _, e := range events {
			if e.kind == linkChanged {
				return
			}
			if _, polled := tr.Hops()[e.neighbour.addr]; polled {
				t.Fatalf("changed to %+v", e.neighbour)
			}
		}
	}
}

// What a server that vanishes leaves behind is found by the kernel, at weir's
// instance; by itself it would take half a minute.
func TestKernelSilentServerIsDoubted(t *testing.T) {
	weir, server := quietPair(t)
	tr := weir.track("10.0.0.9", "2001:db8::9")
	await(t, tr, "10.0.0.9", "resolve", isResolved)
	await(t, tr, "2001:db8::9", "resolve", isResolved)
	for _, prefix := range []string{"10.0.0.9/24", "2001:db8::9/64"} {
		a, err := netlink.ParseAddr(prefix)
		server.must(err)
		server.must(server.AddrDel(server.link("srv1"), a))
	}
	start := time.Now()
	for addr, protocol := range map[string]string{"10.0.0.9": "ARP", "2001:db8::9": "NDP"} {
		await(t, tr, addr, "vanish", because(addr+" does not answer "+protocol+" on eth1"))
		t.Logf("%s is unreachable after %v", addr, time.Since(start).Round(time.Millisecond))
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
}

// An interface that is replaced by another needs another socket.
func TestKernelQuietAfterNewInterface(t *testing.T) {
	weir, server := quietPair(t)
	tr := weir.track("10.0.0.9")
	await(t, tr, "10.0.0.9", "resolve", isResolved)
	time.Sleep(2 * beat)
	weir.must(weir.LinkDel(weir.link("eth1")))
	await(t, tr, "10.0.0.9", "removed", because("no route to 10.0.0.9"))
	cablePatient(weir, server, "eth1", "srv1", []string{"10.0.0.2/24"}, []string{"10.0.0.9/24"})
	await(t, tr, "10.0.0.9", "resolve again", isResolved)
	weir.down("eth1")
	await(t, tr, "10.0.0.9", "switched off", because("interface eth1 is down"))
	weir.up("eth1")
	await(t, tr, "10.0.0.9", "switched on", isResolved)
	time.Sleep(2 * beat)
	mac := MAC{2, 0, 0, 0, 0xbe, 0xef}
	server.must(server.LinkSetHardwareAddr(server.link("srv1"), mac[:]))
	awaitSoon(t, tr, "10.0.0.9", "new MAC", func(h Hop) bool { return h.State == Resolved && h.DstMAC == mac })
}

// A permanent entry is what somebody wants, even if nobody answers to it.
func TestKernelPermanentEntryIsNotPolled(t *testing.T) {
	weir, server := quietPair(t)
	mac := MAC{2, 0, 0, 0, 0, 0x77}
	weir.must(weir.NeighSet(&netlink.Neigh{
		LinkIndex: weir.link("eth1").Attrs().Index, IP: net.ParseIP("10.0.0.9"),
		State: netlink.NUD_PERMANENT, HardwareAddr: mac[:],
	}))
	var fd int
	server.enter(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0x0608) // ARP, byte-swapped
		return err
	})
	t.Cleanup(func() { _ = unix.Close(fd) })
	tr := weir.track("10.0.0.9")
	await(t, tr, "10.0.0.9", "permanent", func(h Hop) bool { return h.State == Resolved && h.DstMAC == mac })
	time.Sleep(2 * beat)
	var frame [128]byte
	if n, err := unix.Read(fd, frame[:]); err == nil {
		t.Errorf("asked: %x", frame[:n])
	}
	if h := tr.Hops()[netip.MustParseAddr("10.0.0.9")]; h.DstMAC != mac {
		t.Errorf("got %+v", h)
	}
}

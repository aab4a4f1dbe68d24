package nexthop

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// host is one network namespace of a test. It has no name: it goes away with
// the test process at the latest.
type host struct {
	*netlink.Handle
	t  testing.TB
	ns netns.NsHandle
}

// enter runs f on a thread of its own that is in the namespace.
func (h *host) enter(f func() error) {
	h.t.Helper()
	if err := onThread(func() error {
		if err := netns.Set(h.ns); err != nil {
			return err
		}
		return f()
	}); err != nil {
		h.t.Fatal(err)
	}
}

// onThread runs f on a thread that is thrown away after it.
func onThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- f()
	}()
	return <-result
}

func newHost(t testing.TB) *host {
	t.Helper()
	h := &host{t: t}
	err := onThread(func() (err error) {
		if h.ns, err = netns.New(); err != nil {
			return err
		}
		h.Handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() {
		h.Close()
		_ = h.ns.Close()
	})
	h.set("ipv6/conf/default/accept_dad", "0")
	h.set("ipv4/conf/default/arp_notify", "1")   // a new MAC is announced
	h.set("ipv6/conf/default/ndisc_notify", "1") // likewise
	h.up("lo")
	return h
}

// set writes a sysctl of net.
func (h *host) set(name, value string) {
	h.t.Helper()
	h.enter(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) })
}

// hurry makes the kernel give a silent neighbour up within about a second, and
// take a new MAC over at once.
func (h *host) hurry(name string) {
	h.t.Helper()
	for _, family := range []string{"ipv4", "ipv6"} {
		h.set(family+"/neigh/"+name+"/base_reachable_time_ms", "500")
		h.set(family+"/neigh/"+name+"/retrans_time_ms", "100")
		h.set(family+"/neigh/"+name+"/delay_first_probe_time", "0")
	}
	h.set("ipv4/neigh/"+name+"/locktime", "0")
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) link(name string) netlink.Link {
	h.t.Helper()
	l, err := h.LinkByName(name)
	h.must(err)
	return l
}

func (h *host) up(name string)   { h.t.Helper(); h.must(h.LinkSetUp(h.link(name))) }
func (h *host) down(name string) { h.t.Helper(); h.must(h.LinkSetDown(h.link(name))) }

func (h *host) addr(name, prefix string) {
	h.t.Helper()
	a, err := netlink.ParseAddr(prefix)
	h.must(err)
	a.Flags = unix.IFA_F_NODAD
	h.must(h.AddrAdd(h.link(name), a))
}

func (h *host) mac(name string) MAC {
	h.t.Helper()
	mac, _ := macOf(h.link(name).Attrs().HardwareAddr)
	return mac
}

// route replaces the route to a prefix.
func (h *host) route(prefix, name string, change func(*netlink.Route)) {
	h.t.Helper()
	_, dst, err := net.ParseCIDR(prefix)
	h.must(err)
	r := &netlink.Route{Dst: dst}
	if name != "" {
		r.LinkIndex = h.link(name).Attrs().Index
	}
	change(r)
	h.must(h.RouteReplace(r))
}

// cable connects two hosts in a hurry by a veth pair with addresses.
func cable(a, b *host, nameA, nameB string, addrA, addrB []string) {
	a.t.Helper()
	cablePatient(a, b, nameA, nameB, addrA, addrB)
	a.hurry(nameA)
	b.hurry(nameB)
}

// cablePatient does so without the hurry.
func cablePatient(a, b *host, nameA, nameB string, addrA, addrB []string) {
	a.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = nameA
	a.must(a.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: nameB, PeerNamespace: netlink.NsFd(b.ns)}))
	for _, p := range addrA {
		a.addr(nameA, p)
	}
	for _, p := range addrB {
		b.addr(nameB, p)
	}
	a.up(nameA)
	b.up(nameB)
}

// track runs a tracker in the host's namespace until the test ends.
func (h *host) track(targets ...string) *Tracker {
	h.t.Helper()
	tr := New(slog.New(slog.DiscardHandler))
	var addrs []netip.Addr
	for _, s := range targets {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	tr.SetTargets(addrs)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- onThread(func() error {
			if err := netns.Set(h.ns); err != nil {
				return err
			}
			return tr.Run(ctx)
		})
	}()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("Run: %v", err)
		}
	})
	return tr
}

// await waits until a hop is as wanted, and reports what it is if that does
// not happen. The time limit only bounds a failing test.
func await(t testing.TB, tr *Tracker, addr, what string, ok func(Hop) bool) Hop {
	t.Helper()
	a := netip.MustParseAddr(addr)
	limit := time.After(20 * time.Second)
	for {
		hop, found := tr.Hops()[a]
		if found && ok(hop) {
			return hop
		}
		select {
		case <-tr.Changes():
		case <-limit:
			t.Fatalf("%s: %s: still %+v", addr, what, hop)
		}
	}
}

func isResolved(h Hop) bool { return h.State == Resolved }

func because(reason string) func(Hop) bool {
	return func(h Hop) bool { return h.State == Unreachable && h.Reason == reason }
}

// openIn opens the kernel of the host's namespace, without a tracker. A Receive
// that would wait for ever fails.
func (h *host) openIn() *rtnetlink {
	h.t.Helper()
	var k kernel
	h.enter(func() (err error) {
		k, err = openKernel()
		return err
	})
	stop := sync.OnceFunc(k.Close)
	limit := time.AfterFunc(20*time.Second, stop)
	h.t.Cleanup(func() {
		limit.Stop()
		stop()
	})
	return k.(*rtnetlink)
}

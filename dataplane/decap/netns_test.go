package decap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weir/dataplane/xdplink"
	"weir/lab/labtest"
)

const patience = 5 * time.Second

// backend is a network namespace with a NIC "eth0", the VIPs on lo, and weir at
// the other end of the wire. Both namespaces are without a name and end with
// the test's thread, which is in the backend's.
type backend struct {
	nic  netlink.Link
	wire int // AF_PACKET socket at weir's end
	far  int // index of weir's end
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	labtest.NeedRoot(t)
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}

	weirNS, err := netns.New()
	check("new network namespace", err)
	t.Cleanup(func() { weirNS.Close() })
	backendNS, err := netns.New() // and the thread is in it
	check("new network namespace", err)
	t.Cleanup(func() { backendNS.Close() })

	for name, value := range map[string]string{
		"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0", "ipv6/conf/default/accept_dad": "0",
		"ipv4/conf/all/arp_ignore": "1", "ipv4/conf/all/arp_announce": "2",
	} {
		check("set sysctl", os.WriteFile("/proc/sys/net/"+name, []byte(value), 0))
	}
	check("add veth", netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "eth0", HardwareAddr: hostMAC, MTU: 1500}, PeerName: "weir0",
		PeerHardwareAddr: weirMAC, PeerNamespace: netlink.NsFd(weirNS),
	}))
	nic, err := netlink.LinkByName("eth0")
	check("find veth", err)
	lo, err := netlink.LinkByName("lo")
	check("find lo", err)
	check("lo up", netlink.LinkSetUp(lo))
	check("eth0 up", netlink.LinkSetUp(nic))
	for _, a := range []struct {
		dev  netlink.Link
		addr netip.Prefix
	}{
		{lo, netip.PrefixFrom(vips[4], 32)}, {lo, netip.PrefixFrom(vips[6], 128)},
		{nic, netip.PrefixFrom(hosts[4], 24)}, {nic, netip.PrefixFrom(hosts[6], 64)},
	} {
		addAddress(t, a.dev, a.addr)
	}
	b := &backend{nic: nic}

	check("enter weir's namespace", netns.Set(weirNS))
	defer func() { check("back to the backend's namespace", netns.Set(backendNS)) }()
	far, err := netlink.LinkByName("weir0")
	check("find peer", err)
	check("peer up", netlink.LinkSetUp(far))
	b.far = far.Attrs().Index
	b.wire, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	check("packet socket", err)
	t.Cleanup(func() { unix.Close(b.wire) })
	return b
}

func addAddress(t *testing.T, dev netlink.Link, p netip.Prefix) {
	t.Helper()
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(dev, addr); err != nil {
		t.Fatalf("add %s to %s: %v", p, dev.Attrs().Name, err)
	}
}

func (b *backend) send(t *testing.T, headers ...header) {
	t.Helper()
	bytes := frame{to: hostMAC, from: weirMAC, headers: headers}.bytes(t)
	if err := unix.Sendto(b.wire, bytes, 0, &unix.SockaddrLinklayer{Ifindex: b.far}); err != nil {
		t.Fatalf("send: %v", err)
	}
}

// wait polls until ok, and fails the test if that takes too long.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %s in vain: %s", patience, what)
		}
	}
}

func counters(t *testing.T, d *Decap) Counters {
	t.Helper()
	c, err := d.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A real socket on the VIP gets what was sent through the tunnel, from the
// client's address. Before, without the program, it must not.
func TestSocketReceives(t *testing.T) {
	for _, generic := range []bool{false, true} {
		for _, kind := range kinds {
			mode := map[bool]string{false: "native", true: "generic"}[generic]
			t.Run(mode+"/"+kind.name, func(t *testing.T) {
				b := newBackend(t)
				vip := netip.AddrPortFrom(vips[kind.inner], vipPort)
				socket, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(vip))
				if err != nil {
					t.Fatal(err)
				}
				defer socket.Close()
				buf := make([]byte, 1500)
				hello := inner(kind.inner)
				hello.src = foreigns[kind.inner]
				wait(t, "a datagram that is not encapsulated: the kernel is still busy with the addresses", func() bool {
					b.send(t, hello)
					_, _, err := read(t, socket, buf, 20*time.Millisecond)
					return err == nil
				})
				var log strings.Builder
				b.send(t, outer(kind.outer), inner(kind.inner)) // without the program: lost

				d, err := New(Options{
					Interface: "eth0", VIPs: []netip.Addr{vips[4], vips[6]}, Sources: weirPrefixes(), Generic: generic,
					Log: slog.New(slog.NewTextHandler(&log, nil)),
				})
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				if d.Mode() != mode {
					t.Errorf("mode %s, want %s", d.Mode(), mode)
				}
				if log.Len() != 0 {
					t.Errorf("warnings on a host that is as it should be: %s", log.String())
				}

				in := inner(kind.inner)
				in.ecn = 2
				marked := outer(kind.outer)
				marked.ecn = 3 // so that the kernel checks the changed checksum
				notOurs := inner(kind.inner)
				notOurs.dst = foreigns[kind.inner]
				lost := inner(kind.inner)
				b.send(t, outer(kind.outer), notOurs)
				b.send(t, marked, lost)
				b.send(t, marked, in)

				n, from, err := read(t, socket, buf, patience)
				for err == nil && from.Addr() == hello.src {
					n, from, err = read(t, socket, buf, patience)
				}
				if err != nil {
					t.Fatalf("nothing arrived: %v; counters %+v", err, counters(t, d))
				}
				if want := netip.AddrPortFrom(clients[kind.inner], clientPort); string(buf[:n]) != payload || from != want {
					t.Errorf("got %q from %s, want %q from %s", buf[:n], from, payload, want)
				}
				c := counters(t, d)
				stripped := map[string]uint64{"4in4": c.Stripped.IPv4InIPv4, "6in6": c.Stripped.IPv6InIPv6,
					"4in6": c.Stripped.IPv4InIPv6, "6in4": c.Stripped.IPv6InIPv4}
				for name, n := range stripped {
					if want := map[bool]uint64{true: 1}[name == kind.name]; n != want {
						t.Errorf("stripped %d of %s, want %d", n, name, want)
					}
				}
				if c.Passed.InnerDestination != 1 || c.Dropped.ECN != 1 {
					t.Errorf("counters %+v", c)
				}
				if n, _, err := read(t, socket, buf, 10*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("a second datagram, though one was sent that should arrive: %q, %v", buf[:n], err)
				}
			})
		}
	}
}

// read takes one datagram, or fails after patience.
func read(t *testing.T, socket *net.UDPConn, buf []byte, patience time.Duration) (int, netip.AddrPort, error) {
	t.Helper()
	if err := socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return socket.ReadFromUDPAddrPort(buf)
}

func TestForeignProgramIsLeftAlone(t *testing.T) {
	b := newBackend(t)
	theirs, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "firewall", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	index := b.nic.Attrs().Index
	held, err := xdplink.Attach(theirs, index, xdplink.Native)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for _, generic := range []bool{false, true} {
		d, err := New(Options{Interface: "eth0", VIPs: []netip.Addr{vips[4]}, Generic: generic})
		if err == nil {
			d.Close()
			t.Fatal("took the place of another program")
		}
		var foreign *xdplink.ForeignProgramError
		if !errors.As(err, &foreign) || foreign.Name != "firewall" || foreign.Mode != xdplink.Native {
			t.Errorf("got %v", err)
		}
	}
	if err := xdplink.Foreign(index); err == nil {
		t.Error("the other program is gone")
	}
}

func TestClose(t *testing.T) {
	b := newBackend(t)
	d, err := New(Options{Interface: "eth0", VIPs: []netip.Addr{vips[4]}})
	if err != nil {
		t.Fatal(err)
	}
	if xdplink.Foreign(b.nic.Attrs().Index) == nil {
		t.Error("not attached")
	}
	for range 2 {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if err := xdplink.Foreign(b.nic.Attrs().Index); err != nil {
		t.Errorf("still attached: %v", err)
	}
	if _, err := d.Counters(); !errors.Is(err, ErrClosed) {
		t.Errorf("counters after close: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := d.Run(ctx); err != nil {
		t.Errorf("run after close: %v", err)
	}
}

func TestNewReportsMissingInterface(t *testing.T) {
	newBackend(t)
	if _, err := New(Options{Interface: "eth9", VIPs: []netip.Addr{vips[4]}}); err == nil || !strings.Contains(err.Error(), "eth9") {
		t.Errorf("got %v", err)
	}
}

// lo has no native XDP.
func TestFallsBackToGeneric(t *testing.T) {
	newBackend(t)
	var log strings.Builder
	d, err := New(Options{Interface: "lo", VIPs: []netip.Addr{vips[4]}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Mode() != "generic" || !strings.Contains(log.String(), "slower generic mode") {
		t.Errorf("mode %s, log %s", d.Mode(), log.String())
	}
}

func TestNewWarns(t *testing.T) {
	newBackend(t)
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/eth0/rp_filter", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	d, err := New(Options{Interface: "eth0", VIPs: []netip.Addr{vips[4], foreigns[6]}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, want := range []string{"ip addr add 2001:db8:99::99/128 dev lo", "net.ipv4.conf.eth0.rp_filter=2"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in %s", want, log.String())
		}
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 2 {
		t.Errorf("%d warnings, want 2: %s", n, log.String())
	}
}

// The outer destination is checked against the addresses that the host has
// now: with Run also one that came after New, and no more one that went.
func TestRunFollowsAddresses(t *testing.T) {
	b := newBackend(t)
	d, err := New(Options{Interface: "eth0", VIPs: []netip.Addr{vips[4]}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	late := netip.MustParseAddr("10.0.0.77")
	toLate := outer(4)
	toLate.dst = late
	b.send(t, toLate, inner(4))
	wait(t, "a packet to an address the host does not have", func() bool { return counters(t, d).Passed.OuterDestination > 0 })
	if n := counters(t, d).Stripped.IPv4InIPv4; n != 0 {
		t.Fatalf("stripped %d", n)
	}

	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, as its namespace is not the process's
		if err := netns.Set(here); err != nil {
			ended <- fmt.Errorf("enter namespace: %w", err)
			return
		}
		ended <- d.Run(ctx)
	}()

	addAddress(t, b.nic, netip.PrefixFrom(late, 32))
	wait(t, "the late address to be allowed", func() bool {
		b.send(t, toLate, inner(4))
		return counters(t, d).Stripped.IPv4InIPv4 > 0
	})
	if err := netlink.AddrDel(b.nic, &netlink.Addr{IPNet: &net.IPNet{IP: late.AsSlice(), Mask: net.CIDRMask(32, 32)}}); err != nil {
		t.Fatal(err)
	}
	before := counters(t, d).Passed.OuterDestination
	wait(t, "the late address to be forbidden again", func() bool {
		b.send(t, toLate, inner(4))
		return counters(t, d).Passed.OuterDestination > before
	})
	kept := counters(t, d).Stripped.IPv4InIPv4
	b.send(t, outer(4), inner(4))
	wait(t, "the first address, which has stayed", func() bool { return counters(t, d).Stripped.IPv4InIPv4 > kept })
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
}

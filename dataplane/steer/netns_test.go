package steer

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weir/lab/labtest"
)

// wire is a veth pair inside one new network namespace.
type wire struct {
	host, peer netlink.Link
	mac        net.HardwareAddr // of host
}

// newWire moves the test's thread into a new, nameless namespace, which ends
// with the thread, and makes a veth pair in it.
func newWire(t *testing.T) wire {
	t.Helper()
	labtest.NeedRoot(t)
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })

	attrs := netlink.NewLinkAttrs()
	attrs.Name = "host"
	attrs.HardwareAddr = ownMAC
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer", PeerHardwareAddr: peerMAC}); err != nil {
		t.Fatal(err)
	}
	links := make(map[string]netlink.Link)
	for _, name := range []string{"host", "peer"} {
		if links[name], err = netlink.LinkByName(name); err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(links[name]); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { netlink.LinkDel(links["host"]) })
	return wire{host: links["host"], peer: links["peer"], mac: ownMAC}
}

// tap opens an AF_PACKET socket on a link; with a program, only what it keeps
// arrives.
func tap(t *testing.T, on netlink.Link, program int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if program >= 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, program); err != nil {
			t.Fatal(err)
		}
	}
	all := uint16(unix.ETH_P_ALL)
	to := &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: on.Attrs().Index}
	if err := unix.Bind(fd, to); err != nil {
		t.Fatal(err)
	}
	return fd
}

func send(t *testing.T, fd int, frame []byte) {
	t.Helper()
	if _, err := unix.Write(fd, frame); err != nil {
		t.Fatal(err)
	}
}

// On a real socket, the kernel has taken the first 802.1Q tag off, frames come
// with data outside the linear part, and outgoing ones are seen too. A test run
// has none of this.
func TestSocketFilterOnWire(t *testing.T) {
	w := newWire(t)
	f := loaded(t)
	kept := tap(t, w.host, f.Socket().FD())
	outgoing := tap(t, w.host, -1)
	peer := tap(t, w.peer, -1)

	if err := f.Steer(wholeSet); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(kept, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	check := func(name string, frame []byte, weirs bool) {
		t.Helper()
		send(t, peer, frame)
		send(t, outgoing, frame) // weir's own frames, never to be seen again
		if !weirs {
			return // or the next one will not be what it should be
		}
		n, err := unix.Read(kept, buf)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// A tag is out of the frame by the time the socket gets it.
		want := frame
		if proto := frame[12:14]; bytes.Equal(proto, []byte{0x81, 0}) || bytes.Equal(proto, []byte{0x88, 0xa8}) {
			want = append(append([]byte(nil), frame[:12]...), frame[16:]...)
		}
		if !bytes.Equal(buf[:n], want) {
			t.Fatalf("%s:\n got % x\nwant % x", name, buf[:n], want)
		}
	}
	for _, test := range frameCases(t) {
		check(test.name, test.frame, test.weirs)
	}
	for _, test := range novipCases() {
		for i, frame := range test.frames {
			check(test.name, frame, test.weirs[i])
		}
	}
	long := serialize(t, ethernet(w.mac, layers.EthernetTypeIPv4), ip4(vip4, layers.IPProtocolUDP), gopacket.Payload(make([]byte, 1400)))
	check("long frame", long, true)
}

// The kernel has the VIP here, so that it would answer if it saw the frame.
func TestTCHidesFromKernel(t *testing.T) {
	w := newWire(t)
	f := loaded(t)
	for _, ip := range []string{vip4.String(), other4.String()} {
		addr, err := netlink.ParseAddr(ip + "/32")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(w.host, addr); err != nil {
			t.Fatal(err)
		}
	}
	// A way back to the sender, so that no reverse path filter objects.
	back := &net.IPNet{IP: peer4.AsSlice(), Mask: net.CIDRMask(32, 32)}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: w.host.Attrs().Index, Dst: back}); err != nil {
		t.Fatal(err)
	}
	attached, err := link.AttachTCX(link.TCXOptions{Interface: w.host.Attrs().Index, Program: f.TC(), Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, link.ErrNotSupported) {
		t.Skip("kernel without TCX")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()

	socket, err := net.ListenPacket("udp4", "0.0.0.0:7")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	tapped := tap(t, w.host, f.Socket().FD())
	peer := tap(t, w.peer, -1)

	packet := func(to *layers.IPv4, body string) []byte {
		udp := &layers.UDP{SrcPort: 7, DstPort: 7}
		udp.SetNetworkLayerForChecksum(to)
		buf := gopacket.NewSerializeBuffer()
		err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
			ethernet(w.mac, layers.EthernetTypeIPv4), to, udp, gopacket.Payload(body))
		if err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	receive := func() string {
		t.Helper()
		buf := make([]byte, 64)
		socket.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, _, err := socket.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}

	// The kernel gets only the frame after the VIP's; the tap gets the VIP's.
	send(t, peer, packet(ip4(vip4, layers.IPProtocolUDP), "hidden"))
	send(t, peer, packet(ip4(other4, layers.IPProtocolUDP), "the host's own"))
	if got := receive(); got != "the host's own" {
		t.Errorf("kernel got %q", got)
	}
	buf := make([]byte, 2048)
	if n, err := unix.Read(tapped, buf); err != nil || !bytes.Contains(buf[:max(n, 0)], []byte("hidden")) {
		t.Errorf("tap got % x, %v", buf[:max(n, 0)], err)
	}
	// Of an address of the box's own, only the ports that are weir's.
	for _, shared := range []Shared{{other4, 7, 7}, {other4, 8, 9}} {
		if err := f.Steer(Set{VIPs: []netip.Addr{vip4}, Shared: []Shared{shared}}); err != nil {
			t.Fatal(err)
		}
		send(t, peer, packet(ip4(other4, layers.IPProtocolUDP), fmt.Sprintf("weir has %d", shared.Lo)))
	}
	if got := receive(); got != "weir has 8" {
		t.Errorf("kernel got %q", got)
	}
	// Without a sign of life everything is the kernel's.
	if err := f.objects.Maps[steerMapHeartbeat].Put(uint32(0), uint64(0)); err != nil {
		t.Fatal(err)
	}
	send(t, peer, packet(ip4(vip4, layers.IPProtocolUDP), "weir is dead"))
	if got := receive(); got != "weir is dead" {
		t.Errorf("kernel got %q", got)
	}
}

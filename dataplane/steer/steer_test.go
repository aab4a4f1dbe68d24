package steer

import (
	"encoding/binary"
	"net"
	"net/netip"
	"reflect"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"weir/lab/labtest"
)

// Return codes of the programs (linux/bpf.h, linux/pkt_cls.h).
const (
	xdpPass     = 2
	xdpRedirect = 4
	tcNext      = 0xffffffff
	tcShot      = 2
	socketDrop  = 0
	socketKeep  = 0xffffffff
)

var (
	ownMAC    = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x01}
	peerMAC   = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x02}
	groupMAC  = net.HardwareAddr{0x33, 0x33, 0xff, 0, 0, 0x10}
	allNodes  = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 0x01}
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

	vip4   = netip.MustParseAddr("203.0.113.10")
	vip6   = netip.MustParseAddr("2001:db8:1::10")
	other4 = netip.MustParseAddr("203.0.113.11")
	other6 = netip.MustParseAddr("2001:db8:1::11")
	peer4  = netip.MustParseAddr("198.51.100.1")
	peer6  = netip.MustParseAddr("2001:db8:2::1")
)

// loaded returns a Filter that knows ownMAC, vip4 and vip6 and is alive.
func loaded(t testing.TB) *Filter {
	t.Helper()
	labtest.NeedRoot(t)
	f, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	for _, err := range []error{f.SetMAC(ownMAC), f.Steer(Set{VIPs: []netip.Addr{vip4, vip6}}), f.Beat()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// xdpSocket returns an AF_XDP socket that is as far as a socket map asks: it
// has packet memory, a fill ring and a receive ring.
func xdpSocket(t testing.TB) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	const size = 16 * 4096
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	reg := binary.NativeEndian.AppendUint64(nil, uint64(reflect.ValueOf(mem).Pointer()))
	reg = binary.NativeEndian.AppendUint64(reg, size)
	reg = binary.NativeEndian.AppendUint32(reg, 4096)
	reg = append(reg, make([]byte, 12)...)
	if err := unix.SetsockoptString(fd, unix.SOL_XDP, unix.XDP_UMEM_REG, string(reg)); err != nil {
		t.Fatal(err)
	}
	for _, ring := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_RX_RING} {
		if err := unix.SetsockoptInt(fd, unix.SOL_XDP, ring, 16); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

// run executes a program on a frame and returns its verdict.
func run(t testing.TB, program *ebpf.Program, frame []byte) uint32 {
	t.Helper()
	if program.Type() == ebpf.SocketFilter {
		// A test run takes an Ethernet header off before it calls a socket
		// filter (net/bpf/test_run.c); on a SOCK_RAW socket it is still there.
		frame = append(make([]byte, 14), frame...)
	}
	ret, err := program.Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		t.Fatalf("%v on %d bytes: %v", program, len(frame), err)
	}
	return ret
}

// refused tells whether the kernel will not make a TC test run with a frame: it
// wants a whole IP header behind an IP Ethernet type (net/bpf/test_run.c). Such
// a frame is never weir's.
func refused(frame []byte) bool {
	switch proto := binary.BigEndian.Uint16(frame[12:]); layers.EthernetType(proto) {
	case layers.EthernetTypeIPv4:
		return len(frame) < 14+20
	case layers.EthernetTypeIPv6:
		return len(frame) < 14+40
	}
	return false
}

// verdicts runs all three programs and returns whether the frame is weir's. It
// fails if they do not agree, or answer something that is no answer.
func verdicts(t testing.TB, f *Filter, frame []byte) bool {
	t.Helper()
	if err := f.Beat(); err != nil {
		t.Fatal(err)
	}
	xdp, tc, socket := run(t, f.XDP(), frame), uint32(tcNext), run(t, f.Socket(), frame)
	if !refused(frame) {
		tc = run(t, f.TC(), frame)
	}
	switch {
	case xdp == xdpRedirect && tc == tcShot && socket == socketKeep:
		return true
	case xdp == xdpPass && tc == tcNext && socket == socketDrop:
		return false
	}
	t.Fatalf("programs disagree: xdp %d, tc %d, socket %d on % x", xdp, tc, socket, frame)
	return false
}

func serialize(t testing.TB, parts ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, parts...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func ethernet(to net.HardwareAddr, proto layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: peerMAC, DstMAC: to, EthernetType: proto}
}

func ip4(to netip.Addr, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: peer4.AsSlice(), DstIP: to.AsSlice()}
}

func ip6(to netip.Addr, next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: next, SrcIP: peer6.AsSlice(), DstIP: to.AsSlice()}
}

func arp(op uint16, target netip.Addr) *layers.ARP {
	return &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: op, SourceHwAddress: peerMAC, SourceProtAddress: peer4.AsSlice(),
		DstHwAddress: make([]byte, 6), DstProtAddress: target.AsSlice(),
	}
}

// claim is an ARP message from a station that says it has the address sender.
func claim(op uint16, sender, target netip.Addr) *layers.ARP {
	a := arp(op, target)
	a.SourceProtAddress = sender.AsSlice()
	return a
}

func icmp6(kind uint8, target netip.Addr) []gopacket.SerializableLayer {
	body := append(make([]byte, 4), target.AsSlice()...)
	return []gopacket.SerializableLayer{
		&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}, gopacket.Payload(body),
	}
}

// tagged puts 802.1Q tags of these protocols behind the MAC addresses.
func tagged(frame []byte, protos ...uint16) []byte {
	out := append([]byte(nil), frame[:12]...)
	for _, proto := range protos {
		out = binary.BigEndian.AppendUint16(out, proto)
		out = append(out, 0x20, 0x64)
	}
	return append(out, frame[12:]...)
}

type frameCase struct {
	name  string
	frame []byte
	weirs bool
	need  int // bytes without which the frame is the kernel's; zero if it is not weir's
}

func frameCases(t testing.TB) []frameCase {
	v4, v6, isARP := layers.EthernetTypeIPv4, layers.EthernetTypeIPv6, layers.EthernetTypeARP
	udp, tcp, icmp, icmpv6 := layers.IPProtocolUDP, layers.IPProtocolTCP, layers.IPProtocolICMPv4, layers.IPProtocolICMPv6
	body := gopacket.Payload("0123456789abcdefghijklmnop")
	snm := netip.MustParseAddr("ff02::1:ff00:10")

	frame4 := func(mac net.HardwareAddr, to netip.Addr) []byte {
		return serialize(t, ethernet(mac, v4), ip4(to, udp), body)
	}
	frame6 := func(mac net.HardwareAddr, to netip.Addr) []byte {
		return serialize(t, ethernet(mac, v6), ip6(to, tcp), body)
	}
	ask4 := func(mac net.HardwareAddr, op uint16, target netip.Addr) []byte {
		return serialize(t, ethernet(mac, isARP), arp(op, target))
	}
	ask6 := func(mac net.HardwareAddr, to netip.Addr, kind uint8, target netip.Addr) []byte {
		return serialize(t, append([]gopacket.SerializableLayer{ethernet(mac, v6), ip6(to, icmpv6)}, icmp6(kind, target)...)...)
	}
	fragment := ip4(vip4, udp)
	fragment.FragOffset, fragment.Flags = 100, layers.IPv4MoreFragments
	options := ip4(vip4, udp)
	options.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
	claim4 := func(mac net.HardwareAddr, op uint16, sender, target netip.Addr) []byte {
		return serialize(t, ethernet(mac, isARP), claim(op, sender, target))
	}
	all := netip.MustParseAddr("ff02::1")
	strangeARP := arp(1, vip4)
	strangeARP.Protocol = layers.EthernetTypeIPv6

	return []frameCase{
		{"IPv4 to a VIP", frame4(ownMAC, vip4), true, 34},
		{"IPv4 to another address", frame4(ownMAC, other4), false, 0},
		{"IPv4 to a VIP, foreign MAC", frame4(peerMAC, vip4), false, 0},
		{"IPv4 to a VIP, broadcast MAC", frame4(broadcast, vip4), false, 0},
		{"IPv4 fragment to a VIP", serialize(t, ethernet(ownMAC, v4), fragment, body), true, 34},
		{"IPv4 with options to a VIP", serialize(t, ethernet(ownMAC, v4), options, body), true, 34},
		{"ICMP to a VIP", serialize(t, ethernet(ownMAC, v4), ip4(vip4, icmp), body), true, 34},
		{"IPv4 from a VIP", serialize(t, ethernet(ownMAC, v4), &layers.IPv4{Version: 4, TTL: 64, SrcIP: vip4.AsSlice(), DstIP: peer4.AsSlice()}, body), false, 0},

		{"IPv6 to a VIP", frame6(ownMAC, vip6), true, 54},
		{"IPv6 to another address", frame6(ownMAC, other6), false, 0},
		{"IPv6 to a VIP, foreign MAC", frame6(peerMAC, vip6), false, 0},
		{"IPv6 to a VIP, group MAC", frame6(groupMAC, vip6), false, 0},
		{"IPv6 to an IPv4 VIP in mapped form", frame6(ownMAC, netip.AddrFrom16(vip4.As16())), false, 0},
		{"ICMPv6 echo to a VIP", ask6(ownMAC, vip6, 128, other6), true, 54},

		{"ARP request for a VIP", ask4(broadcast, 1, vip4), true, 42},
		{"ARP request for a VIP, own MAC", ask4(ownMAC, 1, vip4), true, 42},
		{"ARP request for a VIP, foreign MAC", ask4(peerMAC, 1, vip4), false, 0},
		{"ARP request for another address", ask4(broadcast, 1, other4), false, 0},
		{"ARP reply to a VIP", ask4(ownMAC, 2, vip4), false, 0},
		{"ARP reply to all from another address", ask4(broadcast, 2, peer4), false, 0},
		{"ARP claim of a VIP by request", claim4(broadcast, 1, vip4, vip4), true, 42},
		{"ARP claim of a VIP by reply", claim4(broadcast, 2, vip4, vip4), true, 42},
		{"ARP request from a VIP for another address", claim4(broadcast, 1, vip4, other4), true, 42},
		{"ARP reply from a VIP, own MAC", claim4(ownMAC, 2, vip4, other4), true, 42},
		{"ARP reply from a VIP, foreign MAC", claim4(peerMAC, 2, vip4, other4), false, 0},
		{"ARP claim of a VIP, group MAC", claim4(allNodes, 2, vip4, vip4), false, 0},
		{"ARP of another operation from a VIP", claim4(broadcast, 8, vip4, vip4), false, 0},
		{"ARP reply of a backend", claim4(ownMAC, 2, other4, peer4), false, 0},
		{"ARP claim of another address", claim4(broadcast, 1, other4, other4), false, 0},
		{"ARP request of another protocol", serialize(t, ethernet(broadcast, isARP), strangeARP), false, 0},

		{"solicitation for a VIP", ask6(groupMAC, snm, 135, vip6), true, 78},
		{"solicitation for a VIP, own MAC", ask6(ownMAC, snm, 135, vip6), true, 78},
		{"solicitation for a VIP, foreign MAC", ask6(peerMAC, snm, 135, vip6), false, 0},
		{"solicitation for a VIP, all-nodes MAC", ask6(allNodes, snm, 135, vip6), false, 0},
		{"solicitation for another address", ask6(groupMAC, snm, 135, other6), false, 0},
		{"solicitation to the VIP itself", ask6(ownMAC, vip6, 135, vip6), true, 54},
		{"advertisement of a VIP", ask6(allNodes, all, 136, vip6), true, 78},
		{"advertisement of a VIP, own MAC", ask6(ownMAC, other6, 136, vip6), true, 78},
		{"advertisement of a VIP, foreign MAC", ask6(peerMAC, other6, 136, vip6), false, 0},
		{"advertisement of a VIP, solicited-node MAC", ask6(groupMAC, snm, 136, vip6), false, 0},
		{"advertisement of a VIP, all-routers MAC", ask6(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 2}, all, 136, vip6), false, 0},
		{"advertisement of a VIP, broadcast MAC", ask6(broadcast, all, 136, vip6), false, 0},
		{"advertisement of a backend", ask6(ownMAC, other6, 136, other6), false, 0},
		{"advertisement of another address to all", ask6(allNodes, all, 136, other6), false, 0},
		{"advertisement of an IPv4 VIP in mapped form", ask6(allNodes, all, 136, netip.AddrFrom16(vip4.As16())), false, 0},
		{"redirect about a VIP", ask6(allNodes, all, 137, vip6), false, 0},
		{"TCP that looks like an advertisement", serialize(t, append([]gopacket.SerializableLayer{ethernet(allNodes, v6), ip6(all, tcp)}, icmp6(136, vip6)...)...), false, 0},
		{"TCP that looks like a solicitation", serialize(t, append([]gopacket.SerializableLayer{ethernet(groupMAC, v6), ip6(snm, tcp)}, icmp6(135, vip6)...)...), false, 0},

		{"tagged IPv4", tagged(frame4(ownMAC, vip4), 0x8100), true, 38},
		{"802.1ad-tagged IPv4", tagged(frame4(ownMAC, vip4), 0x88a8), false, 0},
		{"tagged IPv4 to another address", tagged(frame4(ownMAC, other4), 0x8100), false, 0},
		{"tagged IPv6", tagged(frame6(ownMAC, vip6), 0x8100), true, 58},
		{"tagged ARP", tagged(ask4(broadcast, 1, vip4), 0x8100), true, 46},
		{"tagged ARP claim", tagged(claim4(broadcast, 2, vip4, vip4), 0x8100), true, 46},
		{"tagged advertisement", tagged(ask6(allNodes, all, 136, vip6), 0x8100), true, 82},
		{"tagged solicitation", tagged(ask6(groupMAC, snm, 135, vip6), 0x8100), true, 82},
		{"stacked tags", tagged(frame4(ownMAC, vip4), 0x88a8, 0x8100), false, 0},
		{"stacked 802.1Q tags", tagged(frame4(ownMAC, vip4), 0x8100, 0x8100), false, 0},
		{"three tags", tagged(frame6(ownMAC, vip6), 0x88a8, 0x8100, 0x8100), false, 0},
		{"old double tag", tagged(frame4(ownMAC, vip4), 0x9100), false, 0},

		{"LLDP", serialize(t, ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0x0e}, 0x88cc), body), false, 0},
		{"zeroes", make([]byte, 64), false, 0},
	}
}

func TestVerdicts(t *testing.T) {
	f := loaded(t)
	if err := f.SetSocket(0, xdpSocket(t)); err != nil {
		t.Fatal(err)
	}
	for _, test := range frameCases(t) {
		t.Run(test.name, func(t *testing.T) {
			if got := verdicts(t, f, test.frame); got != test.weirs {
				t.Errorf("weir's = %v, want %v", got, test.weirs)
			}
			// A test run refuses frames shorter than an Ethernet header, and an
			// skb with nothing behind it.
			for n := 15; n < len(test.frame); n++ {
				if got, want := verdicts(t, f, test.frame[:n]), test.weirs && n >= test.need; got != want {
					t.Errorf("cut to %d bytes: weir's = %v, want %v", n, got, want)
				}
			}
		})
	}
}

func TestXDPWithoutSocketPasses(t *testing.T) {
	f := loaded(t)
	check := func(want uint32) {
		t.Helper()
		for _, test := range frameCases(t) {
			if !test.weirs {
				continue
			}
			if got := run(t, f.XDP(), test.frame); got != want {
				t.Errorf("%s: verdict %d, want %d", test.name, got, want)
			}
		}
	}
	check(xdpPass)
	socket := xdpSocket(t)
	if err := f.SetSocket(1, socket); err != nil { // a test run is on queue 0
		t.Fatal(err)
	}
	check(xdpPass)
	if err := f.SetSocket(0, socket); err != nil {
		t.Fatal(err)
	}
	check(xdpRedirect)
}

func TestHeartbeat(t *testing.T) {
	f := loaded(t)
	frame := frameCases(t)[0].frame
	beatAgo := func(seconds int64) {
		t.Helper()
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			t.Fatal(err)
		}
		if err := f.objects.Maps[steerMapHeartbeat].Put(uint32(0), uint64(now.Nano()-seconds*1e9)); err != nil {
			t.Fatal(err)
		}
	}
	if got := run(t, f.TC(), frame); got != tcShot {
		t.Errorf("alive: verdict %d, want %d", got, tcShot)
	}
	beatAgo(4)
	if got := run(t, f.TC(), frame); got != tcNext {
		t.Errorf("4 s after the last beat: verdict %d, want %#x", got, uint32(tcNext))
	}
	beatAgo(-1) // a beat on another CPU may be ahead of the program's clock
	if got := run(t, f.TC(), frame); got != tcShot {
		t.Errorf("beat in the future: verdict %d, want %d", got, tcShot)
	}
	if err := f.objects.Maps[steerMapHeartbeat].Put(uint32(0), uint64(0)); err != nil {
		t.Fatal(err)
	}
	if got := run(t, f.Socket(), frame); got != socketKeep {
		t.Errorf("socket filter without a beat: verdict %d, want %#x", got, uint32(socketKeep))
	}
	if err := f.Beat(); err != nil {
		t.Fatal(err)
	}
	if got := run(t, f.TC(), frame); got != tcShot {
		t.Errorf("alive again: verdict %d, want %d", got, tcShot)
	}
}

func TestSetMAC(t *testing.T) {
	f := loaded(t)
	if err := f.SetSocket(0, xdpSocket(t)); err != nil {
		t.Fatal(err)
	}
	foreign := serialize(t, ethernet(peerMAC, layers.EthernetTypeIPv4), ip4(vip4, layers.IPProtocolUDP))
	if verdicts(t, f, foreign) {
		t.Error("a foreign MAC address was taken for the own one")
	}
	if err := f.SetMAC(make(net.HardwareAddr, 6)); err != nil {
		t.Fatal(err)
	}
	if !verdicts(t, f, foreign) {
		t.Error("the zero MAC address did not switch the check off")
	}
	if err := f.SetMAC(peerMAC); err != nil {
		t.Fatal(err)
	}
	if !verdicts(t, f, foreign) {
		t.Error("the new MAC address is not in use")
	}
	if err := f.SetMAC(make(net.HardwareAddr, 8)); err == nil {
		t.Error("an 8-byte address was accepted")
	}
}

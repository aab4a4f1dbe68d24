package peers

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/lab/labtest"
	"weir/lab/netlab"
)

var (
	vip4, vip6       = netip.MustParseAddrPort("203.0.113.10:9"), netip.MustParseAddrPort("[2001:db8::10]:9")
	client4, client6 = netip.MustParsePrefix("10.0.0.100/24"), netip.MustParsePrefix("fd00::100/64")
	own4, own6       = netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("fd00::2/64")
)

// rig is a switch with a client, a host for peers, and backends on it. The
// client's way to the VIPs is through the peer. Backends are silent.
type rig struct {
	client, host *netlab.Host
	clientMAC    net.HardwareAddr
	hostMAC      net.HardwareAddr
	backends4    []Backend
	backends6    []Backend
	atClient     int   // AF_PACKET sockets
	atBackends   []int // likewise

	settings map[string]bool // files under /proc/sys/net that were there at first
}

func newRig(t *testing.T, backends int) *rig {
	labtest.NeedRoot(t)
	lab := must(netlab.New("peers"))(t)
	t.Cleanup(func() { check(t, lab.Close()) })
	sw := must(lab.Switch("sw"))(t)
	connect := func(name string, addrs ...netip.Prefix) (*netlab.Host, netlab.Link) {
		h := must(lab.Host(name))(t)
		return h, must(h.Connect(sw, netlab.Iface{Name: "eth0", Addrs: addrs}))(t)
	}
	r := &rig{}
	client, at := connect("client", client4, client6)
	r.client, r.clientMAC = client, at.MAC
	host, at := connect("peer", own4, own6)
	r.host, r.hostMAC = host, at.MAC
	for i := range byte(backends) {
		four, six := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, 11 + i}), 24), netip.MustParsePrefix(fmt.Sprintf("fd00::1%d/64", 1+i))
		h, at := connect(fmt.Sprintf("b%d", 1+i), four, six)
		r.backends4 = append(r.backends4, Backend{four.Addr(), at.MAC})
		r.backends6 = append(r.backends6, Backend{six.Addr(), at.MAC})
		r.atBackends = append(r.atBackends, tap(t, h))
	}
	r.atClient = tap(t, r.client)
	for _, vip := range []netip.AddrPort{vip4, vip6} {
		own := own4.Addr()
		if vip.Addr().Is6() {
			own = own6.Addr()
		}
		check(t, r.client.AddNeigh(own, r.hostMAC, "eth0"))
		check(t, r.client.AddRoute(netip.PrefixFrom(vip.Addr(), vip.Addr().BitLen()), own))
	}
	// At the other end of a veth, what an XDP program sends back is only received
	// where there is an XDP program as well. With GRO instead it waits for an
	// ordinary frame that comes after it (veth_xdp_flush in drivers/net/veth.c).
	port := must(sw.Port(r.host, "eth0"))(t)
	pass := must(ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "Apache-2.0", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, // XDP_PASS
	}))(t)
	defer pass.Close()
	check(t, sw.Do(func() error {
		l, err := link.AttachXDP(link.XDPOptions{Program: pass, Interface: port.Index, Flags: link.XDPDriverMode})
		if err == nil {
			t.Cleanup(func() { check(t, l.Close()) })
		}
		return err
	}))
	return r
}

// tap opens a socket that sees what a host's interface receives, and sends.
func tap(t *testing.T, h *netlab.Host) (fd int) {
	at := must(h.Link("eth0"))(t)
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	check(t, h.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: at.Index}))
	}))
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// seen is a datagram of the client's as it has arrived somewhere.
type seen struct {
	dst, src     string        // MAC
	outer        [2]netip.Addr // source and destination in an outer header, if there is one
	from, to     netip.AddrPort
	payload      string
	badChecksums bool
}

// look returns what came next with one of these payloads, and false if nothing
// has come.
func look(t *testing.T, fd int, payload string) (seen, bool) {
	buf := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENETDOWN) {
			return seen{}, false
		}
		check(t, err)
		p := gopacket.NewPacket(buf[:n], layers.LayerTypeEthernet, gopacket.Default)
		udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !ok || !strings.HasPrefix(string(udp.Payload), payload) {
			continue
		}
		eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
		s := seen{dst: eth.DstMAC.String(), src: eth.SrcMAC.String(), payload: string(udp.Payload)}
		var networks [][2]net.IP
		for _, l := range p.Layers() {
			switch ip := l.(type) {
			case *layers.IPv4:
				networks = append(networks, [2]net.IP{ip.SrcIP.To4(), ip.DstIP.To4()})
				s.badChecksums = s.badChecksums || sum(ip.Contents) != 0xffff
			case *layers.IPv6:
				networks = append(networks, [2]net.IP{ip.SrcIP, ip.DstIP})
			}
		}
		if len(networks) == 2 {
			for i, a := range networks[0] {
				s.outer[i], _ = netip.AddrFromSlice(a)
			}
		}
		inner := networks[len(networks)-1]
		from, _ := netip.AddrFromSlice(inner[0])
		to, _ := netip.AddrFromSlice(inner[1])
		s.from, s.to = netip.AddrPortFrom(from, uint16(udp.SrcPort)), netip.AddrPortFrom(to, uint16(udp.DstPort))
		if sum(inner[0], inner[1], []byte{0, 17, byte(udp.Length >> 8), byte(udp.Length)}, udp.Contents, udp.Payload) != 0xffff {
			s.badChecksums = true
		}
		return s, true
	}
}

// sum is the one's complement sum (RFC 1071) over parts of which only the last
// may have an odd length.
func sum(parts ...[]byte) uint32 {
	s := uint32(0)
	for _, b := range parts {
		for ; len(b) > 1; b = b[2:] {
			s += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			s += uint32(b[0]) << 8
		}
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return s
}

// send sends datagrams from a number of ports, two from each, at once.
func (r *rig) send(t *testing.T, vip netip.AddrPort, payload string, flows int) {
	from := client4.Addr()
	if vip.Addr().Is6() {
		from = client6.Addr()
	}
	for i := range flows {
		c := must(r.client.DialFrom(netip.AddrPortFrom(from, uint16(20_000+i)))(t.Context(), "udp", vip.String()))(t)
		for j := range 2 {
			must(c.Write(fmt.Appendf(nil, "%s %d %d", payload, i, j)))(t)
		}
		check(t, c.Close())
	}
}

// await looks into all sockets until as many datagrams as wanted have come.
func await(t *testing.T, fds []int, payload string, want int) [][]seen {
	all := make([][]seen, len(fds))
	got := 0
	for deadline := time.Now().Add(10 * time.Second); got < want && time.Now().Before(deadline); {
		before := got
		for i, fd := range fds {
			for s, ok := look(t, fd, payload); ok; s, ok = look(t, fd, payload) {
				all[i] = append(all[i], s)
				got++
			}
		}
		if got == before {
			time.Sleep(time.Millisecond)
		}
	}
	if got != want {
		t.Errorf("%d datagrams arrived, want %d", got, want)
	}
	return all
}

// state is all of the peer's host that a peer may change. It is no change that the
// kernel has loaded a module, which comes with settings of its own.
func (r *rig) state(t *testing.T) string {
	var b strings.Builder
	for _, command := range []string{"nft list ruleset", "ip -4 route show table all", "ip -6 route show table all", "ip neighbour show nud permanent"} {
		args := strings.Fields(command)
		b.WriteString(must(r.host.Run(t.Context(), args[0], args[1:]...))(t))
	}
	first := r.settings == nil
	if first {
		r.settings = make(map[string]bool)
	}
	check(t, r.host.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return err
			}
			at := l.Attrs()
			fmt.Fprintf(&b, "%s %s mtu %d flags %v xdp %+v addresses %v\n", at.Name, at.HardwareAddr, at.MTU, at.Flags, at.Xdp, addrs)
		}
		return filepath.WalkDir("/proc/sys/net", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.Contains(path, "/neigh/") {
				return err
			}
			switch d.Name() {
			case "stable_secret", conntrackMax, conntrackBuckets:
				return nil // cannot be read before it is set; and the machine's
			}
			if first {
				r.settings[path] = true
			} else if !r.settings[path] {
				return nil
			}
			value, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, fs.ErrPermission) {
				return err
			}
			fmt.Fprintf(&b, "%s=%s", path, value)
			return nil
		})
	}))
	return b.String()
}

func must[V any](v V, err error) func(*testing.T) V {
	return func(t *testing.T) V {
		t.Helper()
		check(t, err)
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// differ shows lines that are in one text only.
func differ(before, after string) string {
	var b strings.Builder
	only := func(sign, a, other string) {
		have := make(map[string]bool)
		for line := range strings.Lines(other) {
			have[line] = true
		}
		for line := range strings.Lines(a) {
			if !have[line] {
				b.WriteString(sign + line)
			}
		}
	}
	only("- ", before, after)
	only("+ ", after, before)
	return b.String()
}

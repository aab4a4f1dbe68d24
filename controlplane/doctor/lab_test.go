package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/controlplane/via"
	"weir/dataplane/decap"
	"weir/dataplane/packet"
	"weir/dataplane/rewrite"
	"weir/lab/labtest"
	"weir/lab/netlab"
)

var (
	vip4, vip6   = netip.MustParseAddr("10.0.0.200"), netip.MustParseAddr("fd00::200")
	box4, box6   = netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("fd00::2/64")
	back4, back6 = netip.MustParseAddr("10.0.0.11"), netip.MustParseAddr("fd00::11")
)

// Ports of the backend: on all addresses, on none, and one whose accept queue is
// full.
const (
	served uint16 = 80
	closed uint16 = 81
	full   uint16 = 82
)

// wait is how long the doctor waits in tests: what is there answers in a fraction
// of it, and most faults are told by silence.
const wait = 250 * time.Millisecond

const patience = 10 * time.Second

// world is a box with a doctor, and a backend on its link that has the VIPs.
type world struct {
	t       *testing.T
	lab     *netlab.Lab
	net     *netlab.Switch
	box     *netlab.Host
	backend *netlab.Host
	link    netlab.Link
	mac     packet.MAC
	network *via.Network
	doctor  *Doctor
}

var worlds atomic.Int32

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel() // most of the time it waits
	labtest.NeedRoot(t)
	lab, err := netlab.New(fmt.Sprintf("doctor%d", worlds.Add(1)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lab.Close() })
	w := &world{t: t, lab: lab}
	w.net, err = lab.Switch("net")
	w.must(err)
	w.box, err = lab.Host("box")
	w.must(err)
	w.link, err = w.box.Connect(w.net, iface("eth0", 0, box4, box6))
	w.must(err)
	w.addBackend()
	w.must(w.box.Do(func() (err error) {
		w.network, err = via.Open(slog.New(slog.DiscardHandler))
		return err
	}))
	t.Cleanup(func() { w.network.Close() })
	go w.network.Run(context.Background())
	w.network.SetWays(map[string]via.Way{
		DSR: w.way(nil), "4": w.way(&rewrite.Tunnel{Source: box4.Addr(), Destination: back4}),
		"6": w.way(&rewrite.Tunnel{Source: box6.Addr(), Destination: back6}),
	})
	w.doctor = New(w.network, wait)
	return w
}

func iface(name string, mtu int, addrs ...netip.Prefix) netlab.Iface {
	return netlab.Iface{Name: name, MTU: mtu, Addrs: addrs}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) addBackend() {
	w.t.Helper()
	var err error
	w.backend, err = w.lab.Host("b1")
	w.must(err)
	link, err := w.backend.Connect(w.net, iface("eth0", 0, netip.PrefixFrom(back4, 24), netip.PrefixFrom(back6, 64)))
	w.must(err)
	w.mac = packet.MAC(link.MAC)
	// Errors are to come as often as there is a reason.
	w.must(w.backend.Sysctl("net.ipv4.icmp_ratelimit", "0"))
	w.must(w.backend.Sysctl("net.ipv6.icmp.ratelimit", "0"))
	w.must(w.backend.Sysctl("net.ipv4.icmp_msgs_per_sec", "100000"))
	for _, vip := range []netip.Addr{vip4, vip6} {
		w.serve(vip)
	}
	w.listen(served, 128)
	w.fill()
}

func (w *world) serve(vip netip.Addr) {
	w.t.Helper()
	w.must(w.backend.ServeVIP(vip))
	w.await(func() bool { return !errors.Is(w.fromBackend(vip, closed), context.DeadlineExceeded) })
}

// fromBackend connects from the backend to itself.
func (w *world) fromBackend(to netip.Addr, port uint16) error {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	c, err := w.backend.DialContext(ctx, "tcp", netip.AddrPortFrom(to, port).String())
	if err == nil {
		w.t.Cleanup(func() { c.Close() })
		return nil
	}
	if ctx.Err() != nil {
		return context.DeadlineExceeded
	}
	return err
}

func (w *world) await(done func() bool) {
	w.t.Helper()
	for limit := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			w.t.Fatal("what has to come did not")
		}
	}
}

// listen opens a socket whose queue nobody empties.
func (w *world) listen(port uint16, backlog int) {
	w.t.Helper()
	w.must(w.backend.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		w.t.Cleanup(func() { unix.Close(fd) })
		return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0),
			unix.Bind(fd, &unix.SockaddrInet6{Port: int(port)}), unix.Listen(fd, backlog))
	}))
}

// another adds a backend that has the VIP, and returns its MAC address.
func (w *world) another(vip netip.Addr) string {
	w.t.Helper()
	first := w.backend
	defer func() { w.backend = first }()
	var err error
	w.backend, err = w.lab.Host("b2")
	w.must(err)
	link, err := w.backend.Connect(w.net, iface("eth0", 0, netip.MustParsePrefix("10.0.0.12/24")))
	w.must(err)
	w.serve(vip)
	w.listen(served, 128)
	return link.MAC.String()
}

func (w *world) fill() {
	w.t.Helper()
	w.listen(full, 0)
	w.await(func() bool { return errors.Is(w.fromBackend(back4, full), context.DeadlineExceeded) })
}

// decapsulate runs weir decap's program on the backend; the function ends it.
func (w *world) decapsulate() func() {
	w.t.Helper()
	var d *decap.Decap
	w.must(w.backend.Do(func() (err error) {
		d, err = decap.New(decap.Options{Interface: "eth0", VIPs: []netip.Addr{vip4, vip6}, Log: slog.New(slog.DiscardHandler)})
		return err
	}))
	return func() {
		w.must(d.Close())
		w.must(w.backend.Do(func() error {
			// A process that is being started meanwhile has our descriptors until it is
			// another program, and with the link's the program stays.
			for {
				l, err := netlink.LinkByName("eth0")
				if err != nil || l.Attrs().Xdp == nil || !l.Attrs().Xdp.Attached {
					return err
				}
				time.Sleep(time.Millisecond)
			}
		}))
	}
}

// swallow has a program on the backend receive a protocol, so that its kernel says
// nothing about it.
func (w *world) swallow(protocol int) func() {
	w.t.Helper()
	var fd int
	w.must(w.backend.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		return err
	}))
	return func() { unix.Close(fd) }
}

func (w *world) way(tunnel *rewrite.Tunnel) via.Way {
	w.t.Helper()
	link := rewrite.Link{Src: packet.MAC(w.link.MAC), Dst: w.mac, MTU: 1500}
	way := via.Way{Interface: "eth0", Has4: true, Has6: true}
	var err4, err6 error
	if tunnel == nil {
		way.IPv4, err4 = rewrite.DSR(link, false)
		way.IPv6, err6 = rewrite.DSR(link, true)
	} else {
		way.IPv4, err4 = rewrite.IPIP(link, false, *tunnel)
		way.IPv6, err6 = rewrite.IPIP(link, true, *tunnel)
	}
	w.must(errors.Join(err4, err6))
	return way
}

func (w *world) ip(h *netlab.Host, args string) {
	w.t.Helper()
	_, err := h.Run(context.Background(), "ip", strings.Fields(args)...)
	w.must(err)
}

func (w *world) sysctl(h *netlab.Host, key, value string) {
	w.t.Helper()
	w.must(h.Sysctl(key, value))
}

func (w *world) examine(s Subject) (d Diagnosis) {
	w.t.Helper()
	w.must(w.box.Do(func() error {
		d = w.doctor.Examine(context.Background(), s)
		return nil
	}))
	return d
}

// subject is the backend under a mode, with both VIPs.
func subject(mode string) Subject {
	s := Subject{
		Service: "web", Mode: mode, Backend: back4, Port: served, Interfaces: []string{"eth0"}, Way: DSR,
		VIPs: []netip.AddrPort{netip.AddrPortFrom(vip4, served), netip.AddrPortFrom(vip6, served)},
	}
	if mode == IPIP {
		s.Way = "4"
	}
	return s
}

func with(s Subject, change func(*Subject)) Subject {
	change(&s)
	return s
}

func only(vip netip.Addr, port uint16) func(*Subject) {
	return func(s *Subject) { s.VIPs = []netip.AddrPort{netip.AddrPortFrom(vip, port)} }
}

// impostor answers pings of an address of the backend's from another of its own,
// as a backend that masquerades does. The function ends it.
func (w *world) impostor(vip netip.Addr) func() {
	w.t.Helper()
	var in, out int
	w.must(w.backend.Do(func() (err error) {
		if in, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		tick := unix.NsecToTimeval((10 * time.Millisecond).Nanoseconds())
		if err := unix.SetsockoptTimeval(in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick); err != nil {
			return err
		}
		if err := unix.Bind(in, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP)}); err != nil {
			return err
		}
		out, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		return err
	}))
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 2048)
		for {
			select {
			case <-done:
				return
			default:
			}
			n, _, err := unix.Recvfrom(in, buf, 0)
			var p packet.Parsed
			if err != nil {
				continue
			}
			p.Decode(buf[:n])
			if p.Proto != packet.ProtoICMPv4 || p.ICMPType != packet.ICMPv4EchoRequest || packet.NetipAddr(p.Dst) != vip {
				continue
			}
			m := packet.ICMPv4(buf[p.L4:p.End])
			m.SetType(packet.ICMPv4EchoReply)
			m.SetChecksum(m.ComputeChecksum())
			_ = unix.Sendto(out, m, 0, &unix.SockaddrInet4{Addr: packet.Unmapped(p.Src)})
		}
	}()
	return func() {
		close(done)
		<-ended
		unix.Close(in)
		unix.Close(out)
	}
}

func setLink(name string, up bool) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if up {
		return netlink.LinkSetUp(link)
	}
	return netlink.LinkSetDown(link)
}

// up tells whether the box has its link.
func (w *world) up() bool {
	var up bool
	w.must(w.box.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		up = err == nil && link.Attrs().RawFlags&unix.IFF_RUNNING != 0
		return err
	}))
	return up
}

package via

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"weir/dataplane/decap"
	"weir/dataplane/packet"
	"weir/dataplane/rewrite"
	"weir/lab/labtest"
	"weir/lab/netlab"
)

var (
	vip4, vip6 = netip.MustParseAddr("10.0.0.200"), netip.MustParseAddr("fd00::200")
	box4, box6 = netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("fd00::2/64")
)

const port = 80

// patience is for what must come; nothing is decided by its running out.
const patience = 10 * time.Second

// brief is for what must not come.
const brief = 300 * time.Millisecond

// world is a box, a switch and two backends on one link.
type world struct {
	t        testing.TB
	lab      *netlab.Lab
	net      *netlab.Switch
	box      *netlab.Host
	link     netlab.Link
	backends [2]*backend
}

// backend serves its name over TCP and UDP on all its addresses.
type backend struct {
	name         string
	host         *netlab.Host
	addr4, addr6 netip.Addr
	mac          packet.MAC
	resets       atomic.Int32 // of accepted connections
}

var worlds atomic.Int32

func newWorld(t testing.TB) *world {
	t.Helper()
	if t, isTest := t.(*testing.T); isTest {
		t.Parallel() // most of the time it waits
	}
	labtest.NeedRoot(t)
	lab, err := netlab.New(fmt.Sprintf("via%d", worlds.Add(1)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lab.Close() })
	w := &world{t: t, lab: lab}
	w.net, err = lab.Switch("net")
	w.must(err)
	w.box, err = lab.Host("box")
	w.must(err)
	w.link, err = w.box.Connect(w.net, netlab.Iface{Name: "eth0", Addrs: []netip.Prefix{box4, box6}})
	w.must(err)
	for i := range w.backends {
		w.backends[i] = w.backend(i)
	}
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) backend(i int) *backend {
	w.t.Helper()
	b := &backend{
		name:  fmt.Sprintf("b%d", i+1),
		addr4: netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", 11+i)),
		addr6: netip.MustParseAddr(fmt.Sprintf("fd00::%d", 11+i)),
	}
	var err error
	b.host, err = w.lab.Host(b.name)
	w.must(err)
	link, err := b.host.Connect(w.net, netlab.Iface{Name: "eth0", Addrs: []netip.Prefix{
		netip.PrefixFrom(b.addr4, 24), netip.PrefixFrom(b.addr6, 64),
	}})
	w.must(err)
	b.mac = packet.MAC(link.MAC)
	for _, vip := range []netip.Addr{vip4, vip6} {
		w.must(b.host.ServeVIP(vip))
	}
	listener, err := b.host.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
	w.must(err)
	w.t.Cleanup(func() { listener.Close() })
	go b.accept(listener)
	for _, vip := range []netip.Addr{vip4, vip6} {
		datagrams, err := b.host.ListenPacket(context.Background(), "udp", netip.AddrPortFrom(vip, port).String())
		w.must(err)
		w.t.Cleanup(func() { datagrams.Close() })
		go b.answer(datagrams)
		w.awaitLocal(b, vip)
	}
	return b
}

// awaitLocal waits until the kernel takes packets for an address: for IPv6, a
// worker of the kernel's adds the route some time after the address.
func (w *world) awaitLocal(b *backend, vip netip.Addr) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		c, err := b.host.DialContext(ctx, "tcp", netip.AddrPortFrom(vip, port).String())
		cancel()
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatal(err)
		}
	}
}

// accept writes the name and waits for the end.
func (b *backend) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.WriteString(c, b.name)
			if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "reset") {
				b.resets.Add(1)
			}
		}()
	}
}

func (b *backend) answer(c net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo([]byte(b.name), from)
	}
}

// decapsulate runs weir decap's program on the backend.
func (w *world) decapsulate(b *backend) {
	w.t.Helper()
	w.must(b.host.Do(func() error {
		d, err := decap.New(decap.Options{Interface: "eth0", VIPs: []netip.Addr{vip4, vip6}, Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			w.t.Cleanup(func() { d.Close() })
		}
		return err
	}))
}

func (w *world) frameLink(b *backend) rewrite.Link {
	return rewrite.Link{Src: packet.MAC(w.link.MAC), Dst: b.mac, MTU: 1500}
}

// dsr is the way to a backend on the link.
func (w *world) dsr(b *backend) Way {
	w.t.Helper()
	way := Way{Interface: "eth0", Has4: true, Has6: true}
	var err4, err6 error
	way.IPv4, err4 = rewrite.DSR(w.frameLink(b), false)
	way.IPv6, err6 = rewrite.DSR(w.frameLink(b), true)
	w.must(errors.Join(err4, err6))
	return way
}

// ipip is the way to a backend by a tunnel over IPv6 or IPv4.
func (w *world) ipip(b *backend, over6 bool) Way {
	w.t.Helper()
	tunnel := rewrite.Tunnel{Source: box4.Addr(), Destination: b.addr4}
	if over6 {
		tunnel = rewrite.Tunnel{Source: box6.Addr(), Destination: b.addr6}
	}
	way := Way{Interface: "eth0", Has4: true, Has6: true}
	var err4, err6 error
	way.IPv4, err4 = rewrite.IPIP(w.frameLink(b), false, tunnel)
	way.IPv6, err6 = rewrite.IPIP(w.frameLink(b), true, tunnel)
	w.must(errors.Join(err4, err6))
	return way
}

// open opens and runs a network on the box.
func (w *world) open() *Network {
	w.t.Helper()
	var n *Network
	w.must(w.box.Do(func() (err error) {
		n, err = Open(slog.New(slog.DiscardHandler))
		return err
	}))
	ended := make(chan error, 1)
	go func() { ended <- n.Run(context.Background()) }()
	w.t.Cleanup(func() {
		if err := n.Close(); err != nil {
			w.t.Error(err)
		}
		if err := <-ended; err != nil && !errors.Is(err, ErrClosed) {
			w.t.Errorf("Run: %v", err)
		}
	})
	return n
}

// tries is how often something is asked by a single packet, which may get lost on a
// busy machine.
const tries = 3

// ask connects from the box and returns the name that it is told.
func (w *world) ask(n *Network, network string, vip netip.Addr, way string, within time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	var c net.Conn
	err := w.box.Do(func() (err error) {
		c, err = n.DialContext(ctx, network, netip.AddrPortFrom(vip, port), way)
		return err
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	buf := make([]byte, 16)
	if network != "udp" {
		size, err := c.Read(buf)
		return string(buf[:size]), err
	}
	for range tries {
		if _, err := io.WriteString(c, "who?"); err != nil {
			return "", err
		}
		if err := c.SetReadDeadline(time.Now().Add(within / tries)); err != nil {
			return "", err
		}
		var size int
		if size, err = c.Read(buf); err == nil {
			return string(buf[:size]), nil
		}
	}
	return "", err
}

// ping pings from the box.
func (w *world) ping(n *Network, vip netip.Addr, way string, within time.Duration) (err error) {
	for range tries {
		ctx, cancel := context.WithTimeout(context.Background(), within/tries)
		err = w.box.Do(func() error { return n.Ping(ctx, vip, way) })
		if cancel(); err == nil {
			break
		}
	}
	return err
}

// neighbours returns whom the box's kernel has ever looked for on the link.
func (w *world) neighbours() (all []netip.Addr) {
	w.t.Helper()
	w.must(w.box.Do(func() error {
		list, err := netlink.NeighList(w.link.Index, 0)
		for _, n := range list {
			if a, ok := netip.AddrFromSlice(n.IP); ok {
				all = append(all, a.Unmap())
			}
		}
		return err
	}))
	return all
}

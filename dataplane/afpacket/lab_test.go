package afpacket

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weir/dataplane/queue"
	"weir/dataplane/steer"
	"weir/lab/labtest"
)

// The lab is three hosts in a row, each in a network namespace of its own
// without a name, which goes away with the last descriptor of it:
//
//	client c0 --- d0 weir d1 --- s0 server
//
// weir's kernel forwards, routes VIPs towards the server, and has the last one
// as an address of its own.
type lab struct {
	t                    *testing.T
	client, weir, server netns.NsHandle
	c0, d0               net.HardwareAddr
}

var (
	vip4     = netip.MustParseAddr("198.51.100.10")
	vip6     = netip.MustParseAddr("2001:db8:100::10")
	vipLocal = netip.MustParseAddr("198.51.100.20")
	notVIP   = netip.MustParseAddr("198.51.100.30") // forwarded
	weirAddr = netip.MustParseAddr("10.0.0.2")
	client4  = netip.MustParseAddr("10.0.0.1")
	client6  = netip.MustParseAddr("2001:db8::1")
	arrival  = 10 * time.Second // a frame that has not come by then will not come
)

func serverMAC() net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, 9} }

func newLab(t *testing.T) *lab {
	t.Helper()
	labtest.NeedRoot(t)
	l := &lab{t: t, client: newNS(t), weir: newNS(t), server: newNS(t)}
	l.in(l.weir, func() {
		l.veth("d0", "c0", l.client)
		l.veth("d1", "s0", l.server)
		sysctl(t, "/proc/sys/net/ipv4/ip_forward", "1")
		for _, name := range []string{"d0", "d1", "all"} {
			sysctl(t, "/proc/sys/net/ipv4/conf/"+name+"/rp_filter", "0")
		}
		l.address("d0", "10.0.0.2/24")
		l.address("d1", "10.0.1.2/24")
		l.run("neighbour", netlink.NeighAdd(&netlink.Neigh{
			LinkIndex: l.link("d1").Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: net.IPv4(10, 0, 1, 9), HardwareAddr: serverMAC(),
		}))
		l.run("route", netlink.RouteAdd(&netlink.Route{Dst: prefix("198.51.100.0/24"), Gw: net.IPv4(10, 0, 1, 9)}))
		lo := l.link("lo")
		l.run("lo up", netlink.LinkSetUp(lo))
		l.run("local route", netlink.RouteAdd(&netlink.Route{
			Dst: prefix(vipLocal.String() + "/32"), LinkIndex: lo.Attrs().Index,
			Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
		}))
		l.d0 = l.link("d0").Attrs().HardwareAddr
	})
	l.in(l.server, func() { l.up("s0") })
	l.in(l.client, func() {
		l.up("c0")
		l.address("c0", "10.0.0.1/24")
		l.c0 = l.link("c0").Attrs().HardwareAddr
	})
	l.in(l.weir, func() { l.up("d0"); l.up("d1") })
	return l
}

func newNS(t *testing.T) netns.NsHandle {
	t.Helper()
	var ns netns.NsHandle
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if ns, err = netns.New(); err != nil {
			return
		}
		for _, path := range []string{"all", "default"} {
			if e := os.WriteFile("/proc/sys/net/ipv6/conf/"+path+"/disable_ipv6", []byte("1"), 0); e != nil {
				err = e
			}
		}
	}()
	<-done
	if err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	return ns
}

// in runs f on a thread in ns, pinned to one CPU so that what f sends over a
// veth is received in order.
func (l *lab) in(ns netns.NsHandle, f func()) {
	l.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := netns.Set(ns); err != nil {
			l.t.Errorf("enter network namespace: %v", err)
			return
		}
		var cpus unix.CPUSet
		if err := unix.SchedGetaffinity(0, &cpus); err == nil {
			for cpu, first := 0, true; cpu < 1024; cpu++ {
				if cpus.IsSet(cpu) && !first {
					cpus.Clear(cpu)
				} else if cpus.IsSet(cpu) {
					first = false
				}
			}
			_ = unix.SchedSetaffinity(0, &cpus)
		}
		f()
	}()
	<-done
	if l.t.Failed() {
		l.t.FailNow()
	}
}

func (l *lab) run(what string, err error) {
	if err != nil {
		l.t.Errorf("%s: %v", what, err)
		runtime.Goexit()
	}
}

func (l *lab) veth(name, peer string, peerNS netns.NsHandle) {
	l.run("add veth", netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, NumTxQueues: 1, NumRxQueues: 1},
		PeerName:  peer, PeerNamespace: netlink.NsFd(peerNS),
	}))
}

func (l *lab) link(name string) netlink.Link {
	link, err := netlink.LinkByName(name)
	l.run("find "+name, err)
	return link
}

func (l *lab) up(name string) { l.run("up "+name, netlink.LinkSetUp(l.link(name))) }

func (l *lab) address(name, cidr string) {
	addr, err := netlink.ParseAddr(cidr)
	l.run("parse address", err)
	l.run("up "+name, netlink.LinkSetUp(l.link(name)))
	l.run("add address", netlink.AddrAdd(l.link(name), addr))
}

func prefix(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}

func sysctl(t *testing.T, path, value string) {
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Errorf("sysctl: %v", err)
	}
}

// open opens d0 with all VIPs.
func (l *lab) open(opt Options) *Device {
	l.t.Helper()
	filter, err := steer.Load()
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = filter.Close() })
	if err := filter.Steer(steer.Set{VIPs: []netip.Addr{vip4, vip6, vipLocal}}); err != nil {
		l.t.Fatal(err)
	}
	if err := filter.SetMAC(l.d0); err != nil {
		l.t.Fatal(err)
	}
	opt.Interface = "d0"
	var d *Device
	l.in(l.weir, func() {
		d, err = Open(filter, opt)
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := d.Close(); err != nil {
			l.t.Errorf("close: %v", err)
		}
	})
	stop, stopped := make(chan struct{}), make(chan struct{})
	l.t.Cleanup(func() { close(stop); <-stopped })
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(500 * time.Millisecond):
				_ = filter.Beat()
			}
		}
	}()
	return d
}

// wire is an ordinary packet socket on one end of a cable.
type wire struct {
	t  *testing.T
	fd int
}

func (l *lab) wire(ns netns.NsHandle, name string) *wire {
	l.t.Helper()
	w := &wire{t: l.t, fd: -1}
	l.in(ns, func() {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		l.run("packet socket", err)
		w.fd = fd
		l.run("ignore outgoing", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
		l.run("receive buffer", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		l.run("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.link(name).Attrs().Index}))
	})
	l.t.Cleanup(func() { _ = unix.Close(w.fd) })
	return w
}

func (w *wire) send(frame []byte) {
	if _, err := unix.Write(w.fd, frame); err != nil {
		w.t.Errorf("send: %v", err)
	}
}

// receive returns the next frame, or nil if none comes within timeout.
func (w *wire) receive(timeout time.Duration) []byte {
	tv := unix.NsecToTimeval(timeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		w.t.Errorf("set timeout: %v", err)
	}
	buf := make([]byte, 1<<16)
	for {
		n, err := unix.Read(w.fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil
		}
		return buf[:n]
	}
}

// udp makes a frame for dst from the client. The first payload bytes are mark.
func (l *lab) udp(dst netip.Addr, srcPort uint16, mark uint32, size int) []byte {
	payload := make([]byte, size)
	binary.BigEndian.PutUint32(payload, mark)
	for i := 4; i < size; i++ {
		payload[i] = byte(i)
	}
	return udpFrame(l.c0, l.d0, dst, srcPort, payload)
}

func udpFrame(src, dst net.HardwareAddr, to netip.Addr, srcPort uint16, payload []byte) []byte {
	eth := &layers.Ethernet{SrcMAC: src, DstMAC: dst}
	udp := &layers.UDP{SrcPort: layers.UDPPort(srcPort), DstPort: 4000}
	var ip gopacket.SerializableLayer
	if to.Is4() {
		eth.EthernetType = layers.EthernetTypeIPv4
		h := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: client4.AsSlice(), DstIP: to.AsSlice()}
		_ = udp.SetNetworkLayerForChecksum(h)
		ip = h
	} else {
		eth.EthernetType = layers.EthernetTypeIPv6
		h := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: client6.AsSlice(), DstIP: to.AsSlice()}
		_ = udp.SetNetworkLayerForChecksum(h)
		ip = h
	}
	return serialize(eth, ip, udp, gopacket.Payload(payload))
}

func serialize(parts ...gopacket.SerializableLayer) []byte {
	buf := gopacket.NewSerializeBuffer()
	opt := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opt, parts...); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// tagged inserts a tag behind the MAC addresses of frame.
func tagged(frame []byte, tpid, tci uint16) []byte {
	out := append([]byte(nil), frame[:12]...)
	out = binary.BigEndian.AppendUint16(out, tpid)
	out = binary.BigEndian.AppendUint16(out, tci)
	return append(out, frame[12:]...)
}

// receive waits until q has n frames for frames.
func receive(t *testing.T, q queue.Queue, frames []queue.Frame) {
	t.Helper()
	for got, end := 0, time.Now().Add(arrival); got < len(frames); {
		n, err := q.Receive(frames[got:])
		if err != nil {
			t.Fatalf("receive: %v", err)
		}
		if got += n; n > 0 {
			continue
		}
		if time.Now().After(end) {
			t.Fatalf("received %d frames, want %d; %+v", got, len(frames), q.Stats())
		}
		if err := q.Wait(100 * time.Millisecond); err != nil {
			t.Fatalf("wait: %v", err)
		}
	}
}

// wantAllBack checks that nobody holds a frame of q any more.
func wantAllBack(t *testing.T, q queue.Queue) {
	t.Helper()
	r := q.(*ringQueue)
	for slot, lent := range r.ring.lent {
		if lent {
			t.Errorf("slot %d is still lent", slot)
		}
	}
	if got := len(r.pool.free); got != poolBuffers {
		t.Errorf("%d of %d pool buffers are free", got, poolBuffers)
	}
}

// echo sends frames back to where they came from.
func echo(t *testing.T, q queue.Queue, frames []queue.Frame) {
	t.Helper()
	for i := range frames {
		b := frames[i].Bytes()
		var mac [6]byte
		copy(mac[:], b)
		copy(b, b[6:12])
		copy(b[6:], mac[:])
	}
	if n, err := q.Send(frames); n != len(frames) || err != nil {
		t.Errorf("send: %d of %d, %v", n, len(frames), err)
	}
}

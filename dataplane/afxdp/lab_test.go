package afxdp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
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

var (
	hostMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x01}
	peerMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x02}
	vip     = netip.MustParseAddr("203.0.113.10")
	hostIP  = netip.MustParseAddr("198.51.100.1")
	peerIP  = netip.MustParseAddr("198.51.100.2")
)

// patience bounds waits for what has to happen sooner or later.
const patience = 10 * time.Second

// lab is a veth pair in one new network namespace: weir works on host, the
// test sends and receives on peer.
type lab struct {
	t      testing.TB
	host   netlink.Link
	peer   netlink.Link
	filter *steer.Filter
	wire   int // AF_PACKET socket on peer
}

func newLab(t testing.TB, queues int) *lab {
	t.Helper()
	labtest.NeedRoot(t)
	runtime.LockOSThread() // never unlocked: the thread, and with it the namespace, ends with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })

	l := &lab{t: t}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.NumRxQueues, attrs.NumTxQueues = "host", hostMAC, queues, queues
	l.must(netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: "peer", PeerHardwareAddr: peerMAC,
		PeerNumRxQueues: uint32(queues), PeerNumTxQueues: uint32(queues),
	}))
	l.host, l.peer = l.link("host"), l.link("peer")
	l.t.Cleanup(func() { _ = netlink.LinkDel(l.host) })
	l.must(netlink.LinkSetUp(l.host))
	l.must(netlink.LinkSetUp(l.peer))
	addr, err := netlink.ParseAddr(hostIP.String() + "/24")
	l.must(err)
	l.must(netlink.AddrAdd(l.host, addr))

	l.filter, err = steer.Load()
	l.must(err)
	t.Cleanup(func() { l.filter.Close() })
	l.must(l.filter.SetMAC(hostMAC))
	l.must(l.filter.Steer(steer.Set{VIPs: []netip.Addr{vip}}))
	l.wire = l.openWire()
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) link(name string) netlink.Link {
	l.t.Helper()
	link, err := netlink.LinkByName(name)
	l.must(err)
	return link
}

func (l *lab) openWire() int {
	l.t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	l.must(err)
	l.t.Cleanup(func() { unix.Close(fd) })
	l.must(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	l.must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	l.must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20000}))
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	l.must(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.peer.Attrs().Index}))
	return fd
}

// open opens the host's end in one mode.
func (l *lab) open(opt Options) *Device {
	l.t.Helper()
	opt.Interface = "host"
	d, err := Open(l.filter, opt)
	l.must(err)
	l.t.Cleanup(func() { d.Close() })
	return d
}

// send puts a frame on the wire. A full transmit queue is not the test's
// business, nor is a link that is down.
func (l *lab) send(frame []byte) {
	l.t.Helper()
	if _, err := unix.Write(l.wire, frame); err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ENETDOWN) {
		l.t.Fatal(err)
	}
}

// read returns the next frame from the other end, nil if there is none for a
// while.
func (l *lab) read() []byte {
	l.t.Helper()
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(l.wire, buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN):
		case err != nil:
			l.t.Fatal(err)
		case bytes.Equal(buf[6:12], hostMAC) && binary.BigEndian.Uint16(buf[12:]) == unix.ETH_P_IP:
			return buf[:n]
		}
	}
}

// expect returns the next frame from the other end.
func (l *lab) expect() []byte {
	l.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if frame := l.read(); frame != nil {
			return frame
		}
	}
	l.t.Fatal("no frame arrived at the other end")
	return nil
}

// udp builds a frame from the peer.
func udp(t testing.TB, to netip.Addr, port uint16, body []byte) []byte {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: peerIP.AsSlice(), DstIP: to.AsSlice()}
	datagram := &layers.UDP{SrcPort: layers.UDPPort(port), DstPort: 7777}
	if err := datagram.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: peerMAC, DstMAC: hostMAC, EthernetType: layers.EthernetTypeIPv4}, ip, datagram, gopacket.Payload(body))
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// receive waits for n frames on a queue.
func receive(t testing.TB, q queue.Queue, n int) []queue.Frame {
	t.Helper()
	frames := make([]queue.Frame, n)
	got := 0
	for end := time.Now().Add(patience); got < n; {
		m, err := q.Receive(frames[got:])
		if err != nil {
			t.Fatal(err)
		}
		if got += m; m > 0 {
			continue
		}
		if time.Now().After(end) {
			t.Fatalf("received %d frames of %d", got, n)
		}
		if err := q.Wait(100 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	return frames
}

// turn makes a frame one from the host to the peer.
func turn(f *queue.Frame) {
	copy(f.Buf[f.Start:], peerMAC)
	copy(f.Buf[f.Start+6:], hostMAC)
}

// made returns n new frames with the same content, turned.
func made(t testing.TB, q queue.Queue, n int, content []byte) []queue.Frame {
	t.Helper()
	frames := make([]queue.Frame, n)
	if got := q.Alloc(frames); got != n {
		t.Fatalf("%d free frames, want %d", got, n)
	}
	for i := range frames {
		f := &frames[i]
		f.End += uint32(copy(f.Buf[f.Start:], content))
		turn(f)
	}
	return frames
}

// echo returns what is there, and how many frames that was.
func echo(t testing.TB, q queue.Queue, frames []queue.Frame) int {
	n, err := q.Receive(frames)
	if err != nil {
		t.Error(err)
		return 0
	}
	for i := range frames[:n] {
		turn(&frames[i])
	}
	if n > 0 {
		if _, err := q.Send(frames[:n]); err != nil {
			t.Error(err)
		}
	}
	return n
}

// modes runs a test in both modes that a veth has.
func modes(t *testing.T, test func(t *testing.T, mode Mode)) {
	for _, mode := range []Mode{Copy, Generic} {
		t.Run(string(mode), func(t *testing.T) { test(t, mode) })
	}
}

// listen opens a UDP socket of the kernel's, and returns how to read from it.
func listen(t testing.TB, address string) func() string {
	t.Helper()
	socket, err := net.ListenPacket("udp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return func() string {
		t.Helper()
		if err := socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 2048)
		n, _, err := socket.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

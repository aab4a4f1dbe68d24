package engine_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/dataplane/engine"
	"weir/dataplane/flow"
	"weir/dataplane/nic"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
	"weir/dataplane/steer"
)

// patience bounds every wait of a test. It is only spent by one that fails.
const patience = 20 * time.Second

// vip returns the address whose only backend is behind interface egress.
func vip(egress int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(10 + egress)}) }

func serverMAC(egress int) packet.MAC { return packet.MAC{2, 0, 0, 0, 2, byte(egress)} }
func clientMAC() packet.MAC           { return packet.MAC{2, 0, 0, 0, 3, 1} }

// addWire makes a veth pair: weir works the end called name, the test the one
// called name-peer.
func addWire(t testing.TB, name string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	attrs.NumRxQueues, attrs.NumTxQueues = maxQueues, maxQueues
	err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "-peer", PeerNumTxQueues: 1, PeerNumRxQueues: maxQueues})
	if err != nil {
		t.Fatal(err)
	}
	setQueues(t, name, 1)
	setUp(t, name)
	setUp(t, name+"-peer")
}

// maxQueues is how many queues a wire can have. It has one at first.
const maxQueues = 3

func setQueues(t testing.TB, name string, n uint32) {
	t.Helper()
	nic, err := ethtool.NewEthtool()
	if err != nil {
		t.Fatal(err)
	}
	defer nic.Close()
	c, err := nic.GetChannels(name)
	if err != nil {
		t.Fatal(err)
	}
	c.RxCount, c.TxCount = n, n
	if _, err := nic.SetChannels(name, c); err != nil {
		t.Fatalf("set %s to %d queues: %v", name, n, err)
	}
}

func setMTU(t testing.TB, name string, mtu int) {
	t.Helper()
	if err := netlink.LinkSetMTU(linkOf(t, name), mtu); err != nil {
		t.Fatal(err)
	}
}

func linkOf(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func setUp(t testing.TB, name string) {
	t.Helper()
	if err := netlink.LinkSetUp(linkOf(t, name)); err != nil {
		t.Fatal(err)
	}
}

func setDown(t testing.TB, name string) {
	t.Helper()
	if err := netlink.LinkSetDown(linkOf(t, name)); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, name string) {
	t.Helper()
	if l, err := netlink.LinkByName(name); err == nil {
		if err := netlink.LinkDel(l); err != nil {
			t.Fatal(err)
		}
	}
}

// rig is an engine over two wires.
type rig struct {
	*engine.Engine
	t          testing.TB
	names      [2]string
	generation uint64
	payload    int // bytes of payload in each datagram, at least
	cancel     context.CancelFunc
	done       chan error
}

// newRig makes the wires and the engine, which is not open.
func newRig(t testing.TB, with engine.Interface) *rig {
	t.Helper()
	needNamespace(t)
	r := &rig{t: t, names: [2]string{"eth-a", "eth-b"}}
	cfg := engine.Config{FlowEntries: 1024, Timeouts: flow.DefaultTimeouts(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	for _, name := range r.names {
		addWire(t, name)
		t.Cleanup(func() { remove(t, name) })
		with.Name = name
		cfg.Interfaces = append(cfg.Interfaces, with)
	}
	var err error
	if r.Engine, err = engine.New(cfg); err != nil {
		t.Fatal(err)
	}
	return r
}

// run opens and runs the engine with a snapshot.
func (r *rig) run() *rig {
	r.t.Helper()
	if err := r.Open(); err != nil {
		r.t.Fatal(err)
	}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	r.done = make(chan error, 1)
	go func() { r.done <- r.Run(ctx) }()
	r.t.Cleanup(r.stop)
	r.apply()
	return r
}

func (r *rig) stop() {
	r.t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Errorf("Run returned %v", err)
		}
	case <-time.After(patience):
		r.t.Fatal("the engine does not end")
	}
}

// apply puts a snapshot in force that has the interfaces as they are now.
func (r *rig) apply() {
	r.t.Helper()
	r.generation++
	spec := snapshot.Spec{Generation: r.generation}
	var vips []netip.Addr
	for i, s := range r.Interfaces() {
		spec.Interfaces = append(spec.Interfaces, snapshot.Interface{Name: s.Name, MAC: s.MAC, MTU: uint32(s.MTU)})
		rw, err := rewrite.DSR(rewrite.Link{Egress: uint16(i), Src: s.MAC, Dst: serverMAC(i), MTU: s.MTU}, false)
		if err != nil {
			r.t.Fatal(err)
		}
		spec.Backends = append(spec.Backends, snapshot.Backend{
			Rewrite: rw, State: snapshot.Active, Generation: 1, Service: uint32(i),
		})
		spec.Services = append(spec.Services, snapshot.Service{
			Table: []uint16{0}, Members: []uint32{uint32(i)}, Empty: stats.NoBackend,
		})
		spec.VIPs = append(spec.VIPs, snapshot.VIPSpec{
			Addr: packet.Addr16(vip(i)), Proto: packet.ProtoUDP, Lo: 53, Hi: 53, Service: uint32(i),
		})
		vips = append(vips, vip(i))
	}
	snap, err := snapshot.New(spec)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.Apply(snap, steer.Set{VIPs: vips}); err != nil {
		r.t.Fatal(err)
	}
}

// await looks at an interface's state, at first and whenever the engine says
// that something has changed, until it is as wanted.
func (r *rig) await(i int, what string, ok func(engine.InterfaceStatus) bool) engine.InterfaceStatus {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		s := r.Interfaces()[i]
		if ok(s) {
			return s
		}
		select {
		case <-r.Changes():
		case <-deadline:
			r.t.Fatalf("never came: %s; last %+v", what, s)
		}
	}
}

// forwards sends datagrams into the wire of ingress until one comes out of the
// wire of egress as it should. The first may be lost while things settle.
func (r *rig) forwards(ingress, egress, client int) {
	r.t.Helper()
	out := openWire(r.t, r.names[egress]+"-peer")
	defer out.close()
	in := openWire(r.t, r.names[ingress]+"-peer")
	defer in.close()
	frame := packettest.Frame(packettest.Spec{
		SrcMAC: clientMAC(), DstMAC: r.Interfaces()[ingress].MAC, Proto: packet.ProtoUDP,
		Src:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(client)}), 4000),
		Dst:     netip.AddrPortFrom(vip(egress), 53),
		Payload: fmt.Appendf(make([]byte, r.payload), "%d to %d from %d", ingress, egress, client),
	})
	to, from := serverMAC(egress), r.Interfaces()[egress].MAC
	want := append(append(to[:], from[:]...), frame[12:]...)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		in.send(frame)
		for got := out.receive(); got != nil; got = out.receive() {
			if bytes.Equal(got, want) {
				return
			}
		}
	}
	r.t.Fatalf("no datagram came from %s to %s; workers: %+v", r.names[ingress], r.names[egress], r.Status(context.Background()))
}

// wire is a packet socket on the far end of one of weir's interfaces.
type wire struct {
	t  testing.TB
	fd int
}

func openWire(t testing.TB, name string) *wire {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{t, fd}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	for _, err := range []error{
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50000}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: linkOf(t, name).Attrs().Index}),
	} {
		if err != nil {
			w.close()
			t.Fatal(err)
		}
	}
	return w
}

func (w *wire) close() { _ = unix.Close(w.fd) }

func (w *wire) send(frame []byte) {
	_, _ = unix.Write(w.fd, frame) // the link may be down at the moment
}

// receive returns the next frame, or nil if none comes for a while.
func (w *wire) receive() []byte {
	buf := make([]byte, 4096)
	n, err := unix.Read(w.fd, buf)
	if err != nil {
		return nil
	}
	return buf[:n]
}

func drivers() map[string]engine.Interface {
	return map[string]engine.Interface{
		"auto":     {Driver: nic.Auto},
		"generic":  {Driver: nic.AFXDP, XDPModes: modes("generic")},
		"copy":     {Driver: nic.AFXDP, XDPModes: modes("copy")},
		"afpacket": {Driver: nic.AFPacket},
	}
}

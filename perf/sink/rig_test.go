package sink

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/lab/labtest"
	"weir/lab/netlab"
)

const port = 9

// newHosts returns two hosts with a cable between eth0 of each.
func newHosts(t testing.TB, mtu int) (near, far *netlab.Host) {
	t.Helper()
	labtest.NeedRoot(t)
	lab, err := netlab.New("sink")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	var hosts [2]*netlab.Host
	for i, name := range []string{"near", "far"} {
		h, err := lab.Host(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.default.disable_ipv6"} {
			if err := h.Sysctl(key, "1"); err != nil {
				t.Fatal(err)
			}
		}
		hosts[i] = h
	}
	near, far = hosts[0], hosts[1]
	if err := near.ConnectTo(far, netlab.Iface{Name: "eth0", MTU: mtu}, netlab.Iface{Name: "eth0", MTU: mtu}); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// openOn opens a sink on the host's cable.
func openOn(t testing.TB, h *netlab.Host, opt Options) *Sink {
	t.Helper()
	link, err := h.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	opt.Interface, opt.Port = link.Index, port
	var s *Sink
	err = h.Do(func() (err error) {
		s, err = Open(opt)
		return err
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSink(t, s) })
	return s
}

func closeSink(t testing.TB, s *Sink) {
	t.Helper()
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// program returns the sink's own program, and its verdicts.
func (s *Sink) program(hook Hook) (p *ebpf.Program, taken, left uint32) {
	if hook == XDP {
		return s.objects.Programs[sinkProgCountXdp], 1, 2 // XDP_DROP, XDP_PASS
	}
	return s.objects.Programs[sinkProgCountSkb], 2, 0xffffffff // TC_ACT_SHOT, TC_ACT_UNSPEC
}

// run gives the program a frame, and returns whether it was taken.
func run(t testing.TB, s *Sink, hook Hook, frame []byte) bool {
	t.Helper()
	p, taken, left := s.program(hook)
	verdict, err := p.Run(&ebpf.RunOptions{Data: frame})
	if err != nil {
		t.Fatal(err)
	}
	if verdict != taken && verdict != left {
		t.Fatalf("verdict %d", int32(verdict))
	}
	return verdict == taken
}

func read(t testing.TB, s *Sink) Reading {
	t.Helper()
	r, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// hooks runs a test on both, on the same host.
func hooks(t *testing.T, f func(t *testing.T, host *netlab.Host, hook Hook)) {
	host, _ := newHosts(t, 0)
	for hook, name := range map[Hook]string{TCX: "TCX", XDP: "XDP"} {
		t.Run(name, func(t *testing.T) { f(t, host, hook) })
	}
}

// spec is a frame of the kind without its tunnel, made by gopacket.
func spec(k Kind, payload []byte) packettest.Spec {
	s := packettest.Spec{
		Src: netip.MustParseAddrPort("198.18.0.1:1024"), Dst: netip.AddrPortFrom(netip.MustParseAddr("203.0.113.10"), port),
		Proto: packet.ProtoUDP, Payload: payload,
	}
	if k.Family == IPv6 {
		s.Src, s.Dst = netip.MustParseAddrPort("[2001:2::1]:1024"), netip.AddrPortFrom(netip.MustParseAddr("2001:db8::10"), port)
	}
	switch k.Protocol {
	case Opening:
		s.Proto, s.TCPFlags, s.TCPOptions = packet.ProtoTCP, packet.TCPSyn, true
	case Segment:
		s.Proto, s.TCPFlags = packet.ProtoTCP, packet.TCPAck
	}
	return s
}

// frameOf returns a frame of the kind.
func frameOf(k Kind, payload []byte) []byte { return inTunnel(k, packettest.Frame(spec(k, payload))) }

// inTunnel puts a frame's packet into the kind's tunnel.
func inTunnel(k Kind, frame []byte) []byte {
	proto := map[Family]uint8{IPv4: unix.IPPROTO_IPIP, IPv6: unix.IPPROTO_IPV6}[k.Family]
	switch k.Tunnel {
	case InIPv4:
		return packettest.Frame(packettest.Spec{
			Src: netip.MustParseAddrPort("10.0.0.1:0"), Dst: netip.MustParseAddrPort("10.0.0.2:0"), Proto: proto, Payload: frame[14:],
		})
	case InIPv6:
		return packettest.Frame(packettest.Spec{
			Src: netip.MustParseAddrPort("[fd00::1]:0"), Dst: netip.MustParseAddrPort("[fd00::2]:0"), Proto: proto, Payload: frame[14:],
		})
	}
	return frame
}

package l2

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	mdpacket "github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/controlplane/announce"
	"weir/dataplane/packet"
	"weir/lab/labtest"
	"weir/lab/netlab"
)

// newLAN makes a lab of two hosts on one cable, both with an interface eth1.
func newLAN(t *testing.T) (weir, other *netlab.Host) {
	t.Helper()
	labtest.NeedRoot(t)
	lab, err := netlab.New("l2")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	weir, err = lab.Host("weir")
	if err != nil {
		t.Fatal(err)
	}
	other, err = lab.Host("other")
	if err != nil {
		t.Fatal(err)
	}
	if err := weir.ConnectTo(other, netlab.Iface{Name: "eth1"}, netlab.Iface{Name: "eth1"}); err != nil {
		t.Fatal(err)
	}
	return weir, other
}

// claims reads what another station says on the weir's interface, as the data
// plane does, until the test ends.
func claims(t *testing.T, h *netlab.Host, tell func(Claim)) {
	t.Helper()
	var conn *mdpacket.Conn
	err := h.Do(func() error {
		ifi, err := net.InterfaceByName("eth1")
		if err != nil {
			return err
		}
		conn, err = mdpacket.Listen(ifi, mdpacket.Raw, unix.ETH_P_ALL, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if c, is := claimIn(buf[:n]); is {
				tell(c)
			}
		}
	}()
}

func claimIn(frame []byte) (Claim, bool) {
	if len(frame) < packet.EthernetLen+packet.ARPLen {
		return Claim{}, false
	}
	eth := packet.Ethernet(frame)
	switch body := eth.Payload(); eth.Type() {
	case packet.EtherTypeARP:
		if arp := packet.ARP(body); arp.IsEthernetIPv4() && arp.Operation() == packet.ARPReply {
			return Claim{Address: netip.AddrFrom4(arp.SenderIP()), MAC: arp.SenderMAC(), Interface: "eth1"}, true
		}
	case packet.EtherTypeIPv6:
		ip := packet.IPv6(body)
		if ip.NextHeader() != packet.ProtoICMPv6 || len(ip.Payload()) < packet.NeighborLen {
			return Claim{}, false
		}
		if icmp := packet.ICMPv6(ip.Payload()); icmp.Type() == packet.ICMPv6NeighborAdvert {
			return Claim{Address: netip.AddrFrom16(icmp.Target()), MAC: eth.Src(), Interface: "eth1"}, true
		}
	}
	return Claim{}, false
}

// A kernel that has an address is found by the probe for it, and one that has old
// news of an address learns from the announcement.
func TestRealFrames(t *testing.T) {
	weir, other := newLAN(t)
	taken4, taken6 := netip.MustParseAddr("203.0.113.66"), netip.MustParseAddr("2001:db8:1::66")
	for _, a := range []netip.Addr{taken4, taken6} {
		if err := other.AddAddr("eth1", netip.PrefixFrom(a, a.BitLen())); err != nil {
			t.Fatal(err)
		}
	}
	old := net.HardwareAddr{2, 0, 0, 0, 0, 99}
	err := other.Do(func() error {
		l, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		for _, a := range []netip.Addr{vip4(), vip6()} {
			err = errors.Join(err, netlink.NeighSet(&netlink.Neigh{
				LinkIndex: l.Attrs().Index, IP: a.AsSlice(), HardwareAddr: old, State: netlink.NUD_STALE,
			}))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	eth1, err := weir.Link("eth1")
	if err != nil {
		t.Fatal(err)
	}

	a := New("lb1", nil, slog.New(slog.DiscardHandler))
	a.SetInterfaces([]Interface{{Name: "eth1", MAC: packet.MAC(eth1.MAC), Up: true, Workers: true}})
	a.Set(advertise(vip4(), vip6(), taken4, taken6))
	claims(t, weir, a.Claim)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- weir.Do(func() error { return a.Run(ctx) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	want := map[netip.Addr]announce.State{
		vip4(): announce.Announced, vip6(): announce.Announced, taken4: announce.Conflict, taken6: announce.Conflict,
	}
	until(t, func() (string, bool) {
		var wrong []string
		for _, s := range a.Status() {
			if s.State != want[s.Address.Addr()] {
				wrong = append(wrong, s.Address.String()+" is "+string(s.State))
			}
		}
		return strings.Join(wrong, ", "), len(wrong) == 0 && len(a.Status()) == len(want)
	})
	until(t, func() (string, bool) {
		var macs []string
		err := other.Do(func() error {
			list, err := netlink.NeighList(0, 0)
			for _, n := range list {
				if ip, _ := netip.AddrFromSlice(n.IP); ip.Unmap() == vip4() || ip == vip6() {
					macs = append(macs, n.HardwareAddr.String())
				}
			}
			return err
		})
		is := eth1.MAC.String()
		return strings.Join(macs, " "), err == nil && len(macs) == 2 && macs[0] == is && macs[1] == is
	})
	other6, err := other.Link("eth1")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range a.Status() {
		if s.State == announce.Conflict && s.Owner != other6.MAC.String() {
			t.Errorf("%v is said to be at %s, not %v", s.Address, s.Owner, other6.MAC)
		}
	}
}

// A queue that does not drain is the link's error, be it that it is full or that the
// socket may have no more in it.
func TestQueueDoesNotDrain(t *testing.T) {
	for _, tc := range []struct {
		name  string
		limit uint32 // of the queue, in bytes
		want  error
	}{
		{"the socket is full", 1 << 20, os.ErrDeadlineExceeded},
		{"the queue is full", 1 << 10, unix.ENOBUFS},
	} {
		t.Run(tc.name, func(t *testing.T) {
			weir, _ := newLAN(t)
			frames := make([]message, 5000)
			for i := range frames {
				frames[i] = message{addr: vip4(), frame: Frame(vip4(), mac1())}
			}
			err := weir.Do(func() error {
				l, err := netlink.LinkByName("eth1")
				if err != nil {
					return err
				}
				return netlink.QdiscReplace(&netlink.Tbf{
					QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
					Rate:       1000, Limit: tc.limit, Buffer: netlink.Xmittime(1000, 1500), // bytes
				})
			})
			if err != nil {
				t.Fatal(err)
			}
			err = weir.Do(func() error { return packetLink{}.send("eth1", frames) })
			if !errors.Is(err, tc.want) {
				t.Errorf("error is %v, want %v", err, tc.want)
			}
		})
	}
}

func TestInterfaceThatIsNotThere(t *testing.T) {
	err := packetLink{}.send("weir-none0", []message{{addr: vip4(), frame: Frame(vip4(), mac1())}})
	if err == nil || !strings.Contains(err.Error(), "look up interface") {
		t.Errorf("error %v", err)
	}
}

// until waits until a condition holds; what it says else is for the failure.
func until(t *testing.T, is func() (string, bool)) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		what, ok := is()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in 20 s: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

package l2

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

func mac1() packet.MAC { return packet.MAC{2, 0, 0, 0, 0, 1} }

func vip4() netip.Addr { return netip.MustParseAddr("203.0.113.10") }
func vip6() netip.Addr { return netip.MustParseAddr("2001:db8:1::10") }

func decode(t *testing.T, frame []byte) gopacket.Packet {
	t.Helper()
	if err := packettest.CheckWellFormed(frame); err != nil {
		t.Fatal(err)
	}
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatal(e.Error())
	}
	return p
}

// RFC 5227 section 3: sender and target protocol address are the announced one.
func TestFrameARP(t *testing.T) {
	p := decode(t, Frame(vip4(), mac1()))
	eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	if eth.DstMAC.String() != "ff:ff:ff:ff:ff:ff" || eth.SrcMAC.String() != mac1().String() {
		t.Errorf("from %s to %s", eth.SrcMAC, eth.DstMAC)
	}
	arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP)
	if !ok {
		t.Fatal("no ARP in it")
	}
	ip := net.IP(vip4().AsSlice())
	if arp.Operation != layers.ARPRequest || !ip.Equal(arp.SourceProtAddress) || !ip.Equal(arp.DstProtAddress) ||
		net.HardwareAddr(arp.SourceHwAddress).String() != mac1().String() || !slices.Equal(arp.DstHwAddress, make([]byte, 6)) {
		t.Errorf("%+v", arp)
	}
}

// RFC 4861 section 7.2.6: to all nodes, not solicited, override, with the
// target link-layer address; section 7.1.2: hop limit 255.
func TestFrameNDP(t *testing.T) {
	p := decode(t, Frame(vip6(), mac1()))
	eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	if eth.DstMAC.String() != "33:33:00:00:00:01" || eth.SrcMAC.String() != mac1().String() {
		t.Errorf("from %s to %s", eth.SrcMAC, eth.DstMAC)
	}
	ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	if ip.SrcIP.String() != vip6().String() || ip.DstIP.String() != "ff02::1" || ip.HopLimit != 255 {
		t.Errorf("%+v", ip)
	}
	na, ok := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
	if !ok {
		t.Fatal("no neighbour advertisement in it")
	}
	if na.Router() || na.Solicited() || !na.Override() || na.TargetAddress.String() != vip6().String() {
		t.Errorf("%+v", na)
	}
	if len(na.Options) != 1 || na.Options[0].Type != layers.ICMPv6OptTargetAddress ||
		net.HardwareAddr(na.Options[0].Data).String() != mac1().String() {
		t.Errorf("options %+v", na.Options)
	}
}

// diary notes what is announced, and when.
type diary struct {
	start time.Time

	mu    sync.Mutex
	lines []string
	err   error // what announce returns
}

func (d *diary) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *diary) announce(i Interface, vips []netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf("%v %s %s %v", time.Since(d.start), i.Name, i.MAC, vips))
	return d.err
}

// since returns the lines after the first n.
func (d *diary) since(n int) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines[min(n, len(d.lines)):])
}

// running starts an announcer in a test's bubble, where time only passes when
// the test sleeps.
func running(t *testing.T) (*Announcer, *diary) {
	t.Helper()
	d := &diary{start: time.Now()}
	a := New(slog.New(slog.DiscardHandler))
	a.announce = d.announce
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	synctest.Wait()
	return a, d
}

func eth1(up bool) []Interface { return []Interface{{"eth1", mac1(), up}} }

func TestAnnouncesInBurstsAndThenFromTimeToTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, d := running(t)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(d.since(0)) > 0 {
			t.Errorf("announced nothing: %q", d.since(0))
		}
		a.Set([]netip.Addr{vip4()}, eth1(true))
		time.Sleep(150 * time.Second)
		synctest.Wait()
		var want []string
		for _, at := range []string{"10s", "11s", "12s", "1m12s", "2m12s"} {
			want = append(want, at+" eth1 02:00:00:00:00:01 [203.0.113.10]")
		}
		if got := d.since(0); !slices.Equal(got, want) {
			t.Errorf("announced\n%q, want\n%q", got, want)
		}
		s := a.Status()[Key{vip4(), "eth1"}]
		if s.Sent != 5 || time.Since(s.Last) != 28*time.Second || s.Err != "" {
			t.Errorf("status %+v", s)
		}
	})
}

func TestAnnouncesAChangeAtOnce(t *testing.T) {
	for _, tc := range []struct {
		name       string
		vips       []netip.Addr
		interfaces []Interface
		want       string // "" for nothing
	}{
		{"another VIP", []netip.Addr{vip4(), vip6()}, eth1(true), "eth1 02:00:00:00:00:01 [203.0.113.10 2001:db8:1::10]"},
		{"another MAC", []netip.Addr{vip4()}, []Interface{{"eth1", packet.MAC{2, 0, 0, 0, 0, 9}, true}}, "eth1 02:00:00:00:00:09 [203.0.113.10]"},
		{"the same again", []netip.Addr{vip4()}, eth1(true), ""},
		{"link down", []netip.Addr{vip4()}, eth1(false), ""},
		{"no VIP left", nil, eth1(true), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, d := running(t)
				a.Set([]netip.Addr{vip4()}, eth1(true))
				time.Sleep(30 * time.Second) // the burst is over, the next round is far off
				synctest.Wait()
				n := len(d.since(0))
				a.Set(tc.vips, tc.interfaces)
				synctest.Wait()
				switch got := d.since(n); {
				case tc.want == "" && len(got) != 0:
					t.Errorf("announced %q", got)
				case tc.want != "" && !slices.Equal(got, []string{"30s " + tc.want}):
					t.Errorf("announced %q, want %q", got, tc.want)
				}
				time.Sleep(2 * burstInterval)
				synctest.Wait()
				if got := len(d.since(n)); tc.want != "" && got != burst {
					t.Errorf("%d rounds, want %d", got, burst)
				}
			})
		})
	}
}

func TestAnnouncesALinkThatComesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, d := running(t)
		both := func(second bool) []Interface {
			return []Interface{{"eth1", mac1(), true}, {"eth2", packet.MAC{2, 0, 0, 0, 0, 2}, second}}
		}
		a.Set([]netip.Addr{vip4()}, both(false))
		synctest.Wait()
		if got := d.since(0); len(got) != 1 {
			t.Errorf("announced %q", got)
		}
		if _, known := a.Status()[Key{vip4(), "eth2"}]; !known {
			t.Error("an announcement that waits for its link is not in the status")
		}
		a.Set([]netip.Addr{vip4()}, both(true))
		synctest.Wait()
		if got := d.since(0); len(got) != 3 || got[2] != "0s eth2 02:00:00:00:00:02 [203.0.113.10]" {
			t.Errorf("announced %q", got)
		}
	})
}

func TestStatusOfFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, d := running(t)
		d.fail(errors.New("no buffer space"))
		a.Set([]netip.Addr{vip4()}, eth1(true))
		synctest.Wait()
		if s := a.Status()[Key{vip4(), "eth1"}]; s.Err != "no buffer space" || s.Sent != 0 || !s.Last.IsZero() {
			t.Errorf("after a failure: %+v", s)
		}
		d.fail(nil)
		time.Sleep(burstInterval)
		synctest.Wait()
		if s := a.Status()[Key{vip4(), "eth1"}]; s.Err != "" || s.Sent != 1 {
			t.Errorf("after a success: %+v", s)
		}
		a.Set(nil, eth1(true))
		if s := a.Status(); len(s) != 0 {
			t.Errorf("what is not announced any more has a status: %v", s)
		}
	})
}

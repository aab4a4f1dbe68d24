package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"

	"weir/controlplane/api"
	"weir/dataplane/packet"
	"weir/lab/netlab"
	"weir/lab/site"
)

// link returns the MAC of a host's interface.
func (s *testSite) link(h *netlab.Host, name string) packet.MAC {
	s.t.Helper()
	l, err := h.Link(name)
	s.must(err)
	return packet.MAC(l.MAC)
}

// neighbour returns the MAC that a host's kernel has for an address, nil for
// none.
func (s *testSite) neighbour(h *netlab.Host, addr netip.Addr) (mac net.HardwareAddr) {
	s.t.Helper()
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	s.must(h.Do(func() error {
		all, err := netlink.NeighList(0, family)
		for _, n := range all {
			if n.IP.Equal(addr.AsSlice()) {
				mac = n.HardwareAddr
			}
		}
		return err
	}))
	return mac
}

// TestAnnouncements asks weir for its VIPs as neighbours do, with the kernel of
// a client, and sees that it also tells of them unasked.
func TestAnnouncements(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, d driver) {
		s := newSite(t, site.Options{Driver: d.driver, XDPMode: d.xdpMode})
		// Before a fail-over, a client knows the MAC of the former holder.
		former := net.HardwareAddr{2, 0, 0, 0, 0, 0x99}
		s.must(s.ClientHost.Do(func() error {
			ifi, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			for _, vip := range s.VIPs() {
				err = errors.Join(err, netlink.NeighSet(&netlink.Neigh{
					LinkIndex: ifi.Attrs().Index, State: netlink.NUD_STALE, IP: vip.Addr().AsSlice(), HardwareAddr: former,
				}))
			}
			return err
		}))
		client := tap(t, s.ClientHost, "eth0")
		s.start()
		weir := s.link(s.WeirHost, site.Front)

		for _, vip := range s.VIPs() {
			s.await("announcement of "+vip.Addr().String(), func() error {
				if len(client.received(func(f []byte) bool { return isAnnouncement(f, vip.Addr(), weir) })) == 0 {
					return errors.New("the client has seen none")
				}
				return nil
			})
			s.await("the client's neighbour entry is weir", func() error {
				if got := s.neighbour(s.ClientHost, vip.Addr()); !bytes.Equal(got, weir[:]) {
					return fmt.Errorf("%s is at %s, want %v", vip.Addr(), got, weir)
				}
				return nil
			})
		}
		for _, vip := range s.VIPs() {
			s.must(s.ClientHost.DelNeigh(vip.Addr(), "eth0"))
			s.must(s.ping(vip.Addr()))
			if got := s.neighbour(s.ClientHost, vip.Addr()); !bytes.Equal(got, weir[:]) {
				t.Errorf("asked for %s, the client got %s, want %v", vip.Addr(), got, weir)
			}
		}
		w := get[[]api.Worker](s, "workers")[0]
		if w.ARPReplies < 2 || w.NDPReplies < 2 || w.EchoReplies < 4 {
			t.Errorf("weir says it answered %d ARP and %d NDP requests and %d pings, want 2, 2 and 4 at least", w.ARPReplies, w.NDPReplies, w.EchoReplies)
		}
		s.await("the api has all announcements", func() error {
			announced := get[[]api.Announcement](s, "announcements")
			if len(announced) != len(s.VIPs()) {
				return fmt.Errorf("announced are %v, want each VIP once", announced)
			}
			for _, a := range announced {
				if a.Sent == 0 || a.Error != "" {
					return fmt.Errorf("announcement of %s was sent %d times, error %q", a.Address, a.Sent, a.Error)
				}
			}
			return nil
		})

		// An address that was taken away is not answered for any more.
		s.reload(func(c *site.Config) { c.Services = c.Services[2:] })
		s.must(s.ClientHost.DelNeigh(s.DSR4.Addr(), "eth0"))
		if err := s.ping(s.DSR4.Addr()); err == nil {
			t.Errorf("%s is answered for, though no service has it", s.DSR4.Addr())
		}
		s.must(s.ping(s.IPIP4.Addr()))
	}, xdpCopy, xdpGeneric, afPacket)
}

// isAnnouncement says whether a frame is a gratuitous ARP or an unsolicited
// neighbour advertisement that says that addr is at mac.
func isAnnouncement(frame []byte, addr netip.Addr, mac packet.MAC) bool {
	p := layersOf(frame)
	if arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
		return bytes.Equal(arp.SourceProtAddress, arp.DstProtAddress) &&
			bytes.Equal(arp.SourceProtAddress, addr.AsSlice()) && bytes.Equal(arp.SourceHwAddress, mac[:])
	}
	advert, ok := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
	if !ok || advert.Solicited() || !advert.Override() || !advert.TargetAddress.Equal(addr.AsSlice()) {
		return false
	}
	for _, option := range advert.Options {
		if option.Type == layers.ICMPv6OptTargetAddress && bytes.Equal(option.Data, mac[:]) {
			return true
		}
	}
	return false
}

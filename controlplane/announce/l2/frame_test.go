package l2

import (
	"net"
	"net/netip"
	"slices"
	"testing"

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

// RFC 5227 section 2.1.1: sender protocol address all zero, target hardware
// address all zero.
func TestProbeARP(t *testing.T) {
	p := decode(t, Probe(vip4(), mac1()))
	eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	if eth.DstMAC.String() != "ff:ff:ff:ff:ff:ff" || eth.SrcMAC.String() != mac1().String() {
		t.Errorf("from %s to %s", eth.SrcMAC, eth.DstMAC)
	}
	arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP)
	if !ok {
		t.Fatal("no ARP in it")
	}
	if arp.Operation != layers.ARPRequest || !slices.Equal(arp.SourceProtAddress, make([]byte, 4)) ||
		!net.IP(vip4().AsSlice()).Equal(arp.DstProtAddress) ||
		net.HardwareAddr(arp.SourceHwAddress).String() != mac1().String() || !slices.Equal(arp.DstHwAddress, make([]byte, 6)) {
		t.Errorf("%+v", arp)
	}
}

// RFC 4862 section 5.4.2: from the unspecified address to the solicited-node
// group; RFC 4861 section 4.3: then without the source link-layer address.
func TestProbeNDP(t *testing.T) {
	p := decode(t, Probe(vip6(), mac1()))
	eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	if eth.DstMAC.String() != "33:33:ff:00:00:10" || eth.SrcMAC.String() != mac1().String() {
		t.Errorf("from %s to %s", eth.SrcMAC, eth.DstMAC)
	}
	ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	if ip.SrcIP.String() != "::" || ip.DstIP.String() != "ff02::1:ff00:10" || ip.HopLimit != 255 {
		t.Errorf("%+v", ip)
	}
	ns, ok := p.Layer(layers.LayerTypeICMPv6NeighborSolicitation).(*layers.ICMPv6NeighborSolicitation)
	if !ok {
		t.Fatal("no neighbour solicitation in it")
	}
	if ns.TargetAddress.String() != vip6().String() || len(ns.Options) != 0 {
		t.Errorf("%+v", ns)
	}
}

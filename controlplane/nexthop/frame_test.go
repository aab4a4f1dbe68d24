package nexthop

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/net/bpf"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

var (
	backend6 = netip.MustParseAddr("2001:db8::9")
	own6     = netip.MustParseAddr("2001:db8::2")
)

// A buffer that is used again must leave no trace.
func dirty() *[frameMax]byte {
	buf := new([frameMax]byte)
	for i := range buf {
		buf[i] = 0xff
	}
	return buf
}

func TestFrameOfAsksEverybody(t *testing.T) {
	spec := func(src netip.Addr) packettest.Spec {
		return packettest.Spec{SrcMAC: packet.MAC(eth1.mac), Src: netip.AddrPortFrom(src, 0)}
	}
	for _, tt := range []struct {
		q    question
		want []byte
	}{
		{question{neighKey{2, backend}, MAC{}, eth1.mac, own}, packettest.ARPRequest(spec(own), backend)},
		{question{neighKey{2, backend6}, MAC{}, eth1.mac, own6}, packettest.NeighborSolicitation(spec(own6), backend6)},
	} {
		if got := frameOf(&tt.q, dirty()); !bytes.Equal(got, tt.want) {
			t.Errorf("%v:\n got %x\nwant %x", tt.q.addr, got, tt.want)
		}
	}
}

// A question to one owner differs from one to everybody in where it goes, and
// in that ARP has a field for that too.
func TestFrameOfAsksOne(t *testing.T) {
	for _, q := range []question{
		{neighKey{2, backend}, serverMAC, eth1.mac, own},
		{neighKey{2, backend6}, serverMAC, eth1.mac, own6},
	} {
		frame := frameOf(&q, dirty())
		if err := packettest.CheckWellFormed(frame); err != nil {
			t.Errorf("%v: %v", q.addr, err)
		}
		p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
		if eth.DstMAC.String() != serverMAC.String() || eth.SrcMAC.String() != eth1.mac.String() {
			t.Errorf("%v: from %v to %v", q.addr, eth.SrcMAC, eth.DstMAC)
		}
		if q.addr.Is4() {
			arp := p.Layer(layers.LayerTypeARP).(*layers.ARP)
			if arp.Operation != layers.ARPRequest || !bytes.Equal(arp.DstHwAddress, serverMAC[:]) ||
				!bytes.Equal(arp.SourceHwAddress, eth1.mac[:]) || !bytes.Equal(arp.DstProtAddress, backend.AsSlice()) ||
				!bytes.Equal(arp.SourceProtAddress, own.AsSlice()) {
				t.Errorf("got %+v", arp)
			}
			continue
		}
		ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
		ns := p.Layer(layers.LayerTypeICMPv6NeighborSolicitation).(*layers.ICMPv6NeighborSolicitation)
		if !ip.DstIP.Equal(backend6.AsSlice()) || !ip.SrcIP.Equal(own6.AsSlice()) || ip.HopLimit != 255 ||
			!ns.TargetAddress.Equal(backend6.AsSlice()) || len(ns.Options) != 1 ||
			ns.Options[0].Type != layers.ICMPv6OptSourceAddress || !bytes.Equal(ns.Options[0].Data, eth1.mac[:]) {
			t.Errorf("got %+v %+v", ip, ns)
		}
	}
}

// The frames of answerOf's tests.
func arpFrame(operation uint16) []byte {
	frame := make([]byte, packet.EthernetLen+packet.ARPLen)
	packet.Ethernet(frame).Encode(&packet.EthernetFields{Dst: packet.MAC(eth1.mac), Src: packet.MAC(serverMAC), Type: packet.EtherTypeARP})
	packet.ARP(frame[packet.EthernetLen:]).Encode(&packet.ARPFields{
		Operation: operation, SenderMAC: packet.MAC(serverMAC), SenderIP: backend.As4(),
		TargetMAC: packet.MAC(eth1.mac), TargetIP: own.As4(),
	})
	return frame
}

func advertisement() []byte {
	frame := make([]byte, packet.EthernetLen+packet.IPv6Len+packet.NeighborAdvertLen)
	packet.Ethernet(frame).Encode(&packet.EthernetFields{Dst: packet.MAC(eth1.mac), Src: packet.MAC(routerMAC), Type: packet.EtherTypeIPv6})
	ip := packet.IPv6(frame[packet.EthernetLen:])
	ip.Encode(&packet.IPv6Fields{
		PayloadLength: packet.NeighborAdvertLen, NextHeader: packet.ProtoICMPv6, HopLimit: packet.NDPHopLimit,
		Src: backend6.As16(), Dst: own6.As16(),
	})
	packet.ICMPv6(ip.Payload()).EncodeNeighborAdvert(&packet.NeighborAdvertFields{
		Solicited: true, Override: true, Target: backend6.As16(), TargetMAC: packet.MAC(serverMAC), Src: backend6.As16(), Dst: own6.As16(),
	})
	return frame
}

func TestAnswerOf(t *testing.T) {
	with := func(frame []byte, at int, value byte) []byte { frame[at] = value; return frame }
	const ip6, icmp6 = packet.EthernetLen, packet.EthernetLen + packet.IPv6Len
	for _, tt := range []struct {
		name   string
		frame  []byte
		addr   netip.Addr // invalid if it is no answer
		mac    MAC
		passed bool // by the socket's filter
	}{
		{"ARP reply", arpFrame(packet.ARPReply), backend, serverMAC, true},
		{"ARP reply with padding", append(arpFrame(packet.ARPReply), make([]byte, 18)...), backend, serverMAC, true},
		{"ARP request", arpFrame(packet.ARPRequest), netip.Addr{}, MAC{}, false},
		{"ARP for something else", with(arpFrame(packet.ARPReply), packet.EthernetLen+4, 8), netip.Addr{}, MAC{}, true},
		{"short ARP", arpFrame(packet.ARPReply)[:41], netip.Addr{}, MAC{}, true},
		{"advertisement", advertisement(), backend6, serverMAC, true},
		{"advertisement that names no MAC", advertisement()[:icmp6+packet.NeighborLen], backend6, MAC{}, true},
		{"solicitation", with(advertisement(), icmp6, packet.ICMPv6NeighborSolicit), netip.Addr{}, MAC{}, false},
		{"advertisement from afar", with(advertisement(), ip6+7, 254), netip.Addr{}, MAC{}, true},
		{"UDP", with(advertisement(), ip6+6, packet.ProtoUDP), netip.Addr{}, MAC{}, false},
		{"short advertisement", advertisement()[:icmp6+20], netip.Addr{}, MAC{}, true},
		{"empty", nil, netip.Addr{}, MAC{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if addr, mac, ok := answerOf(tt.frame); addr != tt.addr || mac != tt.mac || ok != tt.addr.IsValid() {
				t.Errorf("got %v, %v, %v", addr, mac, ok)
			}
			// The filter is run without its first two instructions, which
			// ask the kernel whom the frame is for.
			instructions := arpReplies()
			if len(tt.frame) > 13 && tt.frame[12] == 0x86 {
				instructions = neighbourAdvertisements()
			}
			vm, err := bpf.NewVM(instructions[2:])
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := vm.Run(tt.frame); n > 0 != tt.passed {
				t.Errorf("the filter lets %d bytes in", n)
			}
		})
	}
}

func FuzzAnswerOf(f *testing.F) {
	f.Add(arpFrame(packet.ARPReply))
	f.Add(advertisement())
	f.Add(advertisement()[:packet.EthernetLen+packet.IPv6Len+packet.NeighborLen])
	f.Fuzz(func(t *testing.T, frame []byte) {
		addr, _, ok := answerOf(frame)
		if ok != addr.IsValid() {
			t.Errorf("%x: got %v, %v", frame, addr, ok)
		}
		if !ok {
			return
		}
		// gopacket agrees that it is an answer, and whose, wherever it can
		// read the frame at all.
		p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		if arp, is := p.Layer(layers.LayerTypeARP).(*layers.ARP); is && p.ErrorLayer() == nil {
			if arp.Operation != layers.ARPReply || !bytes.Equal(arp.SourceProtAddress, addr.AsSlice()) {
				t.Errorf("%x: got %v, want %+v", frame, addr, arp)
			}
		}
		if na, is := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement); is {
			if !na.TargetAddress.Equal(addr.AsSlice()) {
				t.Errorf("%x: got %v, want %v", frame, addr, na.TargetAddress)
			}
		}
	})
}

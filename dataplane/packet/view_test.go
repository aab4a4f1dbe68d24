package packet_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

// rounds is how many random headers each view is compared on.
const rounds = 300

// values makes random fields, the same on every run.
type values struct{ *rand.Rand }

func newValues() values { return values{rand.New(rand.NewPCG(1, 2))} }

func (v values) u8() uint8           { return uint8(v.Uint32()) }
func (v values) u16() uint16         { return uint16(v.Uint32()) }
func (v values) bool() bool          { return v.Uint32()&1 != 0 }
func (v values) mac() (m packet.MAC) { v.fill(m[:]); return m }
func (v values) a4() (a [4]byte)     { v.fill(a[:]); return a }
func (v values) a16() (a [16]byte)   { v.fill(a[:]); return a }

func (v values) fill(b []byte) []byte {
	for i := range b {
		b[i] = v.u8()
	}
	return b
}

// encode is gopacket's encoding of layers, with lengths and checksums as they
// are in the layers.
func encode(t *testing.T, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{}, l...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// same compares bytes that a view wrote over noise with gopacket's.
func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Fatalf("%s:\n got %x\nwant %x", what, got, want)
	}
}

// equal compares what a view's accessor returns.
func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func TestEthernetAndVLANTag(t *testing.T) {
	v := newValues()
	for range rounds {
		f := packet.EthernetFields{Dst: v.mac(), Src: v.mac(), Type: v.u16() | 0x800}
		tag := packet.VLANFields{ID: v.u16() & 0xfff, Priority: v.u8() & 7, DropEligible: v.bool(), Type: v.u16()}
		want := encode(t,
			&layers.Ethernet{DstMAC: f.Dst.HardwareAddr(), SrcMAC: f.Src.HardwareAddr(), EthernetType: layers.EthernetType(f.Type)},
			&layers.Dot1Q{VLANIdentifier: tag.ID, Priority: tag.Priority, DropEligible: tag.DropEligible, Type: layers.EthernetType(tag.Type)})
		want = want[:packet.EthernetLen+packet.VLANTagLen] // gopacket pads

		got := v.fill(make([]byte, packet.EthernetLen+packet.VLANTagLen))
		packet.Ethernet(got).Encode(&f)
		q := packet.VLANTag(packet.Ethernet(got).Payload())
		q.Encode(&tag)
		same(t, "Encode", got, want)

		e := packet.Ethernet(want)
		equal(t, "fields", packet.EthernetFields{Dst: e.Dst(), Src: e.Src(), Type: e.Type()}, f)
		equal(t, "tag", packet.VLANFields{
			ID: q.ID(), Priority: q.Priority(), DropEligible: q.DropEligible(), Type: q.Type(),
		}, tag)

		tag.ID, tag.Priority = v.u16()&0xfff, v.u8()&7
		q.SetID(tag.ID)
		q.SetPriority(tag.Priority)
		same(t, "tag setters", q, encode(t, &layers.Dot1Q{
			VLANIdentifier: tag.ID, Priority: tag.Priority, DropEligible: tag.DropEligible, Type: layers.EthernetType(tag.Type),
		}))
	}
}

func TestARP(t *testing.T) {
	v := newValues()
	for range rounds {
		f := packet.ARPFields{Operation: v.u16(), SenderMAC: v.mac(), SenderIP: v.a4(), TargetMAC: v.mac(), TargetIP: v.a4()}
		l := &layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: f.Operation, SourceHwAddress: f.SenderMAC[:], SourceProtAddress: f.SenderIP[:],
			DstHwAddress: f.TargetMAC[:], DstProtAddress: f.TargetIP[:],
		}
		want := encode(t, l)
		got := packet.ARP(v.fill(make([]byte, packet.ARPLen)))
		got.Encode(&f)
		same(t, "Encode", got, want)
		got.SetOperation(packet.ARPReply)
		f.Operation = packet.ARPReply
		equal(t, "fields", packet.ARPFields{
			Operation: got.Operation(), SenderMAC: got.SenderMAC(), SenderIP: got.SenderIP(),
			TargetMAC: got.TargetMAC(), TargetIP: got.TargetIP(),
		}, f)
		equal(t, "kind", got.IsEthernetIPv4(), true)
		got[rand.IntN(6)] ^= 0x40
		equal(t, "another kind", got.IsEthernetIPv4(), false)
	}
}

func TestIPv4(t *testing.T) {
	v := newValues()
	for range rounds {
		f := packet.IPv4Fields{
			TOS: v.u8(), TotalLength: v.u16()&0xff + 20, ID: v.u16(), Flags: v.u16() & 0xe000,
			Offset: v.u16() &^ 7, TTL: v.u8(), Protocol: v.u8(), Src: v.a4(), Dst: v.a4(),
		}
		l := &layers.IPv4{
			Version: 4, IHL: 5, TOS: f.TOS, Length: f.TotalLength, Id: f.ID, Flags: layers.IPv4Flag(f.Flags >> 13),
			FragOffset: f.Offset / 8, TTL: f.TTL, Protocol: layers.IPProtocol(f.Protocol), SrcIP: f.Src[:], DstIP: f.Dst[:],
		}
		buf := gopacket.NewSerializeBuffer()
		if err := l.SerializeTo(buf, gopacket.SerializeOptions{ComputeChecksums: true}); err != nil {
			t.Fatal(err)
		}
		want := buf.Bytes()
		got := packet.IPv4(v.fill(make([]byte, packet.IPv4MinLen+256)))
		got.Encode(&f)
		same(t, "Encode", got[:packet.IPv4MinLen], want)

		// The setters, over another header.
		got.Encode(&packet.IPv4Fields{})
		got.SetTOS(f.TOS)
		got.SetTotalLength(f.TotalLength)
		got.SetID(f.ID)
		got.SetFragment(f.Flags, f.Offset)
		got.SetTTL(f.TTL)
		got.SetProtocol(f.Protocol)
		got.SetSrc(f.Src)
		got.SetDst(f.Dst)
		got.SetChecksum(got.ComputeChecksum())
		same(t, "setters", got[:packet.IPv4MinLen], want)

		equal(t, "fields", packet.IPv4Fields{
			TOS: got.TOS(), TotalLength: got.TotalLength(), ID: got.ID(), Flags: got.Flags(),
			Offset: got.FragmentOffset(), TTL: got.TTL(), Protocol: got.Protocol(), Src: got.Src(), Dst: got.Dst(),
		}, f)
		equal(t, "version", got.Version(), 4)
		equal(t, "header length", got.HeaderLen(), 20)
		equal(t, "checksum", got.Checksum(), l.Checksum)
		equal(t, "payload", len(got.Payload()), int(f.TotalLength)-20)
	}
}

func TestIPv6(t *testing.T) {
	v := newValues()
	for range rounds {
		f := packet.IPv6Fields{
			TrafficClass: v.u8(), FlowLabel: v.Uint32() & 0xfffff, PayloadLength: v.u16() & 0xff,
			NextHeader: v.u8(), HopLimit: v.u8(), Src: v.a16(), Dst: v.a16(),
		}
		want := encode(t, &layers.IPv6{
			Version: 6, TrafficClass: f.TrafficClass, FlowLabel: f.FlowLabel, Length: f.PayloadLength,
			NextHeader: layers.IPProtocol(f.NextHeader), HopLimit: f.HopLimit, SrcIP: f.Src[:], DstIP: f.Dst[:],
		})
		got := packet.IPv6(v.fill(make([]byte, packet.IPv6Len+256)))
		got.Encode(&f)
		same(t, "Encode", got[:packet.IPv6Len], want)

		got.Encode(&packet.IPv6Fields{TrafficClass: v.u8(), FlowLabel: v.Uint32()})
		got.SetTrafficClass(f.TrafficClass)
		got.SetFlowLabel(f.FlowLabel)
		got.SetPayloadLength(f.PayloadLength)
		got.SetNextHeader(f.NextHeader)
		got.SetHopLimit(f.HopLimit)
		got.SetSrc(f.Src)
		got.SetDst(f.Dst)
		same(t, "setters", got[:packet.IPv6Len], want)

		equal(t, "fields", packet.IPv6Fields{
			TrafficClass: got.TrafficClass(), FlowLabel: got.FlowLabel(), PayloadLength: got.PayloadLength(),
			NextHeader: got.NextHeader(), HopLimit: got.HopLimit(), Src: got.Src(), Dst: got.Dst(),
		}, f)
		equal(t, "version", got.Version(), 6)
		equal(t, "payload", len(got.Payload()), int(f.PayloadLength))
	}
}

func TestTCP(t *testing.T) {
	v := newValues()
	for range rounds {
		flags := v.u8()
		l := &layers.TCP{
			SrcPort: layers.TCPPort(v.u16()), DstPort: layers.TCPPort(v.u16()), Seq: v.Uint32(), Ack: v.Uint32(),
			DataOffset: 7, Window: v.u16(), Checksum: v.u16(), Urgent: v.u16(),
			FIN: flags&packet.TCPFin != 0, SYN: flags&packet.TCPSyn != 0, RST: flags&packet.TCPRst != 0,
			PSH: flags&packet.TCPPsh != 0, ACK: flags&packet.TCPAck != 0, URG: flags&packet.TCPUrg != 0,
			ECE: flags&packet.TCPEce != 0, CWR: flags&packet.TCPCwr != 0,
			Options: []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 0xb4}}},
			Padding: make([]byte, 4),
		}
		want := packet.TCP(encode(t, l, gopacket.Payload("abc")))

		got := packet.TCP(make([]byte, len(want)))
		got.SetSrcPort(uint16(l.SrcPort))
		got.SetDstPort(uint16(l.DstPort))
		got.SetSeq(l.Seq)
		got.SetAck(l.Ack)
		got.SetHeaderLen(28)
		got.SetFlags(flags)
		got.SetWindow(l.Window)
		got.SetChecksum(l.Checksum)
		got.SetUrgent(l.Urgent)
		copy(got.Options(), []byte{2, 4, 5, 0xb4})
		copy(got.Payload(), "abc")
		same(t, "setters", got, want)

		equal(t, "source port", want.SrcPort(), uint16(l.SrcPort))
		equal(t, "destination port", want.DstPort(), uint16(l.DstPort))
		equal(t, "seq", want.Seq(), l.Seq)
		equal(t, "ack", want.Ack(), l.Ack)
		equal(t, "header length", want.HeaderLen(), 28)
		equal(t, "flags", want.Flags(), flags)
		equal(t, "window", want.Window(), l.Window)
		equal(t, "checksum", want.Checksum(), l.Checksum)
		equal(t, "urgent", want.Urgent(), l.Urgent)
		equal(t, "payload", string(want.Payload()), "abc")
	}
}

func TestUDP(t *testing.T) {
	v := newValues()
	for range rounds {
		f := packet.UDPFields{SrcPort: v.u16(), DstPort: v.u16(), Length: 8 + v.u16()&0x3f, Checksum: v.u16()}
		want := encode(t, &layers.UDP{
			SrcPort: layers.UDPPort(f.SrcPort), DstPort: layers.UDPPort(f.DstPort), Length: f.Length, Checksum: f.Checksum,
		})
		got := packet.UDP(v.fill(make([]byte, packet.UDPLen+64)))
		got.Encode(&f)
		same(t, "Encode", got[:packet.UDPLen], want)
		equal(t, "fields", packet.UDPFields{
			SrcPort: got.SrcPort(), DstPort: got.DstPort(), Length: got.Length(), Checksum: got.Checksum(),
		}, f)
		equal(t, "payload", len(got.Payload()), int(f.Length)-8)
	}
}

func TestICMPEcho(t *testing.T) {
	v := newValues()
	for range rounds {
		l := &layers.ICMPv4{
			TypeCode: layers.CreateICMPv4TypeCode(v.u8(), v.u8()), Checksum: v.u16(), Id: v.u16(), Seq: v.u16(),
		}
		want := encode(t, l)
		got := packet.ICMPv4(make([]byte, packet.ICMPLen))
		got.SetType(l.TypeCode.Type())
		got.SetCode(l.TypeCode.Code())
		got.SetChecksum(l.Checksum)
		got.SetIdent(l.Id)
		got.SetMTU(^l.Seq)
		equal(t, "mtu", got.MTU(), ^l.Seq)
		got.SetSequence(l.Seq)
		same(t, "icmp setters", got, want)
		equal(t, "type", got.Type(), l.TypeCode.Type())
		equal(t, "code", got.Code(), l.TypeCode.Code())
		equal(t, "checksum", got.Checksum(), l.Checksum)
		equal(t, "ident", got.Ident(), l.Id)
		equal(t, "sequence", got.Sequence(), l.Seq)
		equal(t, "payload", len(got.Payload()), 0)

		six := encode(t, &layers.ICMPv6{
			TypeCode: layers.CreateICMPv6TypeCode(l.TypeCode.Type(), l.TypeCode.Code()), Checksum: l.Checksum,
		}, &layers.ICMPv6Echo{Identifier: l.Id, SeqNumber: l.Seq})
		got6 := packet.ICMPv6(make([]byte, packet.ICMPLen))
		got6.SetMTU(0xfedc_1234)
		equal(t, "mtu", got6.MTU(), binary.BigEndian.Uint32(got6[4:]))
		got6.SetType(l.TypeCode.Type())
		got6.SetCode(l.TypeCode.Code())
		got6.SetChecksum(l.Checksum)
		got6.SetIdent(l.Id)
		got6.SetSequence(l.Seq)
		same(t, "icmpv6 setters", got6, six)
		equal(t, "type", got6.Type(), l.TypeCode.Type())
		equal(t, "code", got6.Code(), l.TypeCode.Code())
		equal(t, "checksum", got6.Checksum(), l.Checksum)
		equal(t, "ident", got6.Ident(), l.Id)
		equal(t, "sequence", got6.Sequence(), l.Seq)
		equal(t, "payload", len(got6.Payload()), 0)
	}
}

func TestNeighborAdvert(t *testing.T) {
	v := newValues()
	for range rounds {
		f := packet.NeighborAdvertFields{
			Router: v.bool(), Solicited: v.bool(), Override: v.bool(),
			Target: v.a16(), TargetMAC: v.mac(), Src: v.a16(), Dst: v.a16(),
		}
		frame := v.fill(make([]byte, packet.EthernetLen+packet.IPv6Len+packet.NeighborAdvertLen))
		packet.Ethernet(frame).Encode(&packet.EthernetFields{Type: packet.EtherTypeIPv6})
		ip := packet.IPv6(frame[packet.EthernetLen:])
		ip.Encode(&packet.IPv6Fields{
			PayloadLength: packet.NeighborAdvertLen, NextHeader: packet.ProtoICMPv6,
			HopLimit: packet.NDPHopLimit, Src: f.Src, Dst: f.Dst,
		})
		b := packet.ICMPv6(ip.Payload())
		b.EncodeNeighborAdvert(&f)
		if err := packettest.CheckWellFormed(frame); err != nil {
			t.Fatal(err)
		}
		var l layers.ICMPv6NeighborAdvertisement
		if err := l.DecodeFromBytes(b[4:], gopacket.NilDecodeFeedback); err != nil {
			t.Fatal(err)
		}
		equal(t, "type", b.Type(), packet.ICMPv6NeighborAdvert)
		equal(t, "code", b.Code(), 0)
		equal(t, "router", b.Router(), l.Router())
		equal(t, "solicited", b.Solicited(), l.Solicited())
		equal(t, "override", b.Override(), l.Override())
		equal(t, "flags", [3]bool{b.Router(), b.Solicited(), b.Override()}, [3]bool{f.Router, f.Solicited, f.Override})
		equal(t, "target", string(l.TargetAddress), string(f.Target[:]))
		equal(t, "target", b.Target(), f.Target)
		equal(t, "option", l.Options[0].Type, layers.ICMPv6OptTargetAddress)
		equal(t, "option", string(l.Options[0].Data), string(f.TargetMAC[:]))
		mac, ok := b.LinkAddr(packet.NDPOptionTargetLinkAddr)
		equal(t, "link address", mac, f.TargetMAC)
		equal(t, "link address found", ok, true)
	}
}

func TestNeighborSolicitation(t *testing.T) {
	s := spec(true, 0)
	frame := packettest.NeighborSolicitation(s, vip6.Addr())
	var p packet.Parsed
	p.Decode(frame)
	b := packet.ICMPv6(frame[p.L4:p.End])
	equal(t, "type", p.ICMPType, packet.ICMPv6NeighborSolicit)
	equal(t, "target", b.Target(), packet.Addr16(vip6.Addr()))
	equal(t, "group", p.Dst, packet.SolicitedNode(b.Target()))
	equal(t, "group mac", packet.Ethernet(frame).Dst(), packet.MulticastMAC(p.Dst))
	mac, ok := b.LinkAddr(packet.NDPOptionSourceLinkAddr)
	equal(t, "source", mac, clientMAC)
	equal(t, "source found", ok, true)
	_, ok = b.LinkAddr(packet.NDPOptionTargetLinkAddr)
	equal(t, "target option found", ok, false)

	// Duplicate address detection comes from :: and has no option.
	s.Src = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	frame = packettest.NeighborSolicitation(s, vip6.Addr())
	p.Decode(frame)
	_, ok = packet.ICMPv6(frame[p.L4:p.End]).LinkAddr(packet.NDPOptionSourceLinkAddr)
	equal(t, "option of a probe", ok, false)
}

func FuzzLinkAddr(f *testing.F) {
	f.Add([]byte{1, 1, 2, 0, 0, 0, 0, 1}, uint8(1))
	f.Add([]byte{14, 1, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1}, uint8(1))
	f.Add([]byte{14, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1}, uint8(1)) // length 0: no end
	f.Add([]byte{1, 2, 2, 0, 0, 0, 0, 1}, uint8(1))                          // longer than the message
	f.Fuzz(func(t *testing.T, options []byte, kind uint8) {
		b := append(make(packet.ICMPv6, packet.NeighborLen), options...)
		mac, ok := b.LinkAddr(kind)
		var l layers.ICMPv6Options
		if l.DecodeFromBytes(options, gopacket.NilDecodeFeedback) != nil {
			return
		}
		for _, o := range l {
			if uint8(o.Type) == kind {
				if !ok || !bytes.Equal(mac[:], o.Data[:6]) {
					t.Fatalf("got %v, %t, want %x", mac, ok, o.Data)
				}
				return
			}
		}
		if ok {
			t.Fatalf("found %v where there is none", mac)
		}
	})
}

func TestMAC(t *testing.T) {
	h, err := net.ParseMAC("02:00:5e:10:00:ff")
	if err != nil {
		t.Fatal(err)
	}
	m, ok := packet.MACFrom(h)
	equal(t, "converted", ok, true)
	equal(t, "string", m.String(), h.String())
	equal(t, "back", m.HardwareAddr().String(), h.String())
	equal(t, "zero", m.IsZero(), false)
	equal(t, "multicast", m.IsMulticast(), false)
	equal(t, "broadcast", packet.BroadcastMAC().IsMulticast(), true)
	back := m.HardwareAddr()
	back[0] = 0xff
	equal(t, "unshared", m.String(), h.String())
	m, ok = packet.MACFrom(make(net.HardwareAddr, 8))
	equal(t, "eight bytes", ok, false)
	equal(t, "eight bytes", m.IsZero(), true)
}

func TestTuple(t *testing.T) {
	tests := []struct {
		src, dst string
		proto    uint8
		want     string
	}{
		{"192.0.2.1:1234", "203.0.113.10:80", packet.ProtoTCP, "tcp 192.0.2.1:1234 → 203.0.113.10:80"},
		{"[2001:db8::1]:1234", "[2001:db8::2]:53", packet.ProtoUDP, "udp [2001:db8::1]:1234 → [2001:db8::2]:53"},
		{"192.0.2.1:0", "203.0.113.10:0", packet.ProtoICMPv4, "icmp 192.0.2.1 → 203.0.113.10"},
		{"192.0.2.1:0", "203.0.113.10:0", packet.ProtoUDP, "udp 192.0.2.1:0 → 203.0.113.10:0"},
		{"[2001:db8::1]:0", "[2001:db8::2]:7", packet.ProtoICMPv6, "icmpv6 [2001:db8::1]:0 → [2001:db8::2]:7"},
		{"192.0.2.1:0", "203.0.113.10:0", packet.ProtoGRE, "proto-47 192.0.2.1 → 203.0.113.10"},
	}
	for _, tt := range tests {
		src, dst := netip.MustParseAddrPort(tt.src), netip.MustParseAddrPort(tt.dst)
		tuple := packet.Tuple{
			Src: packet.Addr16(src.Addr()), Dst: packet.Addr16(dst.Addr()),
			SrcPort: src.Port(), DstPort: dst.Port(), Proto: tt.proto,
		}
		equal(t, "string", tuple.String(), tt.want)
		equal(t, "address", packet.NetipAddr(tuple.Src), src.Addr())
		equal(t, "reverse of reverse", tuple.Reverse().Reverse(), tuple)
		equal(t, "reverse", tuple.Reverse().Dst, tuple.Src)
		equal(t, "mapped", packet.IsMapped(tuple.Src), src.Addr().Is4())
		if src.Addr().Is4() {
			equal(t, "mapped form", packet.Mapped(src.Addr().As4()), tuple.Src)
			equal(t, "unmapped form", packet.Unmapped(tuple.Src), src.Addr().As4())
		}
	}
	equal(t, "invalid address", packet.Addr16(netip.Addr{}), [16]byte{})
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for k := packet.KindOther; k <= packet.KindARP; k++ {
		seen[k.String()] = true
	}
	for p := packet.ProblemNone; p <= packet.ProblemExtension; p++ {
		seen[p.String()] = true
	}
	equal(t, "names", len(seen), 10)
	for name := range seen {
		equal(t, name, name == "" || bytes.HasPrefix([]byte(name), []byte("invalid")), false)
	}
	equal(t, "no kind", (packet.KindARP + 1).String(), "invalid kind")
	equal(t, "no problem", (packet.ProblemExtension + 1).String(), "invalid problem")
}

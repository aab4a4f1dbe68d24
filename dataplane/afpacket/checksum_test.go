package afpacket

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
)

// unfinished is a frame as gopacket makes it, and as a kernel with a NIC that
// computes checksums would hand it over.
type unfinished struct {
	name          string
	whole, before []byte
}

func unfinishedFrames(payload []byte) []unfinished {
	src, dst := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	ip4 := func(p layers.IPProtocol) *layers.IPv4 {
		return &layers.IPv4{Version: 4, TTL: 64, Protocol: p, SrcIP: net.IPv4(10, 1, 2, 3).To4(), DstIP: net.IPv4(198, 51, 100, 1).To4()}
	}
	ip6 := func(p layers.IPProtocol) *layers.IPv6 {
		return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: p, SrcIP: net.ParseIP("2001:db8::1"), DstIP: net.ParseIP("2001:db8::2")}
	}
	options := &layers.IPv6HopByHop{}
	options.NextHeader = layers.IPProtocolUDP
	options.Options = []*layers.IPv6HopByHopOption{{OptionType: 1, OptionData: make([]byte, 12)}}
	ip4Options := ip4(layers.IPProtocolTCP)
	ip4Options.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}

	var out []unfinished
	for _, c := range []struct {
		name  string
		kind  layers.EthernetType
		parts []gopacket.SerializableLayer // between Ethernet and transport
		tcp   bool
	}{
		{"udp4", layers.EthernetTypeIPv4, []gopacket.SerializableLayer{ip4(layers.IPProtocolUDP)}, false},
		{"tcp4", layers.EthernetTypeIPv4, []gopacket.SerializableLayer{ip4(layers.IPProtocolTCP)}, true},
		{"tcp4 with options", layers.EthernetTypeIPv4, []gopacket.SerializableLayer{ip4Options}, true},
		{"udp6", layers.EthernetTypeIPv6, []gopacket.SerializableLayer{ip6(layers.IPProtocolUDP)}, false},
		{"tcp6", layers.EthernetTypeIPv6, []gopacket.SerializableLayer{ip6(layers.IPProtocolTCP)}, true},
		{"udp6 with options", layers.EthernetTypeIPv6, []gopacket.SerializableLayer{ip6(layers.IPProtocolIPv6HopByHop), options}, false},
		{"tagged", layers.EthernetTypeDot1Q, []gopacket.SerializableLayer{
			&layers.Dot1Q{VLANIdentifier: 9, Type: layers.EthernetTypeIPv4}, ip4(layers.IPProtocolUDP)}, false},
	} {
		var network gopacket.NetworkLayer
		for _, p := range c.parts {
			if n, ok := p.(gopacket.NetworkLayer); ok {
				network = n
			}
		}
		var transport gopacket.SerializableLayer
		field, transportLen, protocol := 6, 8, uint32(unix.IPPROTO_UDP)
		if c.tcp {
			field, transportLen, protocol = 16, 20, unix.IPPROTO_TCP
			tcp := &layers.TCP{SrcPort: 1, DstPort: 2, Seq: 3, ACK: true, Window: 4}
			_ = tcp.SetNetworkLayerForChecksum(network)
			transport = tcp
		} else {
			udp := &layers.UDP{SrcPort: 1, DstPort: 2}
			_ = udp.SetNetworkLayerForChecksum(network)
			transport = udp
		}
		segment := transportLen + len(payload)
		parts := append([]gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: src, DstMAC: dst, EthernetType: c.kind}}, c.parts...)
		header := ethernetHeader + len(serialize(c.parts...)) // gopacket pads frames with an Ethernet header
		whole := serialize(append(parts, transport, gopacket.Payload(payload))...)[:header+segment]

		// The pseudo header (RFC 9293, section 3.1; RFC 8200, section 8.1),
		// added up the slow way.
		ends := network.NetworkFlow()
		pseudo := append(append([]byte(nil), ends.Src().Raw()...), ends.Dst().Raw()...)
		pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(segment))
		pseudo = binary.BigEndian.AppendUint32(pseudo, protocol)
		sum := uint32(0)
		for i := 0; i < len(pseudo); i += 2 {
			sum += uint32(pseudo[i])<<8 | uint32(pseudo[i+1])
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		before := append([]byte(nil), whole...)
		binary.BigEndian.PutUint16(before[header+field:], uint16(sum))
		out = append(out, unfinished{c.name, whole, before})
	}
	return out
}

func TestFinishChecksum(t *testing.T) {
	for size := range 40 {
		payload := bytes.Repeat([]byte{0xfe, 0x01, 0xff}, size)[:size]
		for _, c := range unfinishedFrames(payload) {
			for _, padding := range []int{0, 1, 9} {
				got := append(bytes.Clone(c.before), bytes.Repeat([]byte{0x55}, padding)...)
				want := append(bytes.Clone(c.whole), bytes.Repeat([]byte{0x55}, padding)...)
				if !finishChecksum(got) {
					t.Errorf("%s, %d bytes: not finished", c.name, size)
				} else if !bytes.Equal(got, want) {
					t.Errorf("%s, %d bytes\n got %x\nwant %x", c.name, size, got, want)
				}
			}
			short := bytes.Clone(c.before[:len(c.before)-1])
			if finishChecksum(short) {
				t.Errorf("%s, %d bytes: finished although a byte is missing", c.name, size)
			}
		}
	}
}

func TestFinishChecksumRefuses(t *testing.T) {
	whole := unfinishedFrames([]byte("payload"))[0].before
	for _, tc := range []struct {
		name   string
		change func(frame []byte) []byte
	}{
		{"first fragment", func(f []byte) []byte { f[20] = 0x20; return f }},
		{"later fragment", func(f []byte) []byte { f[21] = 1; return f }},
		{"other protocol", func(f []byte) []byte { f[23] = unix.IPPROTO_SCTP; return f }},
		{"other version", func(f []byte) []byte { f[14] = 0x65; return f }},
		{"short header", func(f []byte) []byte { f[14] = 0x44; return f }},
		{"ARP", func(f []byte) []byte { f[13] = 6; return f }},
		{"empty", func([]byte) []byte { return nil }},
		{"only tags", func(f []byte) []byte { return bytes.Repeat([]byte{0x81, 0}, 20) }},
	} {
		frame := tc.change(bytes.Clone(whole))
		before := bytes.Clone(frame)
		if finishChecksum(frame) || !bytes.Equal(frame, before) {
			t.Errorf("%s: finished or changed", tc.name)
		}
	}
	fine := bytes.Clone(whole)
	fine[20] = 0x40 // "don't fragment" alone is no fragment
	if !finishChecksum(fine) {
		t.Error("refused a packet that may not be fragmented")
	}
}

// FuzzFinishChecksum checks that no frame is read or written out of bounds, and
// that nothing but two bytes changes.
func FuzzFinishChecksum(f *testing.F) {
	for _, c := range unfinishedFrames([]byte("seed")) {
		f.Add(c.before)
	}
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x81})
	f.Fuzz(func(t *testing.T, frame []byte) {
		got := bytes.Clone(frame)[:len(frame):len(frame)]
		ok := finishChecksum(got)
		changed := 0
		for i := range got {
			if got[i] != frame[i] {
				changed++
			}
		}
		if len(got) != len(frame) || changed > 2 || (!ok && changed > 0) {
			t.Errorf("finished %v, %d bytes changed", ok, changed)
		}
	})
}

func BenchmarkFinishChecksum(b *testing.B) {
	frame := unfinishedFrames(make([]byte, 1400))[1].before
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		finishChecksum(frame)
	}
}

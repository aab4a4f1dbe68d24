package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/packet"
	"weir/lab/labtest"
	"weir/lab/netlab"
)

// datagram is one from a host to another station on its link, to be sent in
// fragments by hand.
type datagram struct {
	srcMAC, dstMAC packet.MAC
	src, dst       netip.AddrPort
	payload        []byte
}

// fragments returns the frames of a UDP datagram, with size bytes of it in each
// but the last; size is a multiple of 8 (RFC 791, section 3.2, and RFC 8200,
// section 4.5).
func (d *datagram) fragments(size int) (frames [][]byte, err error) {
	id := rand.Uint32()
	var ip gopacket.NetworkLayer
	header := func(int, bool) []gopacket.SerializableLayer { return nil }
	etherType := layers.EthernetTypeIPv4
	if d.src.Addr().Is4() {
		v4 := layers.IPv4{Version: 4, TTL: 64, Id: uint16(id), Protocol: layers.IPProtocolUDP, SrcIP: d.src.Addr().AsSlice(), DstIP: d.dst.Addr().AsSlice()}
		ip = &v4
		header = func(offset int, more bool) []gopacket.SerializableLayer {
			f := v4
			f.FragOffset = uint16(offset / 8)
			if more {
				f.Flags = layers.IPv4MoreFragments
			}
			return []gopacket.SerializableLayer{&f}
		}
	} else {
		etherType = layers.EthernetTypeIPv6
		v6 := layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolIPv6Fragment, SrcIP: d.src.Addr().AsSlice(), DstIP: d.dst.Addr().AsSlice()}
		ip = &v6
		header = func(offset int, more bool) []gopacket.SerializableLayer {
			extension := []byte{byte(layers.IPProtocolUDP), 0, 0, 0}
			field := uint16(offset)
			if more {
				field |= 1
			}
			binary.BigEndian.PutUint16(extension[2:], field)
			return []gopacket.SerializableLayer{&v6, gopacket.Payload(binary.BigEndian.AppendUint32(extension, id))}
		}
	}
	udp := layers.UDP{SrcPort: layers.UDPPort(d.src.Port()), DstPort: layers.UDPPort(d.dst.Port())}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		return nil, err
	}
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	whole := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(whole, opts, &udp, gopacket.Payload(d.payload)); err != nil {
		return nil, err
	}
	offset := 0
	for piece := range slices.Chunk(whole.Bytes(), size) {
		frame := gopacket.NewSerializeBuffer()
		stack := []gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: d.srcMAC[:], DstMAC: d.dstMAC[:], EthernetType: etherType}}
		stack = append(stack, header(offset, offset+len(piece) < len(whole.Bytes()))...)
		if err := gopacket.SerializeLayers(frame, opts, append(stack, gopacket.Payload(piece))...); err != nil {
			return nil, err
		}
		offset += len(piece)
		frames = append(frames, frame.Bytes())
	}
	return frames, nil
}

// Bytes of a datagram in a fragment: as many as a link of 1500 bytes takes, for
// IPv4, and for IPv6, which nobody on the way may fragment again, few enough
// that a tunnel takes them as well.
func fragmentSize(addr netip.Addr) int {
	if addr.Is4() {
		return 1480
	}
	return 1368
}

// sendReversed sends a datagram's fragments, the last one first.
func (w *wire) sendReversed(d *datagram) error {
	frames, err := d.fragments(fragmentSize(d.src.Addr()))
	if err != nil {
		return err
	}
	for _, f := range slices.Backward(frames) {
		if err := w.send(f); err != nil {
			return err
		}
	}
	return nil
}

// large is the payload of a datagram that takes three fragments.
func large() []byte {
	payload := make([]byte, 4096)
	for i := range payload {
		payload[i] = byte(rand.Uint32())
	}
	return payload
}

// shifted moves a fragment of IPv4 or IPv6 by a number of bytes.
func shifted(frame []byte, by int) []byte {
	frame = bytes.Clone(frame)
	if frame[12] == 0x86 {
		at := frame[14+40+2:]
		binary.BigEndian.PutUint16(at, binary.BigEndian.Uint16(at)+uint16(by))
		return frame
	}
	p := layersOf(frame)
	ip := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	ip.FragOffset += uint16(by / 8)
	out := gopacket.NewSerializeBuffer()
	_ = gopacket.SerializeLayers(out, gopacket.SerializeOptions{ComputeChecksums: true},
		p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet), ip, gopacket.Payload(ip.Payload))
	return out.Bytes()
}

// TestReversedByHand has a kernel put together what sendReversed sends, without
// weir, so that it is known what the tests with it show.
func TestReversedByHand(t *testing.T) {
	labtest.NeedRoot(t)
	lab, err := netlab.New("reversed")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	a, errA := lab.Host("a")
	b, errB := lab.Host("b")
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	iface := func(n byte) netlab.Iface {
		return netlab.Iface{Name: "eth0", MAC: net.HardwareAddr{2, 0, 0, 0, 9, n}, Addrs: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, 0, n}), 24),
			netip.MustParsePrefix(fmt.Sprintf("fd09::%d/64", n)),
		}}
	}
	if err := a.ConnectTo(b, iface(1), iface(2)); err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]string{{"10.9.0.1:1000", "10.9.0.2:2000"}, {"[fd09::1]:1000", "[fd09::2]:2000"}} {
		d := &datagram{packet.MAC{2, 0, 0, 0, 9, 1}, packet.MAC{2, 0, 0, 0, 9, 2}, netip.MustParseAddrPort(pair[0]), netip.MustParseAddrPort(pair[1]), large()}
		socket, err := b.ListenPacket(t.Context(), "udp", pair[1])
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		if err := tap(t, a, "eth0").sendReversed(d); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 1<<16)
		_ = socket.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, _, err := socket.ReadFrom(got)
		if err != nil || !bytes.Equal(got[:n], d.payload) {
			t.Errorf("%s: got %d bytes, %v", pair[1], n, err)
		}
	}
}

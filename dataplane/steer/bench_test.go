package steer

import (
	"testing"

	"github.com/cilium/ebpf"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

// BenchmarkPrograms is ns per frame, about 10 of which are the test run's own.
// With "vips" there is nothing but VIPs; with "whole" all else is in use too.
func BenchmarkPrograms(b *testing.B) {
	f := loaded(b)
	if err := f.SetSocket(0, xdpSocket(b)); err != nil {
		b.Fatal(err)
	}
	frames := []struct {
		name   string
		frame  []byte
		always bool // weir's or the kernel's whatever is in use
	}{
		{"v4-vip", packettest.Frame(toUs(packet.ProtoTCP, peer4, 1234, vip4, 80)), true},
		{"v4-other", packettest.Frame(toUs(packet.ProtoTCP, peer4, 1234, other4, 80)), true},
		{"v6-vip", packettest.Frame(toUs(packet.ProtoTCP, peer6, 1234, vip6, 80)), true},
		{"v6-other", packettest.Frame(toUs(packet.ProtoTCP, peer6, 1234, other6, 80)), true},
		{"v4-shared", packettest.Frame(toUs(packet.ProtoTCP, peer4, 1234, shared4, 50000)), false},
		{"v4-answer", packettest.Frame(toUs(packet.ProtoTCP, backend4, 8080, peer4, 1234)), false},
		{"v4-first-fragment", packettest.Fragments(toUs(packet.ProtoUDP, peer4, 80, shared4, 50000), 16)[0], false},
		{"v4-later-fragment", packettest.Fragments(toUs(packet.ProtoUDP, peer4, 80, shared4, 50000), 16)[1], false},
		{"v4-error", about([2]uint8{3, 1}, shared4, toUs(packet.ProtoTCP, shared4, 50000, other4, 80)), false},
		{"v6-shared", packettest.Frame(toUs(packet.ProtoTCP, peer6, 1234, shared6, 50000)), false},
		{"v6-answer", packettest.Frame(toUs(packet.ProtoTCP, backend6, 8080, peer6, 1234)), false},
	}
	for _, set := range []struct {
		name string
		set  Set
	}{{"vips", Set{VIPs: wholeSet.VIPs}}, {"whole", wholeSet}} {
		if err := f.Steer(set.set); err != nil {
			b.Fatal(err)
		}
		for _, frame := range frames {
			if set.name == "vips" && !frame.always {
				continue
			}
			for _, program := range []struct {
				name    string
				program *ebpf.Program
				data    []byte
			}{
				{"xdp", f.XDP(), frame.frame},
				{"tc", f.TC(), frame.frame},
				{"socket", f.Socket(), append(make([]byte, 14), frame.frame...)},
			} {
				b.Run(set.name+"/"+frame.name+"/"+program.name, func(b *testing.B) {
					if err := f.Beat(); err != nil { // or weir_tc would soon pass everything
						b.Fatal(err)
					}
					b.ResetTimer()
					if _, err := program.program.Run(&ebpf.RunOptions{Data: program.data, Repeat: uint32(b.N)}); err != nil {
						b.Fatal(err)
					}
				})
			}
		}
	}
}

package sink

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/lab/labtest"
	"weir/lab/netlab"
)

// What is the sink's to take is taken and counted by kind, whether or not it is
// looked at.
func TestKinds(t *testing.T) {
	hooks(t, func(t *testing.T, host *netlab.Host, hook Hook) {
		for _, verify := range []bool{false, true} {
			s := openOn(t, host, Options{Hook: hook, Verify: verify})
			want := make(map[Kind]Tally)
			names := make(map[string]bool)
			for i := range kinds {
				k := kindOf(i)
				if k.index() != i {
					t.Fatalf("kind %d is %v, which is kind %d", i, k, k.index())
				}
				names[k.String()] = true
				for n := range i + 1 {
					b := frameOf(k, make([]byte, 10+n))
					if !run(t, s, hook, b) {
						t.Errorf("%v is left alone", k)
					}
					want[k] = Tally{want[k].Packets + 1, want[k].Bytes + uint64(len(b))}
				}
			}
			got, all := make(map[Kind]Tally), Tally{}
			r := read(t, s)
			for i := range kinds {
				got[kindOf(i)] = r.Of(kindOf(i))
				all.Packets += want[kindOf(i)].Packets
				all.Bytes += want[kindOf(i)].Bytes
			}
			if !maps.Equal(got, want) || r.Good() != all {
				t.Errorf("counted %v, in all %v; want %v, %v", got, r.Good(), want, all)
			}
			if r.Bad != (Bad{}) || r.Others != 0 {
				t.Errorf("%+v, %d others", r.Bad, r.Others)
			}
			if len(names) != kinds || !names["SYN/IPv6 in IPv4"] {
				t.Errorf("names %v", names)
			}
			closeSink(t, s)
		}
	})
}

// What is not the sink's to take is left alone and counted as such.
func TestOthers(t *testing.T) {
	udp, udp6 := Kind{}, Kind{Family: IPv6}
	with := func(k Kind, change func(*packettest.Spec)) []byte {
		s := spec(k, make([]byte, 18))
		change(&s)
		return inTunnel(k, packettest.Frame(s))
	}
	elsewhere := func(s *packettest.Spec) {
		s.Src, s.Dst = netip.AddrPortFrom(s.Src.Addr(), port), netip.AddrPortFrom(s.Dst.Addr(), port+1)
	}
	datagram := frameOf(udp, make([]byte, 18))
	wrongType := append([]byte(nil), datagram...)
	wrongType[12], wrongType[13] = 0x86, 0xdd
	frames := map[string][]byte{
		"UDP to another port":      with(udp, elsewhere),
		"UDP over IPv6 to another": with(udp6, elsewhere),
		"TCP to another port":      with(Kind{Protocol: Segment}, elsewhere),
		"in a tunnel to another":   with(Kind{Tunnel: InIPv4}, elsewhere),
		"another protocol":         with(udp, func(s *packettest.Spec) { s.Proto, s.Payload = 132, datagram[34:] }),
		"IPv4 options":             with(udp, func(s *packettest.Spec) { s.IPOptions = 1 }),
		"IPv6 extension header":    with(udp6, func(s *packettest.Spec) { s.Extensions = []uint8{60} }),
		"tunnel in a tunnel":       inTunnel(Kind{Tunnel: InIPv6}, frameOf(Kind{Tunnel: InIPv4}, nil)),
		"IPv4 said to be IPv6":     wrongType,
		"cut in the UDP header":    datagram[:41],
		"cut in the TCP header":    frameOf(Kind{Protocol: Segment}, nil)[:53],
		"ARP":                      packettest.ARPRequest(spec(udp, nil), netip.MustParseAddr("203.0.113.10")),
		"fragment":                 packettest.Fragments(spec(udp, make([]byte, 100)), 64)[0],
		"fragment of IPv6":         packettest.Fragments(spec(udp6, make([]byte, 100)), 64)[0],
		"tagged":                   with(udp, func(s *packettest.Spec) { s.VLAN = 5 }),
	}
	hooks(t, func(t *testing.T, host *netlab.Host, hook Hook) {
		s := openOn(t, host, Options{Hook: hook, Verify: true})
		for name, frame := range frames {
			if run(t, s, hook, frame) {
				t.Errorf("%s is taken", name)
			}
		}
		want := Reading{Others: uint64(len(frames))}
		if hook == XDP { // BPF_PROG_TEST_RUN makes no sk_buff of it
			if run(t, s, hook, datagram[:33]) {
				t.Error("half an IP header is taken")
			}
			want.Others++
		}
		if r := read(t, s); r != want {
			t.Errorf("counted %+v", r)
		}
	})
}

// Arrived is what the sinks of before returned.
func TestArrived(t *testing.T) {
	host, _ := newHosts(t, 0)
	link, err := host.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	var s *Sink
	err = host.Do(func() (err error) {
		s, err = Open(Options{Interface: link.Index, Port: port})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	broken := frameOf(Kind{}, make([]byte, 18))
	broken[len(broken)-1]++ // which nobody has asked it to see
	synAck := spec(Kind{Protocol: Segment}, nil)
	synAck.TCPFlags = packet.TCPSyn | packet.TCPAck
	for _, frame := range [][]byte{
		broken,
		frameOf(Kind{Protocol: Opening}, nil),
		frameOf(Kind{Protocol: Segment}, nil), packettest.Frame(synAck), frameOf(Kind{Protocol: Segment, Family: IPv6}, nil),
	} {
		run(t, s, TCX, frame)
	}
	want := Counts{Datagrams: 1, Openings: 1, Segments: 3}
	if got, err := s.Arrived(); err != nil || got != want {
		t.Errorf("counted %+v, %v; want %+v", got, err, want)
	}
}

// Each cause has its counter.
func TestCauses(t *testing.T) {
	change := func(k Kind, f func(b []byte)) []byte {
		b := frameOf(k, make([]byte, 18))
		f(b)
		return b
	}
	longer := func(b []byte, at int) {
		binary.BigEndian.PutUint16(b[at:], binary.BigEndian.Uint16(b[at:])+1)
	}
	// IPv4 with the total length changed, and a header checksum that fits.
	length := func(b []byte, ip, by int) {
		binary.BigEndian.PutUint16(b[ip+2:], uint16(int(binary.BigEndian.Uint16(b[ip+2:]))+by))
		sum := binary.BigEndian.Uint16(b[ip+10:])
		binary.BigEndian.PutUint16(b[ip+10:], uint16(int(sum)-by))
	}
	ipChecksum := func(b *Bad) *uint64 { return &b.IPChecksum }
	lengths := func(b *Bad) *uint64 { return &b.Length }
	checksum := func(b *Bad) *uint64 { return &b.Checksum }
	none := spec(Kind{}, make([]byte, 18))
	none.NoUDPChecksum = true
	// A payload with which the checksum is 0xffff, so that the sum is right with 0 too.
	zero := change(Kind{}, func([]byte) {})
	zero = frameOf(Kind{}, append(zero[40:42:42], make([]byte, 16)...))
	zero[40], zero[41] = 0, 0
	tests := []struct {
		name  string
		frame []byte
		count func(*Bad) *uint64
	}{
		{"IPv4 header", change(Kind{}, func(b []byte) { b[14+8]-- }), ipChecksum},
		{"outer IPv4 header", change(Kind{Tunnel: InIPv4, Family: IPv6}, func(b []byte) { b[14+8]-- }), ipChecksum},
		{"inner IPv4 header", change(Kind{Tunnel: InIPv6}, func(b []byte) { b[14+40+8]-- }), ipChecksum},
		{"IPv4 length beyond the frame", change(Kind{}, func(b []byte) { length(b, 14, 1) }), lengths},
		{"IPv4 length below the header's", change(Kind{}, func(b []byte) { length(b, 14, -30) }), lengths},
		{"inner IPv4 shorter than its room", change(Kind{Tunnel: InIPv4}, func(b []byte) { length(b, 34, -1) }), lengths},
		{"inner IPv4 with something behind it", inTunnel(Kind{Tunnel: InIPv6}, append(frameOf(Kind{}, nil), 0, 0)), lengths},
		{"IPv6 length beyond the frame", change(Kind{Family: IPv6}, func(b []byte) { longer(b, 14+4) }), lengths},
		{"UDP length", change(Kind{}, func(b []byte) { longer(b, 34+4) }), lengths},
		{"TCP header longer than all", change(Kind{Protocol: Segment}, func(b []byte) { b[34+12] = 0xf0 }), lengths},
		{"TCP header too short", change(Kind{Protocol: Segment}, func(b []byte) { b[34+12] = 0x40 }), lengths},
		{"UDP payload", change(Kind{}, func(b []byte) { b[len(b)-1]++ }), checksum},
		{"TCP payload", change(Kind{Protocol: Segment, Family: IPv6, Tunnel: InIPv4}, func(b []byte) { b[len(b)-1]++ }), checksum},
		{"IPv6 source", change(Kind{Family: IPv6}, func(b []byte) { b[14+8]++ }), checksum},
		{"no UDP checksum", packettest.Frame(none), checksum},
		{"no UDP checksum, and the sum is right", zero, checksum},
	}
	hooks(t, func(t *testing.T, host *netlab.Host, hook Hook) {
		s := openOn(t, host, Options{Hook: hook, Verify: true})
		var want Bad
		for _, test := range tests {
			if !run(t, s, hook, test.frame) {
				t.Errorf("%s: left alone", test.name)
			}
			*test.count(&want)++
			if r := read(t, s); r != (Reading{Bad: want}) {
				t.Errorf("%s: counted %+v, want %+v", test.name, r.Bad, want)
			}
		}
		if int(want.Total()) != len(tests) {
			t.Errorf("%d of %d frames in all", want.Total(), len(tests))
		}
	})
}

// A frame that goes elsewhere is bad: in whatever tunnel, of the bits of both
// addresses exactly those count that are asked for, and the IP version has to be
// the one asked for.
func TestDestination(t *testing.T) {
	const macBits = 45
	hooks(t, func(t *testing.T, host *netlab.Host, hook Hook) {
		for index := range kinds {
			k := kindOf(index)
			frame := frameOf(k, make([]byte, 18))
			inner := map[Tunnel]int{NoTunnel: 14, InIPv4: 34, InIPv6: 54}[k.Tunnel]
			at, bits := inner+16, 32
			if k.Family == IPv6 {
				at, bits = inner+24, 128
			}
			to, _ := netip.AddrFromSlice(frame[at : at+bits/8])
			d := Destination{MAC: [6]byte(frame), MACBits: macBits, To: netip.PrefixFrom(to, bits-3)}
			s := openOn(t, host, Options{Hook: hook, Destination: d})
			good, bad := uint64(0), uint64(0)
			look := func(what string, ok bool) {
				if !run(t, s, hook, frame) {
					t.Errorf("%s: left alone", what)
				}
				if ok {
					good++
				} else {
					bad++
				}
				if r := read(t, s); r.Of(k).Packets != good || r.Bad != (Bad{Address: bad}) {
					t.Fatalf("%v, %s: %d good, %+v, want %d and %d", k, what, r.Of(k).Packets, r.Bad, good, bad)
				}
			}
			flip := func(bit int) { frame[bit/8] ^= 0x80 >> (bit % 8) }
			look("as asked for", true)
			for bit := range 48 {
				flip(bit)
				look(fmt.Sprintf("bit %d of the MAC address turned", bit), bit >= macBits)
				flip(bit)
			}
			for bit := range bits {
				flip(8*at + bit)
				look(fmt.Sprintf("bit %d of the address turned", bit), bit >= d.To.Bits())
				flip(8*at + bit)
			}
			closeSink(t, s)
		}
		s := openOn(t, host, Options{Hook: hook, Verify: true, Latency: true, Destination: Destination{To: netip.MustParsePrefix("::/0")}})
		if run(t, s, hook, frameOf(Kind{}, make([]byte, 18))); read(t, s).Bad != (Bad{Address: 1}) {
			t.Errorf("an address of IPv4 is in ::/0: %+v", read(t, s).Bad)
		}
	})
}

// A frame with any one bit turned is good for the sink if it is for gopacket.
func TestFlips(t *testing.T) {
	hooks(t, func(t *testing.T, host *netlab.Host, hook Hook) {
		s := openOn(t, host, Options{Hook: hook, Verify: true})
		caught, before := 0, Reading{}
		for i := range kinds {
			if i%2 != int(hook) {
				continue // it is the same program for both but for one function
			}
			frame := frameOf(kindOf(i), []byte("seven b"))
			for bit := 14 * 8; bit < len(frame)*8; bit++ {
				b := append([]byte(nil), frame...)
				b[bit/8] ^= 1 << (bit % 8)
				taken := run(t, s, hook, b)
				after := read(t, s)
				good, bad := after.Good().Packets-before.Good().Packets, after.Bad.Total()-before.Bad.Total()
				if taken != (good+bad == 1) || taken == (after.Others-before.Others == 1) {
					t.Fatalf("%v, bit %d of byte %d: taken %t, %d good, %d bad", kindOf(i), bit%8, bit/8, taken, good, bad)
				}
				if err := packettest.CheckWellFormed(b); taken && (err == nil) != (good == 1) {
					t.Errorf("%v, bit %d of byte %d: %d good; %v", kindOf(i), bit%8, bit/8, good, err)
				}
				caught += int(bad)
				before = after
			}
		}
		if caught == 0 {
			t.Error("nothing was found")
		}
	})
}

// All of the payload is summed, however long it is.
func TestLengths(t *testing.T) {
	payload := make([]byte, 1472)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	hooks(t, func(t *testing.T, host *netlab.Host, hook Hook) {
		s := openOn(t, host, Options{Hook: hook, Verify: true})
		want := Reading{}
		for n := 1; n <= len(payload); n++ {
			k := Kind{Family: Family(n % 2), Protocol: Protocol(n / 2 % 3)}
			if k != (Kind{}) && n > 1400 {
				k = Kind{} // it has the shortest headers
			}
			b := frameOf(k, payload[:n])
			run(t, s, hook, b)
			want.arrived[k.index()].Packets++
			want.arrived[k.index()].Bytes += uint64(len(b))
			b[len(b)-1-n*3/4%n] ^= 0x80
			run(t, s, hook, b)
			want.Bad.Checksum++
			if r := read(t, s); r != want {
				t.Fatalf("payload of %d bytes: %v, %+v", n, r.Good(), r.Bad)
			}
		}
	})
}

// What GRO has merged counts as all the packets that it was, and cannot be verified.
func TestMerged(t *testing.T) {
	const segments = 3
	host, _ := newHosts(t, 0)
	frame := frameOf(Kind{Protocol: Segment}, make([]byte, 300))
	for _, verify := range []bool{false, true} {
		s := openOn(t, host, Options{Verify: verify})
		context := make([]byte, 192) // struct __sk_buff (linux/bpf.h)
		binary.NativeEndian.PutUint32(context[164:], segments)
		binary.NativeEndian.PutUint32(context[176:], 100)
		p, taken, _ := s.program(TCX)
		if verdict, err := p.Run(&ebpf.RunOptions{Data: frame, Context: context}); err != nil || verdict != taken {
			t.Fatalf("verdict %d, %v", verdict, err)
		}
		want := Reading{Bad: Bad{Merged: segments}}
		if !verify {
			want = Reading{}
			want.arrived[Kind{Protocol: Segment}.index()] = Tally{segments, segments * (14 + 20 + 20 + 100)}
		}
		if r := read(t, s); r != want {
			t.Errorf("verify %t: %+v, %+v", verify, r.Good(), r.Bad)
		}
	}
}

// A frame that was really sent, most of which is not in the head of its sk_buff,
// as a packet socket sends it if it is longer than a page (packet_alloc_skb).
func TestPaged(t *testing.T) {
	near, far := newHosts(t, 9000)
	for _, opt := range []Options{{}, {Verify: true}} {
		s := openOn(t, far, opt)
		k := Kind{Tunnel: InIPv6, Family: IPv4, Protocol: Segment}
		frame := frameOf(k, make([]byte, 6001))
		send(t, near, frame)
		want := Reading{}
		want.arrived[k.index()] = Tally{1, uint64(len(frame))}
		waitFor(t, func() bool { return read(t, s) == want })
		if opt.Verify {
			frame[len(frame)-1] ^= 1
			send(t, near, frame)
			want.Bad.Checksum++
			waitFor(t, func() bool { return read(t, s) == want })
		}
		closeSink(t, s)
	}
}

func TestNoSuchHook(t *testing.T) {
	labtest.NeedRoot(t)
	for _, opt := range []Options{{Interface: 1, Hook: 2}, {Interface: 1 << 30}, {Interface: 1 << 30, Hook: XDP}} {
		if s, err := Open(opt); err == nil {
			s.Close()
			t.Errorf("%+v is accepted", opt)
		}
	}
}

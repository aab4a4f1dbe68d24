package generator

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"weir/dataplane/flow"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
)

// seen is a frame as gopacket sees it.
type seen struct {
	from, to netip.AddrPort
	udp      bool
	tcp      layers.TCP
	payload  []byte
	packet   int // bytes of IP
}

// see decodes a frame of the measurement, which has to be whole.
func see(t *testing.T, b []byte) (s seen) {
	t.Helper()
	if err := packettest.CheckWellFormed(b); err != nil {
		t.Fatalf("%v: % x", err, b)
	}
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	eth := p.LinkLayer().(*layers.Ethernet)
	if eth.SrcMAC.String() != options.Source.String() || eth.DstMAC.String() != options.Destination.String() {
		t.Fatalf("from %s to %s", eth.SrcMAC, eth.DstMAC)
	}
	var src, dst netip.Addr
	var ttl uint8
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		src, dst, ttl, s.packet = netip.AddrFrom4([4]byte(ip.SrcIP)), netip.AddrFrom4([4]byte(ip.DstIP)), ip.TTL, int(ip.Length)
	case *layers.IPv6:
		src, dst, ttl, s.packet = netip.AddrFrom16([16]byte(ip.SrcIP)), netip.AddrFrom16([16]byte(ip.DstIP)), ip.HopLimit, int(ip.Length)+40
	default:
		t.Fatalf("not IP: %v", p)
	}
	if ttl != 64 {
		t.Fatalf("time to live %d", ttl)
	}
	switch l := p.TransportLayer().(type) {
	case *layers.UDP:
		if l.Checksum == 0 {
			t.Fatal("no checksum")
		}
		s.udp, s.payload = true, l.Payload
		s.from, s.to = netip.AddrPortFrom(src, uint16(l.SrcPort)), netip.AddrPortFrom(dst, uint16(l.DstPort))
	case *layers.TCP:
		s.tcp, s.payload = *l, l.Payload
		s.from, s.to = netip.AddrPortFrom(src, uint16(l.SrcPort)), netip.AddrPortFrom(dst, uint16(l.DstPort))
	default:
		t.Fatalf("neither UDP nor TCP: %v", p)
	}
	return s
}

// source is where flow n comes from by the words of Options.
func source(opt *Options, n uint32) netip.AddrPort {
	address := netip.MustParseAddr("198.18.0.0").AsSlice()
	if opt.To.Addr().Is6() {
		address = netip.MustParseAddr("2001:2::").AsSlice()
	}
	last := address[len(address)-4:]
	binary.BigEndian.PutUint32(last, binary.BigEndian.Uint32(last)+n/16384)
	a, _ := netip.AddrFromSlice(address)
	return netip.AddrPortFrom(a, uint16(1024+n%16384))
}

// flagsOf returns the control bits that are not zero.
func flagsOf(tcp *layers.TCP) (flags uint8) { return tcp.Contents[13] }

// What arrives is what was asked for, in every combination.
func TestArrive(t *testing.T) {
	w := newWire(t)
	for _, to := range []string{"203.0.113.10:9", "[2001:db8::1]:9"} {
		for _, kind := range []struct {
			name     string
			tcp, syn bool
			share    float64
		}{{"UDP", false, false, 0}, {"TCP", true, false, 0}, {"SYN", false, true, 0}, {"SYN share", true, false, 0.25}} {
			for stamp, lengths := range map[bool][]int{false: {0, MaxFrameLen}, true: {0, 201}} {
				for _, length := range lengths {
					opt := options
					opt.To, opt.TCP, opt.SYN, opt.SYNShare = netip.MustParseAddrPort(to), kind.tcp, kind.syn, kind.share
					opt.Stamp, opt.FrameLen, opt.Flows, opt.Seed = stamp, length, 70, 3
					t.Run(fmt.Sprintf("%s/%s/stamp=%t/%d", opt.To.Addr(), kind.name, stamp, length), func(t *testing.T) {
						checkArrived(t, w, opt)
					})
				}
			}
		}
	}
}

func checkArrived(t *testing.T, w wire, opt Options) {
	t.Helper()
	headers, ip := 8, 20
	if opt.TCP {
		headers = 20
	}
	if opt.SYN || opt.SYNShare > 0 {
		headers = 24 // with the maximum segment size
	}
	if opt.To.Addr().Is6() {
		ip = 40
	}
	length := opt.FrameLen
	if length == 0 {
		length = 14 + ip + headers
		if opt.Stamp {
			length += 4 + 4 + 8
		}
		length = max(length, FrameLen)
	}
	first := monotonic(t)
	frames, offered, refused := w.arrived(t, opt, 300, 30_000)
	last := monotonic(t)
	turn, openings, number := uint32(0), uint64(0), uint64(0)
	sequences := make(map[netip.AddrPort]uint32)
	opened := make(map[netip.AddrPort]bool)
	for _, b := range frames {
		if len(b) != length {
			t.Fatalf("%d bytes, want %d", len(b), length)
		}
		s := see(t, b)
		if s.to != opt.To {
			t.Fatalf("to %s", s.to)
		}
		payload := s.payload
		if opt.Stamp {
			at := binary.BigEndian.Uint64(payload[8:])
			gap := uint64(binary.BigEndian.Uint32(payload[4:])) - number
			if string(payload[:4]) != "weir" || gap == 0 || gap > 1+refused || at < first || at > last {
				t.Fatalf("stamp % x after number %d, sent between %d and %d", payload[:16], number, first, last)
			}
			number, first, payload = number+gap, at, payload[16:]
		}

		isOpening := opt.SYN || !s.udp && s.tcp.SYN
		if isOpening {
			if flagsOf(&s.tcp) != packet.TCPSyn || s.tcp.Ack != 0 || len(payload) != 0 ||
				len(s.tcp.Options) != 1 || s.tcp.Options[0].OptionType != layers.TCPOptionKindMSS {
				t.Fatalf("not a connection request: %+v", s)
			}
		} else {
			if s.udp == opt.TCP || s.packet != length-14 {
				t.Fatalf("not a datagram or segment of %d bytes: %+v", length-14, s)
			}
			for i, c := range payload {
				if c != "weir measurement"[i%16] {
					t.Fatalf("payload %q", payload)
				}
			}
		}
		if isOpening && !opt.SYN {
			openings++
			if opened[s.from] || !openingSources(&opt).Contains(s.from.Addr()) || s.from.Port() < 1024 {
				t.Fatalf("a new connection from %s", s.from)
			}
			opened[s.from] = true
			continue
		}
		if refused == 0 && s.from != source(&opt, turn%opt.Flows) {
			t.Fatalf("from %s, want %s", s.from, source(&opt, turn%opt.Flows))
		}
		turn++
		if opt.TCP {
			if before, ok := sequences[s.from]; ok && before != s.tcp.Seq || flagsOf(&s.tcp) != packet.TCPAck || s.tcp.Ack != 1 {
				t.Fatalf("%+v of a connection at %d", s.tcp, before)
			}
			sequences[s.from] = s.tcp.Seq
		}
	}
	if opt.Stamp && number > offered.Frames {
		t.Errorf("frame %d is the last of %d", number, offered.Frames)
	}
	if openings > offered.Openings || openings+refused < offered.Openings {
		t.Errorf("%d new connections, %d offered, %d frames refused", openings, offered.Openings, refused)
	}
	n := float64(offered.Frames)
	if d := math.Abs(float64(offered.Openings) - n*opt.SYNShare); d > 5*math.Sqrt(n*opt.SYNShare*(1-opt.SYNShare)) {
		t.Errorf("%d of %d frames are new connections, want a share of %g", offered.Openings, offered.Frames, opt.SYNShare)
	}
}

func openingSources(opt *Options) netip.Prefix {
	if opt.To.Addr().Is6() {
		return OpeningSourcesIPv6()
	}
	return OpeningSources()
}

func monotonic(t *testing.T) uint64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return uint64(now.Nano())
}

// Floods may have stamps and any length too.
func TestFloodArrives(t *testing.T) {
	w := newWire(t)
	for _, syn := range []bool{false, true} {
		opt := options
		opt.Flows, opt.Flood, opt.SYN, opt.Stamp, opt.FrameLen, opt.Batch = 0, netip.MustParsePrefix("10.0.0.0/8"), syn, true, 333, 1
		frames, _, refused := w.arrived(t, opt, 300, 30_000)
		sources := make(map[netip.AddrPort]bool)
		for i, b := range frames {
			s := see(t, b)
			sources[s.from] = true
			number := binary.BigEndian.Uint32(s.payload[4:])
			if len(b) != 333 || s.udp == syn || s.tcp.SYN != syn || !opt.Flood.Contains(s.from.Addr()) ||
				string(s.payload[:4]) != "weir" || refused == 0 && int(number) != i+1 {
				t.Fatalf("frame %d: %+v", i, s)
			}
		}
		if len(sources) != len(frames) {
			t.Errorf("%d sources of %d frames", len(sources), len(frames))
		}
	}
}

// Two segments of a flow are enough for weir's flow table to trust it.
func TestTrusted(t *testing.T) {
	w := newWire(t)
	for _, to := range []string{"203.0.113.10:9", "[2001:db8::1]:9"} {
		opt := options
		opt.To, opt.TCP, opt.Flows = netip.MustParseAddrPort(to), true, 100
		frames, _, _ := w.arrived(t, opt, 2*uint64(opt.Flows)+100, 30_000)
		table, err := flow.New(4096, flow.DefaultTimeouts())
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		numbers := make(map[uint32]int)
		for _, b := range frames {
			s := see(t, b)
			k := packet.Tuple{
				Src: s.from.Addr().As16(), Dst: s.to.Addr().As16(), SrcPort: s.from.Port(), DstPort: s.to.Port(), Proto: packet.ProtoTCP,
			}
			hash, segment := table.Hash(&k), flow.Segment{Flags: flagsOf(&s.tcp), Sequence: s.tcp.Seq}
			e := table.Lookup(hash, &k, segment, 0)
			if e == nil {
				e, _, _ = table.Insert(hash, &k, segment, 0)
			}
			number := table.Number(e)
			numbers[number]++
			if _, untrusted := table.Reusable(number, 0); untrusted != (numbers[number] == 1) || table.StateOf(number) != flow.StateEstablished {
				t.Fatalf("%s after %d segments: untrusted %t, %s", k, numbers[number], untrusted, table.StateOf(number))
			}
		}
		if table.Len() != int(opt.Flows) {
			t.Errorf("%d flows, want %d", table.Len(), opt.Flows)
		}
	}
}

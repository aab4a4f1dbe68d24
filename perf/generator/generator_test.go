package generator

import (
	"math"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weir/lab/labtest"
)

var options = Options{
	Interface:   1,
	Source:      net.HardwareAddr{0x02, 0, 0, 0, 0, 1},
	Destination: net.HardwareAddr{0x02, 0, 0, 0, 0, 2},
	To:          netip.MustParseAddrPort("203.0.113.10:9"),
	Flows:       1024,
}

// stayOnOneCPU pins the test to a CPU. Its thread ends with it.
func stayOnOneCPU(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	cpu := 0
	for !allowed.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
}

func TestOptions(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no source":      func(o *Options) { o.Source = nil },
		"no destination": func(o *Options) { o.Destination = nil },
		"to nobody":      func(o *Options) { o.To = netip.AddrPort{} },
		"no flows":       func(o *Options) { o.Flows = 0 },
		"too many flows": func(o *Options) { o.Flows = MaxFlows + 1 },
		"flood of flows": func(o *Options) { o.Flood = netip.MustParsePrefix("10.0.0.0/8") },
		"from IPv6":      func(o *Options) { o.Flows, o.Flood = 0, netip.MustParsePrefix("2001:db8::/32") },
		"beside none":    func(o *Options) { o.Beside = 1 },
		"beside UDP":     func(o *Options) { o.Flows, o.Flood, o.Beside = 0, netip.MustParsePrefix("10.0.0.0/8"), 1 },
		"too many beside": func(o *Options) {
			o.Flows, o.Flood, o.SYN, o.Beside = 0, netip.MustParsePrefix("10.0.0.0/8"), true, MaxFlows+1
		},
		"same sources": func(o *Options) {
			o.Flows, o.Flood, o.SYN, o.Beside = 0, netip.MustParsePrefix("198.0.0.0/8"), true, 1
		},
		"SYN and TCP":     func(o *Options) { o.SYN, o.TCP = true, true },
		"share of UDP":    func(o *Options) { o.SYNShare = 0.5 },
		"share above all": func(o *Options) { o.TCP, o.SYNShare = true, 1.1 },
		"share below 0":   func(o *Options) { o.TCP, o.SYNShare = true, -0.1 },
		"no share":        func(o *Options) { o.TCP, o.SYNShare = true, math.NaN() },
		"no exponent":     func(o *Options) { o.Zipf = math.NaN() },
		"exponent":        func(o *Options) { o.Zipf = math.Inf(1) },
		"negative":        func(o *Options) { o.Zipf = -1 },
		"too short":       func(o *Options) { o.FrameLen = 59 },
		"too short TCP6": func(o *Options) {
			o.TCP, o.FrameLen, o.To = true, 73, netip.MustParseAddrPort("[2001:db8::1]:9")
		},
		"too short for its SYNs": func(o *Options) {
			o.TCP, o.SYNShare, o.FrameLen, o.To = true, 0.1, 77, netip.MustParseAddrPort("[2001:db8::1]:9")
		},
		"too short for a stamp": func(o *Options) { o.TCP, o.Stamp, o.FrameLen = true, true, 69 },
		"too long":              func(o *Options) { o.FrameLen = 1515 },
		"batch":                 func(o *Options) { o.Batch = 257 },
		"mapped":                func(o *Options) { o.To = netip.MustParseAddrPort("[::ffff:203.0.113.10]:9") },
		"flood of IPv6": func(o *Options) {
			o.Flows, o.Flood, o.To = 0, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParseAddrPort("[2001:db8::1]:9")
		},
		"flood of TCP":  func(o *Options) { o.Flows, o.Flood, o.TCP = 0, netip.MustParsePrefix("10.0.0.0/8"), true },
		"popular flood": func(o *Options) { o.Flows, o.Flood, o.Zipf = 0, netip.MustParsePrefix("10.0.0.0/8"), 1 },
		"stamps beside": func(o *Options) {
			o.Flows, o.Flood, o.SYN, o.Beside, o.Stamp = 0, netip.MustParsePrefix("10.0.0.0/8"), true, 1, true
		},
		"no prefix": func(o *Options) { o.Flows, o.Flood = 0, netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), 33) },
	} {
		t.Run(name, func(t *testing.T) {
			opt := options
			change(&opt)
			if _, err := New(opt); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestInterval(t *testing.T) {
	for rate, want := range map[int]uint64{
		0:             1<<64 - 1,
		Unlimited:     0,
		1:             1e9 << 32,
		1_000_000_000: 1 << 32,
		2_000_000_000: 1 << 31,
	} {
		if got := interval(rate); got != want {
			t.Errorf("%d per second: %#x, want %#x", rate, got, want)
		}
	}
}

// gopacket is the oracle for lengths and checksums.
func TestFrames(t *testing.T) {
	labtest.NeedRoot(t)
	stayOnOneCPU(t) // each has a counter of its own
	const xdpDrop, xdpRedirect = 1, 4
	opt := options
	opt.Flows = 40_000 // more than an address has ports
	g, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	once := func() (uint32, []byte) { return once(t, g) }
	if verdict, _ := once(); verdict != xdpDrop {
		t.Fatalf("verdict %d before a rate was set, want %d", verdict, xdpDrop)
	}
	if err := g.SetRate(Unlimited); err != nil {
		t.Fatal(err)
	}

	flows := make(map[gopacket.Flow]map[gopacket.Flow]int)
	total := int(opt.Flows) + 10
	for range total {
		verdict, b := once()
		if verdict != xdpRedirect {
			t.Fatalf("verdict %d, want %d", verdict, xdpRedirect)
		}
		ip, udp := check(t, b)
		if flows[ip] == nil {
			flows[ip] = make(map[gopacket.Flow]int)
		}
		flows[ip][udp]++
	}
	n, twice := 0, 0
	for _, ports := range flows {
		n += len(ports)
		for _, count := range ports {
			twice += count - 1
		}
	}
	if n != int(opt.Flows) || twice != 10 || len(flows) != 3 {
		t.Errorf("%d flows of %d addresses, %d frames of known ones; want %d, 3, 10", n, len(flows), twice, opt.Flows)
	}
	if sent, err := g.Sent(); err != nil || sent != uint64(total) {
		t.Errorf("counted %d, %v; want %d", sent, err, total)
	}
}

// once makes one frame.
func once(t *testing.T, g *Generator) (verdict uint32, frame []byte) {
	t.Helper()
	frame = make([]byte, len(g.frame))
	verdict, err := g.objects.Programs[generatorProgGenerate].Run(&ebpf.RunOptions{Data: g.frame, DataOut: frame})
	if err != nil {
		t.Fatal(err)
	}
	return verdict, frame
}

// check fails if a frame is not what it should be, and returns its flow.
func check(t *testing.T, b []byte) (ip, udp gopacket.Flow) {
	t.Helper()
	packet := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	eth, _ := packet.LinkLayer().(*layers.Ethernet)
	header, _ := packet.NetworkLayer().(*layers.IPv4)
	datagram, _ := packet.TransportLayer().(*layers.UDP)
	if eth == nil || header == nil || datagram == nil {
		t.Fatalf("not a datagram: %v", packet)
	}
	if eth.SrcMAC.String() != options.Source.String() || eth.DstMAC.String() != options.Destination.String() {
		t.Fatalf("from %s to %s", eth.SrcMAC, eth.DstMAC)
	}
	if header.DstIP.String() != options.To.Addr().String() || datagram.DstPort != layers.UDPPort(options.To.Port()) {
		t.Fatalf("to %s:%d", header.DstIP, datagram.DstPort)
	}
	if !netip.MustParsePrefix("198.18.0.0/15").Contains(netip.AddrFrom4([4]byte(header.SrcIP))) {
		t.Fatalf("from %s", header.SrcIP)
	}
	// Have gopacket compute lengths and checksums anew, and compare.
	again := gopacket.NewSerializeBuffer()
	if err := datagram.SetNetworkLayerForChecksum(header); err != nil {
		t.Fatal(err)
	}
	err := gopacket.SerializeLayers(again, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		eth, header, datagram, gopacket.Payload(datagram.Payload))
	if err != nil {
		t.Fatal(err)
	}
	if string(again.Bytes()) != string(b) {
		t.Fatalf("frame\n%x, want\n%x", b, again.Bytes())
	}
	return header.NetworkFlow(), datagram.TransportFlow()
}

// A run sends nothing until told, counts what it sends, and ends.
func TestRun(t *testing.T) {
	w := newWire(t)
	g, end := w.start(t, options)
	defer end()

	sent := func() uint64 {
		n, err := g.Sent()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for g.Thread() == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	if n := sent(); n != 0 {
		t.Fatalf("%d frames before a rate was set", n)
	}
	const rate = 10_000
	if err := g.SetRate(rate); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for sent() < 100 {
		if time.Since(start) > 10*time.Second {
			t.Fatal("it does not send")
		}
		time.Sleep(time.Millisecond)
	}
	if err := g.SetRate(0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	n, most := sent(), uint64(time.Since(start).Seconds()*rate)+1
	if n > most {
		t.Errorf("%d frames, %d at most were due", n, most)
	}
	time.Sleep(20 * time.Millisecond)
	if m := sent(); m != n {
		t.Errorf("%d frames after it was told to stop", m-n)
	}
	err := w.near.Do(func() error {
		l, err := netlink.LinkByName("near")
		if err == nil && l.Attrs().Statistics.TxPackets+l.Attrs().Statistics.TxDropped != n {
			t.Errorf("interface counts %d frames and %d refused, generator %d",
				l.Attrs().Statistics.TxPackets, l.Attrs().Statistics.TxDropped, n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

package decap

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"testing"

	"github.com/cilium/ebpf"

	"weir/lab/labtest"
)

// loaded is the program in the kernel, attached to nothing, with the addresses
// of frames_test.go. Without sources any is allowed.
func loaded(t testing.TB, sources ...netip.Prefix) *Decap {
	t.Helper()
	labtest.NeedRoot(t)
	opt := Options{VIPs: []netip.Addr{vips[4], vips[6]}, Sources: sources}
	vipKeys, sourceKeys, err := opt.validate()
	if err != nil {
		t.Fatal(err)
	}
	d := &Decap{log: slog.New(slog.DiscardHandler)}
	if err := d.load(vipKeys, sourceKeys); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	for _, a := range hosts {
		if err := d.objects.Locals.Put(prefixKey(netip.PrefixFrom(a, a.BitLen())), uint8(1)); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func weirPrefixes() []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(weirs[4], 32), netip.PrefixFrom(weirs[6], 128)}
}

// run gives one frame to the program and returns what it made of it. It checks
// that exactly the one counter has grown by one.
func run(t testing.TB, d *Decap, in []byte) (out []byte, action uint32, counter decapCounter) {
	t.Helper()
	before := tally(t, d)
	opts := ebpf.RunOptions{Data: in, DataOut: make([]byte, len(in)+64)}
	action, err := d.objects.WeirDecap.Run(&opts)
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	counter = decapCounterCOUNTERS
	for i, n := range tally(t, d) {
		switch n - before[i] {
		case 0:
		case 1:
			if counter != decapCounterCOUNTERS {
				t.Fatalf("counters %d and %d have both grown", counter, i)
			}
			counter = decapCounter(i)
		default:
			t.Fatalf("counter %d has grown by %d", i, n-before[i])
		}
	}
	return opts.DataOut, action, counter
}

func tally(t testing.TB, d *Decap) (counts [decapCounterCOUNTERS]uint64) {
	t.Helper()
	for i := range counts {
		var perCPU []uint64
		if err := d.objects.Counters.Lookup(uint32(i), &perCPU); err != nil {
			t.Fatal(err)
		}
		for _, n := range perCPU {
			counts[i] += n
		}
	}
	return counts
}

func with(h header, change func(*header)) header {
	change(&h)
	return h
}

var kinds = []struct {
	name         string
	inner, outer int
	counter      decapCounter
}{
	{"4in4", 4, 4, decapCounterSTRIPPED_4IN4},
	{"6in6", 6, 6, decapCounterSTRIPPED_6IN6},
	{"4in6", 4, 6, decapCounterSTRIPPED_4IN6},
	{"6in4", 6, 4, decapCounterSTRIPPED_6IN4},
}

// What is stripped must be, byte by byte, the frame that gopacket makes without
// the outer header.
func TestStripped(t *testing.T) {
	d := loaded(t)
	for _, kind := range kinds {
		in, out := inner(kind.inner), outer(kind.outer)
		cases := map[string]frame{
			"plain":            {headers: []header{out, in}},
			"tagged":           {headers: []header{out, in}, tags: []uint16{101}},
			"padded":           {headers: []header{out, in}, padding: 7},
			"tagged, padded":   {headers: []header{out, in}, tags: []uint16{101}, padding: 200},
			"inner fragment":   {headers: []header{out, with(in, func(h *header) { h.fragment = true })}},
			"inner options":    {headers: []header{out, with(in, func(h *header) { h.options = true })}},
			"other client":     {headers: []header{out, with(in, func(h *header) { h.src = foreigns[h.family] })}},
			"any outer source": {headers: []header{with(out, func(h *header) { h.src = foreigns[h.family] }), in}},
		}
		if kind.outer == 4 {
			cases["outer options"] = frame{headers: []header{with(out, func(h *header) { h.options = true }), in}}
			cases["outer options, tagged"] = frame{headers: []header{with(out, func(h *header) { h.options = true }), in}, tags: []uint16{1}}
			cases["outer DF"] = frame{headers: []header{with(out, func(h *header) { h.dontFrag = true }), in}}
		}
		for name, f := range cases {
			t.Run(kind.name+"/"+name, func(t *testing.T) {
				bare := f
				bare.headers = f.headers[1:]
				got, action, counter := run(t, d, f.bytes(t))
				want := bare.bytes(t)
				if action != xdpPass || counter != kind.counter {
					t.Errorf("action %d, counter %d, want %d, %d", action, counter, xdpPass, kind.counter)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("got\n%x\nwant\n%x", got, want)
				}
			})
		}
	}
}

func TestECN(t *testing.T) {
	d := loaded(t)
	names := [4]string{"not-ECT", "ECT(1)", "ECT(0)", "CE"}
	for _, kind := range kinds {
		for innerECN, row := range ecnTable {
			for outerECN, want := range row {
				t.Run(fmt.Sprintf("%s/%s in %s", kind.name, names[innerECN], names[outerECN]), func(t *testing.T) {
					in, out := inner(kind.inner), outer(kind.outer)
					in.ecn, out.ecn = uint8(innerECN), uint8(outerECN)
					got, action, counter := run(t, d, frame{headers: []header{out, in}}.bytes(t))
					if want == ecnDrop {
						if action != xdpDrop || counter != decapCounterDROPPED_ECN {
							t.Errorf("action %d, counter %d, want a drop", action, counter)
						}
						return
					}
					in.ecn = want
					bare := frame{headers: []header{in}}.bytes(t)
					if action != xdpPass || counter != kind.counter || !bytes.Equal(got, bare) {
						t.Errorf("action %d, counter %d\ngot\n%x\nwant\n%x", action, counter, got, bare)
					}
				})
			}
		}
	}
}

// The incremental checksum is right for every header, not just for one: the
// identification field runs through all its values, and so the checksum too.
func TestECNChecksum(t *testing.T) {
	d := loaded(t)
	out, in := outer(4), inner(4)
	out.ecn, in.ecn = 3, 2
	b := frame{headers: []header{out, in}}.bytes(t)
	ip := b[14+20 : 14+20+20]
	buf := make([]byte, len(b))
	for id := range 1 << 16 {
		ip[4], ip[5] = byte(id>>8), byte(id)
		ip[10], ip[11] = 0, 0
		sum := ^onesSum(ip)
		ip[10], ip[11] = byte(sum>>8), byte(sum)
		opts := ebpf.RunOptions{Data: b, DataOut: buf[:cap(buf)]}
		if _, err := d.objects.WeirDecap.Run(&opts); err != nil {
			t.Fatal(err)
		}
		got := opts.DataOut[14:34]
		if got[1]&3 != 3 || onesSum(got) != 0xffff || got[10] == 0xff && got[11] == 0xff {
			t.Fatalf("id %#04x: header %x", id, got)
		}
	}
}

func TestPassedUnchanged(t *testing.T) {
	d := loaded(t, weirPrefixes()...)
	in4, in6, out4, out6 := inner(4), inner(6), outer(4), outer(6)
	poke := func(b []byte, at int, v ...byte) []byte { copy(b[at:], v); return b }
	const eth, ip4, ip6 = 14, 20, 40
	f := func(h ...header) []byte { return frame{headers: h}.bytes(t) }
	dst := func(h header, a netip.Addr) header { h.dst = a; return h }
	src := func(h header, a netip.Addr) header { h.src = a; return h }

	for _, test := range []struct {
		name string
		in   []byte
		want decapCounter
	}{
		{"ARP", poke(make([]byte, 60), 12, 0x08, 0x06), decapCounterPASSED_NOT_TUNNEL},
		{"IPv4 UDP to a VIP", f(in4), decapCounterPASSED_NOT_TUNNEL},
		{"IPv6 UDP to a VIP", f(in6), decapCounterPASSED_NOT_TUNNEL},
		{"two tags", frame{headers: []header{out4, in4}, tags: []uint16{1, 2}}.bytes(t), decapCounterPASSED_NOT_TUNNEL},
		{"802.1ad tag", poke(frame{headers: []header{out4, in4}, tags: []uint16{1}}.bytes(t), 12, 0x88, 0xa8), decapCounterPASSED_NOT_TUNNEL},
		{"IPv6 destination options first", poke(f(out6, in6), eth+6, 60), decapCounterPASSED_NOT_TUNNEL},
		{"IPv6 fragment", poke(f(out6, in6), eth+6, 44), decapCounterPASSED_NOT_TUNNEL},

		{"EtherType IPv4 over IPv6", poke(f(out6, in6), 12, 0x08, 0x00, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 4), decapCounterPASSED_OUTER_MALFORMED},
		{"outer version 5", poke(f(out4, in4), eth, 0x55), decapCounterPASSED_OUTER_MALFORMED},
		{"outer v6 version 4", poke(f(out6, in4), eth, 0x4b), decapCounterPASSED_OUTER_MALFORMED},
		{"outer IHL 4", poke(f(out4, in4), eth, 0x44), decapCounterPASSED_OUTER_MALFORMED},
		{"outer IHL 0", poke(f(out4, in4), eth, 0x40), decapCounterPASSED_OUTER_MALFORMED},
		{"outer total length under IHL", poke(f(out4, in4), eth+2, 0, 19), decapCounterPASSED_OUTER_MALFORMED},
		{"outer total length over frame", poke(f(out4, in4), eth+2, 0xff, 0xff), decapCounterPASSED_OUTER_MALFORMED},
		{"outer v6 payload length over frame", poke(f(out6, in4), eth+4, 0xff, 0xff), decapCounterPASSED_OUTER_MALFORMED},

		{"first fragment", f(with(out4, func(h *header) { h.fragment = true }), in4), decapCounterPASSED_OUTER_FRAGMENT},
		{"last fragment", f(with(out4, func(h *header) { h.offset = 100 }), in4), decapCounterPASSED_OUTER_FRAGMENT},
		{"smallest offset", f(with(out4, func(h *header) { h.offset = 1 }), in4), decapCounterPASSED_OUTER_FRAGMENT},
		{"largest offset", f(with(out4, func(h *header) { h.offset = 0x1fff }), in4), decapCounterPASSED_OUTER_FRAGMENT},

		{"outer not to this host", f(dst(out4, foreigns[4]), in4), decapCounterPASSED_OUTER_DESTINATION},
		{"outer v6 not to this host", f(dst(out6, foreigns[6]), in4), decapCounterPASSED_OUTER_DESTINATION},
		{"outer to all", f(dst(out4, netip.MustParseAddr("255.255.255.255")), in4), decapCounterPASSED_OUTER_DESTINATION},
		{"outer multicast", f(dst(out6, netip.MustParseAddr("ff02::1")), in4), decapCounterPASSED_OUTER_DESTINATION},
		{"outer to the host's bytes in the other family",
			f(dst(out6, netip.AddrFrom16([16]byte{10, 0, 0, 2})), in4), decapCounterPASSED_OUTER_DESTINATION},

		{"outer not from weir", f(src(out4, foreigns[4]), in4), decapCounterPASSED_OUTER_SOURCE},
		{"outer v6 not from weir", f(src(out6, foreigns[6]), in6), decapCounterPASSED_OUTER_SOURCE},

		{"inner version 6 said to be 4", poke(f(out4, in6), eth+9, 4), decapCounterPASSED_INNER_MALFORMED},
		{"inner version 4 said to be 6", poke(f(out6, in4), eth+6, 41), decapCounterPASSED_INNER_MALFORMED},
		{"inner v6 version 5", poke(f(out4, in6), eth+ip4, 0x5b), decapCounterPASSED_INNER_MALFORMED},
		{"inner v4 version 5", poke(f(out4, in4), eth+ip4, 0x55), decapCounterPASSED_INNER_MALFORMED},
		{"inner IHL 4", poke(f(out4, in4), eth+ip4, 0x44), decapCounterPASSED_INNER_MALFORMED},
		{"inner total length under IHL", poke(f(out4, in4), eth+ip4+2, 0, 19), decapCounterPASSED_INNER_MALFORMED},
		{"inner longer than the outer says", poke(append(f(out4, in4), 1, 2, 3), eth+ip4+2, 0, byte(20+8+len(payload)+1)), decapCounterPASSED_INNER_MALFORMED},
		{"inner v6 longer than the outer says", poke(append(f(out6, in6), 1, 2, 3), eth+ip6+4, 0, byte(8+len(payload)+1)), decapCounterPASSED_INNER_MALFORMED},
		{"nothing inside, padding behind", poke(f(out4, in4), eth+2, 0, 20), decapCounterPASSED_INNER_MALFORMED},
		{"nothing inside v6, padding behind", poke(f(out6, in6), eth+4, 0, 0), decapCounterPASSED_INNER_MALFORMED},

		{"inner not to a VIP", f(out4, dst(in4, foreigns[4])), decapCounterPASSED_INNER_DESTINATION},
		{"inner v6 not to a VIP", f(out4, dst(in6, foreigns[6])), decapCounterPASSED_INNER_DESTINATION},
		{"inner to this host", f(out6, dst(in6, hosts[6])), decapCounterPASSED_INNER_DESTINATION},
		{"inner to the VIP's bytes in the other family",
			f(out4, dst(in6, netip.AddrFrom16([16]byte{203, 0, 113, 10}))), decapCounterPASSED_INNER_DESTINATION},
		{"twice encapsulated", f(out4, out4, in4), decapCounterPASSED_INNER_DESTINATION},
		{"CE outside, not to a VIP", f(with(out4, func(h *header) { h.ecn = 3 }), dst(in4, foreigns[4])), decapCounterPASSED_INNER_DESTINATION},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, action, counter := run(t, d, test.in)
			if action != xdpPass || counter != test.want {
				t.Errorf("action %d, counter %d, want %d, %d", action, counter, xdpPass, test.want)
			}
			if !bytes.Equal(got, test.in) {
				t.Errorf("changed:\ngot  %x\nwant %x", got, test.in)
			}
		})
	}
}

// A frame cut anywhere passes unchanged; one byte of padding more is no cut.
func TestTruncated(t *testing.T) {
	d := loaded(t)
	for _, kind := range kinds {
		for _, tags := range [][]uint16{nil, {101}} {
			for _, options := range []bool{false, true} {
				whole := frame{tags: tags, headers: []header{
					with(outer(kind.outer), func(h *header) { h.options = options }), inner(kind.inner)}}.bytes(t)
				for n := 14; n < len(whole); n++ { // the kernel takes no test frame under 14
					got, action, counter := run(t, d, whole[:n])
					if action != xdpPass || !bytes.Equal(got, whole[:n]) {
						t.Fatalf("%s, tags %v, options %v, %d of %d bytes: action %d, counter %d, got %x",
							kind.name, tags, options, n, len(whole), action, counter, got)
					}
					if counter != decapCounterPASSED_OUTER_MALFORMED && !(tags != nil && n < 18) {
						t.Errorf("%s, %d bytes: counter %d", kind.name, n, counter)
					}
				}
				if _, _, counter := run(t, d, whole); counter != kind.counter {
					t.Errorf("%s, whole: counter %d", kind.name, counter)
				}
			}
		}
	}
}

func TestSources(t *testing.T) {
	for _, test := range []struct {
		sources []string
		yes, no []string
	}{
		{nil, []string{"10.0.0.1", "fd00::1", "0.0.0.1"}, nil},
		{[]string{"10.0.0.0/30"}, []string{"10.0.0.0", "10.0.0.3"}, []string{"10.0.0.4", "9.255.255.255", "a00::", "fd00::1"}},
		{[]string{"10.9.8.7/16", "fd00::/64"}, []string{"10.9.0.0", "fd00::ffff"}, []string{"10.8.8.7", "fd00:0:0:1::"}},
		{[]string{"0.0.0.0/0"}, []string{"1.2.3.4"}, []string{"::1:2:3", "fd00::1"}},
		{[]string{"::/0"}, []string{"fd00::1"}, []string{"1.2.3.4"}},
	} {
		var prefixes []netip.Prefix
		for _, s := range test.sources {
			prefixes = append(prefixes, netip.MustParsePrefix(s))
		}
		d := loaded(t, prefixes...)
		for want, list := range map[bool][]string{true: test.yes, false: test.no} {
			for _, s := range list {
				src := netip.MustParseAddr(s)
				h := outer(6)
				if src.Is4() {
					h = outer(4)
				}
				h.src = src
				_, _, counter := run(t, d, frame{headers: []header{h, inner(4)}}.bytes(t))
				if got := counter != decapCounterPASSED_OUTER_SOURCE; got != want {
					t.Errorf("sources %v, from %s: counter %d", test.sources, s, counter)
				}
			}
		}
	}
}

func TestCountersNamesEach(t *testing.T) {
	d := loaded(t)
	for i := range uint32(decapCounterCOUNTERS) {
		perCPU := make([]uint64, ebpf.MustPossibleCPU())
		perCPU[0], perCPU[len(perCPU)-1] = 1000*uint64(i+1), uint64(i+1)
		if err := d.objects.Counters.Put(i, perCPU); err != nil {
			t.Fatal(err)
		}
	}
	unit := uint64(1001)
	if ebpf.MustPossibleCPU() == 1 {
		unit = 1
	}
	got, err := d.Counters()
	want := Counters{
		Stripped: Stripped{1 * unit, 2 * unit, 3 * unit, 4 * unit},
		Passed:   Passed{5 * unit, 6 * unit, 7 * unit, 8 * unit, 9 * unit, 10 * unit, 11 * unit},
		Dropped:  Dropped{12 * unit, 13 * unit},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
}

func TestOptionsRefused(t *testing.T) {
	vip := netip.MustParseAddr("203.0.113.10")
	for name, opt := range map[string]Options{
		"no VIPs":         {},
		"zero VIP":        {VIPs: []netip.Addr{{}}},
		"multicast VIP":   {VIPs: []netip.Addr{netip.MustParseAddr("224.0.0.1")}},
		"loopback VIP":    {VIPs: []netip.Addr{netip.MustParseAddr("::ffff:127.0.0.1")}},
		"zoned VIP":       {VIPs: []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}},
		"zero source":     {VIPs: []netip.Addr{vip}, Sources: []netip.Prefix{{}}},
		"mapped source":   {VIPs: []netip.Addr{vip}, Sources: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}},
		"unspecified VIP": {VIPs: []netip.Addr{netip.IPv6Unspecified()}},
	} {
		if _, _, err := opt.validate(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	opt := Options{VIPs: []netip.Addr{vip, netip.AddrFrom16(vip.As16())}}
	if vips, _, err := opt.validate(); err != nil || len(vips) != 1 {
		t.Errorf("one VIP twice, once mapped: %v, %v", vips, err)
	}
}

func FuzzDecap(f *testing.F) {
	d := loaded(f, weirPrefixes()...)
	for _, kind := range kinds {
		for ecn := range uint8(4) {
			in, out := inner(kind.inner), outer(kind.outer)
			in.ecn, out.ecn, out.options = 2, ecn, ecn == 1
			f.Add(frame{headers: []header{out, in}}.bytes(f))
			f.Add(frame{headers: []header{out, in}, tags: []uint16{7}, padding: 3}.bytes(f))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < 14 || len(in) > 2000 { // what the kernel takes as a test frame, within a page
			t.Skip("not a frame that a test run takes")
		}
		got, action, counter := run(t, d, in)
		wantOut, wantAction, wantCounter := model(in)
		if action != wantAction || counter != wantCounter || !bytes.Equal(got, wantOut) {
			t.Errorf("frame %x\ngot  action %d, counter %d, %x\nwant action %d, counter %d, %x",
				in, action, counter, got, wantAction, wantCounter, wantOut)
		}
	})
}

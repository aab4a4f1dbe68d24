package ladder

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weir/dataplane/forward"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/queue"
)

func newTestRig(t *testing.T, c Cell) *rig {
	t.Helper()
	opt := Options{CPU: -1}
	if err := opt.complete(); err != nil {
		t.Fatal(err)
	}
	l := &ladder{opt: &opt, tables: make(map[int][]uint16)}
	r, err := l.newRig(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// What comes out of each mode is what its name says, as gopacket reads it.
func TestModes(t *testing.T) {
	ip4, ip6 := layers.LayerTypeIPv4, layers.LayerTypeIPv6
	for mode, want := range map[Mode]struct {
		ip       []gopacket.LayerType
		src, dst byte // the network that the outer addresses are in, 0: not looked at
	}{
		DSR4:        {[]gopacket.LayerType{ip4}, clientNet, vipNet},
		DSR6:        {[]gopacket.LayerType{ip6}, clientNet, vipNet},
		IPIP4in4:    {[]gopacket.LayerType{ip4, ip4}, tunnelNet, backendNet},
		IPIP6in6:    {[]gopacket.LayerType{ip6, ip6}, tunnelNet, backendNet},
		NAT44:       {[]gopacket.LayerType{ip4}, snatNet, backendNet},
		NAT66:       {[]gopacket.LayerType{ip6}, snatNet, backendNet},
		NAT46:       {[]gopacket.LayerType{ip6}, snatNet, backendNet},
		NAT64:       {[]gopacket.LayerType{ip4}, snatNet, backendNet},
		NAT44Answer: {[]gopacket.LayerType{ip4}, vipNet, clientNet},
		NAT66Answer: {[]gopacket.LayerType{ip6}, vipNet, clientNet},
		NAT46Answer: {[]gopacket.LayerType{ip4}, vipNet, clientNet},
		NAT64Answer: {[]gopacket.LayerType{ip6}, vipNet, clientNet},
	} {
		for _, proto := range Protocols() {
			t.Run(string(mode)+"/"+string(proto), func(t *testing.T) {
				r := newTestRig(t, Cell{
					Rung: Hit, Mode: mode, Protocol: proto, Flows: 1 << 8, Services: 3, Backends: 5, Entries: 1 << 12, Buffers: 256,
				})
				clients := make(map[string]bool)
				for range 8 {
					if _, err := r.loop(1, false); err != nil {
						t.Fatal(err)
					}
					for i := range r.frames {
						f := r.frames[i].Bytes()
						if err := packettest.CheckWellFormed(f); err != nil {
							t.Fatalf("%x: %v", f, err)
						}
						p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
						var got []gopacket.LayerType
						for _, l := range p.Layers() {
							if l.LayerType() == ip4 || l.LayerType() == ip6 {
								got = append(got, l.LayerType())
							}
						}
						if len(got) != len(want.ip) || got[0] != want.ip[0] || got[len(got)-1] != want.ip[len(want.ip)-1] {
							t.Fatalf("IP headers %v, want %v", got, want.ip)
						}
						src, dst := p.NetworkLayer().NetworkFlow().Endpoints()
						if networkOf(src) != want.src || networkOf(dst) != want.dst {
							t.Fatalf("from %s to %s", src, dst)
						}
						link := p.LinkLayer().LinkFlow()
						if string(link.Src().Raw()) != string(weirMAC[:]) {
							t.Fatalf("sent by %s", link.Src())
						}
						if toClient := string(link.Dst().Raw()) == string(clientMAC[:]); toClient != mode.answer() {
							t.Fatalf("sent to %s", link.Dst())
						}
						_, transport := p.NetworkLayer().NetworkFlow(), p.TransportLayer().TransportFlow()
						clients[fmt.Sprint(src, dst, transport)] = true
					}
				}
				if len(want.ip) == 1 && len(clients) != 1<<8 {
					t.Errorf("packets of %d flows, want %d", len(clients), 1<<8)
				}
			})
		}
	}
}

func networkOf(e gopacket.Endpoint) byte {
	if raw := e.Raw(); len(raw) == 16 {
		return raw[1]
	}
	return e.Raw()[0]
}

// watched is a filler that notes who asks for packets, and into which frames.
type watched struct {
	filler
	batches int
	callers map[string]bool
	frames  map[*queue.Frame]bool
	buffers map[*byte]bool
}

func (w *watched) fill(frames []queue.Frame) {
	pc, _, _, _ := runtime.Caller(1)
	w.callers[runtime.FuncForPC(pc).Name()] = true
	w.frames[&frames[0]] = true
	for i := range frames {
		w.buffers[&frames[i].Buf[0]] = true
	}
	w.batches++
	w.filler.fill(frames)
}

// Packets are restored by the same function, into the same frames and buffers,
// alone and with everything, in the worker as in the other rungs.
func TestRestore(t *testing.T) {
	const batches = 5
	by := make(map[string]bool)
	for _, rung := range []Rung{Restore, Hit, Worker} {
		c := Cell{Rung: rung, Mode: DSR4, Protocol: UDP, Flows: 1 << 8, Services: 1, Backends: 3, Buffers: 2 * forward.BatchSize}
		if rung != Restore {
			c.Entries = 1 << 10
		}
		r := newTestRig(t, c)
		frames, buffers := make(map[*queue.Frame]bool), make(map[*byte]bool)
		for _, restore := range []bool{true, false} {
			w := &watched{filler: r.fill, callers: by, frames: frames, buffers: buffers}
			r.fill = w
			if _, err := r.loop(batches, restore); err != nil {
				t.Fatal(err)
			}
			if w.batches != batches {
				t.Errorf("%s, restoring alone %v: %d batches, want %d", rung, restore, w.batches, batches)
			}
			r.fill = w.filler
		}
		if len(frames) != 1 || len(buffers) != 2*forward.BatchSize {
			t.Errorf("%s: batches were made in %d places and %d buffers, want 1 and %d", rung, len(frames), len(buffers), 2*forward.BatchSize)
		}
	}
	if len(by) != 1 {
		t.Errorf("packets are restored by %v", slices.Sorted(maps.Keys(by)))
	}
}

// Nothing is allocated while it is measured: the collector is off then, and what
// it would have to do would be nobody's.
func TestNoAllocs(t *testing.T) {
	for _, rung := range []Rung{Restore, Parse, Service, Table, Hit, Miss, Worker, Map} {
		for _, mode := range []Mode{DSR4, NAT46} {
			c := Cell{Rung: rung, Mode: mode, Protocol: UDP, Flows: 1 << 8, Services: 1, Backends: 3, Entries: 1 << 10, Buffers: 256}
			switch rung {
			case Miss:
				c.Flows = 0
			case Restore, Parse, Service, Map:
				c.Entries = 0
			}
			r := newTestRig(t, c)
			for _, restore := range []bool{true, false} {
				allocs := testing.AllocsPerRun(100, func() {
					if _, err := r.loop(1, restore); err != nil {
						t.Fatal(err)
					}
				})
				if allocs != 0 {
					t.Errorf("%s, restoring alone %v: %v allocations for a batch", c, restore, allocs)
				}
			}
		}
	}
}

// A rung that does something else than it is said to do has no figure.
func TestCheck(t *testing.T) {
	const n = 64 * forward.BatchSize
	for name, test := range map[string]struct {
		rung Rung
		got  counts
		ok   bool
	}{
		"hits":                {Hit, counts{packets: n, known: n}, true},
		"few misses":          {Hit, counts{packets: n, known: n - n/tolerated}, true},
		"too many misses":     {Hit, counts{packets: n, known: n - n/tolerated - 1}, false},
		"too many drops":      {Hit, counts{packets: n, known: n, dropped: n/tolerated + 1}, false},
		"nothing done":        {Hit, counts{known: n}, false},
		"worker":              {Worker, counts{packets: n, known: n}, true},
		"worker of all new":   {Worker, counts{packets: n}, false},
		"map of all new":      {Map, counts{packets: n}, false},
		"misses":              {Miss, counts{packets: n}, true},
		"too many hits":       {Miss, counts{packets: n, known: n/tolerated + 1}, false},
		"parsed":              {Parse, counts{packets: n}, true},
		"too many ill-formed": {Parse, counts{packets: n, dropped: n}, false},
	} {
		r := rig{cell: Cell{Rung: test.rung}}
		if err := r.check(n, test.got); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

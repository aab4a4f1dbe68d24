package flow

import (
	"reflect"
	"testing"
	"time"

	"weir/dataplane/packet"
)

func newTable(t testing.TB, entries int) *Table {
	t.Helper()
	table, err := New(entries, DefaultTimeouts())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	return table
}

// seg is a TCP segment of which only the flags matter.
func seg(flags uint8) Segment { return Segment{Flags: flags} }

// tupleN returns the n-th of many tuples.
func tupleN(n int, proto uint8) packet.Tuple {
	return tuple4(testClient+uint32(n>>16), testVIP, uint16(n), 80, proto)
}

func TestNewRounds(t *testing.T) {
	for entries, want := range map[int]int{1: 8, 8: 8, 9: 16, 16: 16, 1000: 1024, 1024: 1024, 1025: 2048} {
		table := newTable(t, entries)
		if table.Cap() != want || table.Sets() != want/8 || table.Len() != 0 {
			t.Errorf("%d entries: cap %d, sets %d, len %d", entries, table.Cap(), table.Sets(), table.Len())
		}
	}
	for _, entries := range []int{-1, 0, 1<<30 + 1} {
		if _, err := New(entries, DefaultTimeouts()); err == nil {
			t.Errorf("%d entries: no error", entries)
		}
	}
}

func TestLayout(t *testing.T) {
	table := newTable(t, 64)
	for name, p := range map[string]uintptr{
		"sets":    reflect.ValueOf(&table.sets[0]).Pointer(),
		"entries": reflect.ValueOf(&table.sets[1].entries[0]).Pointer(),
	} {
		if p%64 != 0 {
			t.Errorf("%s start at %#x, not at a cache line", name, p)
		}
	}
}

func TestCloseTwice(t *testing.T) {
	table, err := New(1024, DefaultTimeouts())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	}
	if table.Len() != 0 || table.Cap() != 0 || table.Sets() != 0 {
		t.Error("a closed table has a size")
	}
}

func TestTimeoutsByState(t *testing.T) {
	timeouts := DefaultTimeouts()
	for _, test := range []struct {
		name    string
		proto   uint8
		flags   []uint8
		timeout time.Duration
	}{
		{"udp", packet.ProtoUDP, []uint8{0}, timeouts.UDP},
		{"udp, flags are noise", packet.ProtoUDP, []uint8{rst, rst}, timeouts.UDP},
		{"gre", 47, []uint8{0}, timeouts.UDP},
		{"syn", packet.ProtoTCP, []uint8{syn}, timeouts.TCPSYN},
		{"established", packet.ProtoTCP, []uint8{syn, ack}, timeouts.TCPEstablished},
		{"fin", packet.ProtoTCP, []uint8{syn, ack, finAck}, timeouts.TCPFIN},
		{"closed", packet.ProtoTCP, []uint8{syn, ack, rst}, timeouts.TCPClosed},
	} {
		for _, start := range []Tick{0, ^Tick(0) - 3} { // the second wraps while it waits
			table := newTable(t, 8)
			k := tupleN(1, test.proto)
			hash := table.Hash(&k)
			table.Insert(hash, &k, seg(test.flags[0]), start)
			for _, f := range test.flags[1:] {
				if table.Lookup(hash, &k, seg(f), start) == nil {
					t.Fatalf("%s: lost", test.name)
				}
			}
			last := start + TickAt(test.timeout)
			if table.Peek(hash, &k, last) == nil {
				t.Errorf("%s: gone before %v", test.name, test.timeout)
			}
			if table.Peek(hash, &k, last+1) != nil || table.Lookup(hash, &k, seg(ack), last+1) != nil {
				t.Errorf("%s: still there after %v", test.name, test.timeout)
			}
			swept := 0
			table.Sweep(last, 1, func(*Entry) { swept++ })
			if swept != 0 || table.Len() != 1 {
				t.Errorf("%s: swept before %v", test.name, test.timeout)
			}
			table.Sweep(last+1, 1, func(e *Entry) { swept++ })
			if swept != 1 || table.Len() != 0 {
				t.Errorf("%s: not swept after %v", test.name, test.timeout)
			}
		}
	}
}

// The worker's clock does not go back, but if it did no flow may be lost.
func TestClockGoesBack(t *testing.T) {
	table := newTable(t, 8)
	k := tupleN(1, packet.ProtoUDP)
	hash := table.Hash(&k)
	table.Insert(hash, &k, Segment{}, 100)
	if table.Lookup(hash, &k, Segment{}, 90) == nil {
		t.Error("lost")
	}
	table.Insert(hash, &k, Segment{}, 100)
	table.Range(0, 1, 90, func(_ *Entry, _ State, idle time.Duration) {
		if idle != 0 {
			t.Errorf("idle for %v", idle)
		}
	})
}

// All hashes are the same here, so only the tuples tell the flows apart.
func TestSameHash(t *testing.T) {
	table := newTable(t, 64)
	const hash = 0x0123456789abcdef
	k := packet.Tuple{Src: [16]byte{1}, Dst: [16]byte{2}, SrcPort: 3, DstPort: 4, Proto: packet.ProtoUDP}
	e, _, _ := table.Insert(hash, &k, Segment{}, 0)
	e.Backend = 7
	for bit := range 296 {
		other := flipBit(k, bit)
		if table.Lookup(hash, &other, Segment{}, 0) != nil || table.Peek(hash, &other, 0) != nil {
			t.Fatalf("bit %d makes no difference", bit)
		}
		if _, ok := table.Delete(hash, &other); ok {
			t.Fatalf("bit %d makes no difference to Delete", bit)
		}
		other = flipBit(k, bit)
		if e, _, why := table.Insert(hash, &other, Segment{}, 0); why != EvictedNone || e.Tuple != other {
			t.Fatalf("bit %d: inserted %+v, evicted %d", bit, *e, why)
		}
		if e := table.Lookup(hash, &k, Segment{}, 0); e == nil || e.Backend != 7 {
			t.Fatalf("bit %d: found %+v", bit, e)
		}
		table.Delete(hash, &other)
	}
}

// A free place is all zeros, and must not be taken for a flow that is.
func TestZeroTuple(t *testing.T) {
	table := newTable(t, 8)
	var k packet.Tuple
	if table.Lookup(0, &k, Segment{}, 0) != nil || table.Peek(0, &k, 0) != nil {
		t.Error("found in an empty table")
	}
	if _, ok := table.Delete(0, &k); ok {
		t.Error("deleted from an empty table")
	}
	if _, _, why := table.Insert(0, &k, Segment{}, 0); why != EvictedNone || table.Lookup(0, &k, Segment{}, 0) == nil || table.Len() != 1 {
		t.Error("not inserted")
	}
}

// A new connection on the tuple of a closed one is not the old flow; a repeated
// SYN of a live one is.
func TestReopened(t *testing.T) {
	for _, test := range []struct {
		name         string
		before, then uint8
		found        bool
	}{
		{"SYN after FIN", finAck, syn, false},
		{"SYN after RST", rst, syn, false},
		{"SYN with ECN after FIN", finAck, syn | packet.TCPEce | packet.TCPCwr, false},
		{"SYN again", syn, syn, true},
		{"SYN on an open one", ack, syn, true},
		{"ACK after FIN", finAck, ack, true},
		{"SYN-ACK after FIN", finAck, synAck, true},
	} {
		table := newTable(t, 8)
		k := tupleN(1, packet.ProtoTCP)
		hash := table.Hash(&k)
		e, _, _ := table.Insert(hash, &k, seg(test.before), 0)
		e.Backend = 7
		if found := table.Lookup(hash, &k, seg(test.then), 1) != nil; found != test.found {
			t.Errorf("%s: found %v, want %v", test.name, found, test.found)
		}
		if test.found {
			continue
		}
		e, evicted, why := table.Insert(hash, &k, seg(test.then), 1)
		if why != EvictedEnded || evicted.Tuple != k || evicted.Backend != 7 || e.Backend != 0 || table.Len() != 1 {
			t.Errorf("%s: insert evicted %+v (%d), %d flows", test.name, evicted, why, table.Len())
		}
	}
}

// A flood ten times the size of the table: every insert works, every loss is
// reported, the table stays at its size.
func TestFlood(t *testing.T) {
	table := newTable(t, 4096)
	lost := 0
	for n := range 10 * table.Cap() {
		k := tupleN(n, packet.ProtoTCP)
		hash := table.Hash(&k)
		_, _, why := table.Insert(hash, &k, seg(syn), Tick(n/10000))
		if why != EvictedNone {
			lost++
		}
		if table.Lookup(hash, &k, seg(ack), Tick(n/10000)) == nil {
			t.Fatalf("flow %d was not inserted", n)
		}
		if table.Len() != n+1-lost || table.Len() > table.Cap() {
			t.Fatalf("%d flows after %d inserts and %d losses", table.Len(), n+1, lost)
		}
	}
	if table.Len() != table.Cap() {
		t.Errorf("%d flows in a table of %d after the flood", table.Len(), table.Cap())
	}
}

// How many live flows a table gives up before it is full: what New's comment
// says about its size.
func TestLossWhenFilling(t *testing.T) {
	for _, test := range []struct {
		part    int // of the table that is filled
		ceiling float64
	}{{4, 0.0005}, {2, 0.015}} {
		table := newTable(t, 1<<16)
		table.keys = stableKeys() // by chance, it could be more
		flows, lost := table.Cap()/test.part, 0
		for n := range flows {
			k := tupleN(n, packet.ProtoUDP)
			if _, _, why := table.Insert(table.Hash(&k), &k, Segment{}, 0); why != EvictedNone {
				lost++
			}
		}
		t.Logf("filled to 1/%d: %.4f %% lost", test.part, float64(lost)/float64(flows)*100)
		if part := float64(lost) / float64(flows); part > test.ceiling {
			t.Errorf("filled to 1/%d: %.3f %% lost", test.part, part*100)
		}
	}
}

func TestSweepGoesRound(t *testing.T) {
	table := newTable(t, 1024)
	for n := range 300 {
		k := tupleN(n, packet.ProtoUDP)
		table.Insert(table.Hash(&k), &k, Segment{}, 0)
	}
	flows, gone, calls := table.Len(), 0, 0
	over := TickAt(DefaultTimeouts().UDP) + 1
	for ; table.Len() > 0 && calls < table.Sets(); calls++ {
		table.Sweep(over, 10, func(*Entry) { gone++ })
	}
	if gone != flows || calls > (table.Sets()+9)/10 {
		t.Errorf("%d of %d flows gone after %d calls", gone, flows, calls)
	}
	table.Sweep(over, 1<<40, func(*Entry) { t.Error("one more") }) // once round, and no more
}

func TestRangeBounds(t *testing.T) {
	table := newTable(t, 64)
	k := tupleN(1, packet.ProtoUDP)
	table.Insert(table.Hash(&k), &k, Segment{}, 0)
	n := 0
	count := func(*Entry, State, time.Duration) { n++ }
	if next := table.Range(0, int(^uint(0)>>1), 0, count); next != 0 || n != 1 {
		t.Errorf("all at once: next %d, %d flows", next, n)
	}
	if next := table.Range(1, int(^uint(0)>>1), 0, count); next != 0 {
		t.Errorf("all from set 1: next %d", next)
	}
	if next := table.Range(3, 2, 0, count); next != 5 {
		t.Errorf("next %d, want 5", next)
	}
	if next := table.Range(100, 5, 0, count); next != 0 {
		t.Errorf("past the end: next %d", next)
	}
}

func TestPrefetchChangesNothing(t *testing.T) {
	m := newModel(t, 64, 0)
	var hashes []uint64
	for n := range 40 {
		k := tupleN(n, packet.ProtoUDP)
		hashes = append(hashes, m.table.Hash(&k))
		if n%2 == 0 {
			m.packet(k, Segment{})
		}
	}
	places := make([]uint32, len(hashes))
	m.table.Ahead(hashes)
	m.table.Prefetch(hashes, places)
	m.table.PrefetchAt(append(places, NoPlace))
	m.table.Ahead(nil)
	m.table.Prefetch(nil, nil)
	m.table.PrefetchAt(nil)
	m.compare()
	for n, place := range places {
		if e := m.table.At(place); (e != nil) != (n%2 == 0) || e != nil && e.Tuple != tupleN(n, packet.ProtoUDP) {
			t.Errorf("flow %d: place %d has %v", n, place, e)
		}
	}
}

func TestNoAllocs(t *testing.T) {
	table := newTable(t, 1024)
	keys := make([]packet.Tuple, 4096)
	hashes := make([]uint64, len(keys))
	for n := range keys {
		keys[n] = tupleN(n, packet.ProtoTCP)
		hashes[n] = table.Hash(&keys[n])
	}
	var places [64]uint32
	packets := make([]packet.Parsed, len(places))
	gone, live := 0, 0
	onGone := func(*Entry) { gone++ }
	onLive := func(*Entry, State, time.Duration) { live++ }
	n, now := 0, Tick(0)
	for name, f := range map[string]func(){
		"hash":        func() { hashes[n] = table.Hash(&keys[n]) },
		"hash stable": func() { _ = HashStable(&keys[n]) },
		"hash source": func() { _ = HashStableSource(&keys[n].Src) },
		"insert":      func() { table.Insert(hashes[n], &keys[n], seg(syn), now) },
		"lookup":      func() { table.Lookup(hashes[n], &keys[n], seg(ack), now) },
		"peek":        func() { table.Peek(hashes[n], &keys[n], now) },
		"delete":      func() { table.Delete(hashes[n], &keys[n]) },
		"answered":    func() { table.Answered(uint32(n), seg(ack), now) },
		"reusable":    func() { table.Reusable(uint32(n), now) },
		"delete at":   func() { table.DeleteAt(uint32(n)) },
		"ahead":       func() { table.Ahead(hashes[:16]) },
		"prefetch":    func() { table.Prefetch(hashes[:64], places[:]) },
		"known":       func() { table.Known(places[:], packets, 1, now) },
		"sweep":       func() { table.Sweep(now, 8, onGone) },
		"range":       func() { table.Range(0, 8, now, onLive) },
	} {
		allocs := testing.AllocsPerRun(5000, func() {
			f()
			n = (n + 1) % len(keys)
			now++
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

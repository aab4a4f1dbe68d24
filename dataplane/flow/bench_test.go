package flow

import (
	"fmt"
	"testing"

	"weir/dataplane/packet"
)

// benchFlows returns n tuples in an order that has nothing to do with where
// they are in memory, as packets arrive.
func benchFlows(n int) []packet.Tuple {
	keys := make([]packet.Tuple, n)
	for i := range keys {
		keys[i] = tupleN(i*7919%n, packet.ProtoTCP)
	}
	return keys
}

// found returns how many of keys are in the table.
func found(t *Table, keys []packet.Tuple) int {
	n := 0
	for i := range keys {
		if t.Peek(t.Hash(&keys[i]), &keys[i], 1) != nil {
			n++
		}
	}
	return n
}

const benchBatch = 64

// BenchmarkTable has a row for each cost: the hash is in all of them, as in the
// packet path. The map is the plain alternative, with room made in advance: it
// keeps no time and no state, expires nothing and evicts nothing.
func BenchmarkTable(b *testing.B) {
	for _, flows := range []int{1, 1 << 10, 1 << 16, 1 << 20} {
		keys := benchFlows(flows)
		absent := make([]packet.Tuple, len(keys))
		for i := range absent {
			absent[i] = keys[i]
			absent[i].DstPort = 443
		}
		name := func(s string) string { return fmt.Sprintf("flows=%d/%s", flows, s) }

		table := newTable(b, 2*flows)
		for i := range keys {
			e, _, _ := table.Insert(table.Hash(&keys[i]), &keys[i], seg(ack), 0)
			e.Backend = uint32(i)
		}
		lookup := func(keys []packet.Tuple) func(b *testing.B) {
			return func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					k := &keys[i&(len(keys)-1)]
					table.Lookup(table.Hash(k), k, seg(ack), 1)
				}
			}
		}
		// Nearly all are there (sets do not fill evenly), and none that is not.
		if n, no := found(table, keys), found(table, absent); n < flows*98/100 || no != 0 {
			b.Fatalf("%d of %d flows are in the table, and %d that should not be", n, flows, no)
		}
		b.Run(name("hit"), lookup(keys))
		b.Run(name("miss"), lookup(absent))
		b.Run(name("hit-prefetched"), func(b *testing.B) {
			b.ReportAllocs()
			var hashes [benchBatch]uint64
			var places [benchBatch]uint32
			for i := 0; b.Loop(); i++ {
				at := i % benchBatch
				if at == 0 {
					for j := range hashes {
						hashes[j] = table.Hash(&keys[(i+j)&(len(keys)-1)])
					}
					table.Ahead(hashes[:])
					table.Prefetch(hashes[:], places[:])
				}
				table.Lookup(hashes[at], &keys[i&(len(keys)-1)], seg(ack), 1)
			}
		})
		numbers := make([]uint32, 0, flows)
		for i := range keys {
			if e := table.Peek(table.Hash(&keys[i]), &keys[i], 1); e != nil {
				numbers = append(numbers, table.Number(e))
			}
		}
		b.Run(name("answered"), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if !table.Answered(numbers[i%len(numbers)], seg(ack), 1) {
					b.Fatal("not there")
				}
			}
		})
		b.Run(name("insert"), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				k := &absent[i&(len(keys)-1)]
				table.Insert(table.Hash(k), k, seg(ack), 1)
			}
		})

		entries := make(map[packet.Tuple]Entry, flows)
		for i := range keys {
			entries[keys[i]] = Entry{Backend: uint32(i)}
		}
		get := func(keys []packet.Tuple) func(b *testing.B) {
			return func(b *testing.B) {
				b.ReportAllocs()
				hits := 0
				for i := 0; b.Loop(); i++ {
					if _, ok := entries[keys[i&(len(keys)-1)]]; ok {
						hits++
					}
				}
				if want := &keys[0] != &absent[0]; hits > 0 != want {
					b.Fatalf("%d found", hits)
				}
			}
		}
		b.Run(name("map-hit"), get(keys))
		b.Run(name("map-miss"), get(absent))
		b.Run(name("map-insert"), func(b *testing.B) {
			b.ReportAllocs()
			m := make(map[packet.Tuple]Entry, flows)
			for i := 0; b.Loop(); i++ {
				if len(m) == flows {
					clear(m)
				}
				m[keys[i&(len(keys)-1)]] = Entry{Backend: 1}
			}
		})
	}
}

// BenchmarkFlood inserts SYNs of ever new sources into a full table, in which
// half of the flows are trusted.
func BenchmarkFlood(b *testing.B) {
	table := newTable(b, 1<<18)
	for n := range 1 << 17 {
		k := tupleN(n, packet.ProtoUDP)
		hash := table.Hash(&k)
		table.Insert(hash, &k, Segment{}, 0)
		table.Lookup(hash, &k, Segment{}, 0)
	}
	next := 1 << 20
	flood := func() Eviction {
		k := tupleN(next, packet.ProtoTCP)
		next++
		_, _, why := table.Insert(table.Hash(&k), &k, seg(syn), 1)
		return why
	}
	for table.Len() < table.Cap()*99/100 {
		flood()
	}
	b.ReportAllocs()
	for b.Loop() {
		if flood() == EvictedOldest {
			b.Fatal("a trusted flow was evicted")
		}
	}
}

// BenchmarkSweep is one round over a million places, half of them taken.
func BenchmarkSweep(b *testing.B) {
	table := newTable(b, 1<<20)
	for n := range 1 << 19 {
		k := tupleN(n, packet.ProtoUDP)
		table.Insert(table.Hash(&k), &k, Segment{}, 0)
	}
	for b.Loop() {
		table.Sweep(1, table.Sets(), func(*Entry) { b.Error("gone") })
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(table.Sets()), "ns/set")
}

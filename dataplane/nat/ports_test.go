package nat

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

func search(p *Ports, slot uint16, hash uint64) (s Search) {
	p.Begin(&s, slot, hash)
	return s
}

// place is what the caller of a search does: it takes the first port that
// accept agrees to.
func place(p *Ports, r Range, hash uint64, accept func(port uint16) bool) (uint16, bool) {
	p.Hold(r, hash)
	s := search(p, r.Slot, hash)
	for port, ok := p.Next(&s); ok; port, ok = p.Next(&s) {
		if accept(port) {
			p.Take(r.Slot, port)
			return port, true
		}
	}
	return 0, false
}

// used returns an accept that agrees to each port once: one answer destination.
func used(ports map[uint16]bool) func(uint16) bool {
	return func(port uint16) bool {
		if ports[port] {
			return false
		}
		ports[port] = true
		return true
	}
}

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 6056)) }

// One worker finds each of 100 ports, and not one more; and another backend
// gets the same 100 again.
func TestExactly100Ports(t *testing.T) {
	for _, r := range []Range{
		{0, 1024, 1123}, {0, 1000, 1099}, {0, 1087, 1186}, {0, 65436, 65535}, {0, 0, 99},
	} {
		p, rng := NewPorts(newSpace(t, 1), 0), random(1)
		for backend := range 3 {
			taken := map[uint16]bool{}
			for i := range 100 {
				port, ok := place(p, r, rng.Uint64(), used(taken))
				if !ok || port < r.Lo || port > r.Hi {
					t.Fatalf("range %v, backend %d, flow %d: port %d, %v", r, backend, i, port, ok)
				}
			}
			for range 20 {
				if port, ok := place(p, r, rng.Uint64(), used(taken)); ok {
					t.Errorf("range %v, backend %d: the 101st flow got port %d", r, backend, port)
				}
			}
		}
		if _, flows := p.InUse(); flows != 300 {
			t.Errorf("%d flows, want 300", flows)
		}
	}
}

// Workers that share 4096 ports find them all, in whole blocks, whoever has
// more flows.
func TestWorkersShareARange(t *testing.T) {
	space, rng := newSpace(t, 1), random(2)
	r := Range{0, 50048, 50048 + 4095}
	workers := make([]*Ports, 4)
	for i := range workers {
		workers[i] = NewPorts(space, uint16(i))
	}
	taken := map[uint16]bool{}
	for misses := 0; misses < 2000; {
		// The first worker has most of the flows.
		w := rng.IntN(8) % 5 % 4
		if port, ok := place(workers[w], r, rng.Uint64(), used(taken)); !ok {
			misses++
		} else if owner, ok := space.Owner(0, port); !ok || int(owner) != w {
			t.Fatalf("worker %d has port %d of %d, %v", w, port, owner, ok)
		}
	}
	blocks := 0
	for i, p := range workers {
		b, flows := p.InUse()
		if b == 0 || flows != b*BlockPorts {
			t.Errorf("worker %d: %d flows in %d blocks, want them full", i, flows, b)
		}
		blocks += b
	}
	if blocks != 64 || len(taken) != 4096 {
		t.Errorf("%d blocks and %d ports, want 64 and 4096", blocks, len(taken))
	}
}

// An empty block is kept if it is the only one of the address, and only then.
func TestEmptyBlocks(t *testing.T) {
	space := newSpace(t, 2)
	p, rng := NewPorts(space, 3), random(3)
	r := Range{0, 1024, 65535}
	taken := map[uint16]bool{}
	for range 40 * BlockPorts {
		if _, ok := place(p, r, rng.Uint64(), used(taken)); !ok {
			t.Fatal("no port although there are blocks")
		}
	}
	if blocks, _ := p.InUse(); blocks < 40 || blocks > 120 {
		t.Errorf("%d blocks for what fits into 40", blocks)
	}
	other, ok := place(p, Range{1, 1024, 65535}, rng.Uint64(), func(uint16) bool { return true })
	if !ok {
		t.Fatal("no port of the other address")
	}
	for port := range taken {
		p.Free(0, port)
	}
	if blocks, flows := p.InUse(); blocks != 2 || flows != 1 {
		t.Errorf("%d blocks and %d flows, want an empty one and one of the other address with a flow", blocks, flows)
	}
	p.Free(1, other)
	if blocks, flows := p.InUse(); blocks != 2 || flows != 0 {
		t.Errorf("%d blocks and %d flows, want an empty one of each address", blocks, flows)
	}
	// What was never taken changes nothing.
	p.Free(1, other)
	p.Free(1, other^0x8000)
	p.Take(1, other^0x8000)
	if blocks, flows := p.InUse(); blocks != 2 || flows != 0 {
		t.Errorf("%d blocks and %d flows after freeing what is free", blocks, flows)
	}
}

// Who was there first leaves every other worker a block, as long as there are
// as many; and it keeps it, whatever it opens and ends.
func TestHold(t *testing.T) {
	const workers = 4
	for _, row := range []struct {
		name string
		r    Range
		have int // workers that have a block
	}{
		{"many blocks", Range{0, 1024, 65535}, workers},
		{"just enough", Range{0, 1024, 1024 + workers*BlockPorts - 1}, workers},
		{"one too few", Range{0, 1024, 1024 + (workers-1)*BlockPorts - 1}, workers - 1},
		{"one port", Range{0, 1030, 1030}, 1},
		{"none", Range{0, 1030, 1029}, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			space, rng := newSpace(t, 1), random(9)
			all, have := make([]*Ports, workers), 0
			for i := range all {
				all[i] = NewPorts(space, uint16(i))
				if all[i].Hold(row.r, rng.Uint64()) {
					have++
				}
			}
			if have != row.have {
				t.Fatalf("%d workers have a block, want %d", have, row.have)
			}
			taken := map[uint16]bool{}
			for range 70000 { // one worker takes all that it can get
				place(all[0], row.r, rng.Uint64(), used(taken))
			}
			have = 0
			for i := range all {
				if _, ok := place(all[i], row.r, rng.Uint64(), func(uint16) bool { return true }); ok {
					have++
				}
			}
			if have != row.have {
				t.Errorf("after a flood at one of them, %d workers find a port, want %d", have, row.have)
			}
			for port := range taken {
				all[0].Free(0, port)
			}
			if blocks, flows := all[0].InUse(); flows != min(row.have, 1) || blocks < flows || blocks > 2 {
				t.Errorf("after it, %d blocks and %d flows", blocks, flows)
			}
		})
	}
}

// A worker without a block gets one as soon as there is one.
func TestHoldAgain(t *testing.T) {
	space, r := newSpace(t, 1), Range{0, 1024, 1024 + BlockPorts - 1}
	first, late := NewPorts(space, 1), NewPorts(space, 2)
	if !first.Hold(r, 1) || !first.Hold(r, 2) || late.Hold(r, 3) {
		t.Fatal("one block, and not the first of two has it")
	}
	space.ReleaseAll(1)
	if !late.Hold(r, 4) {
		t.Error("the block is free and not to be had")
	}
	if blocks, _ := late.InUse(); blocks != 1 {
		t.Errorf("%d blocks, want 1", blocks)
	}
}

// With another range, blocks of the old one go when their flows have gone, and
// one of the new one stays.
func TestHoldAnotherRange(t *testing.T) {
	space := newSpace(t, 1)
	p, rng := NewPorts(space, 1), random(15)
	before, after := Range{0, 50000, 50999}, Range{0, 40000, 40999}
	taken := map[uint16]bool{}
	for range 500 {
		place(p, before, rng.Uint64(), used(taken))
	}
	owned := func(r Range) (n int) {
		for b := r.Lo / BlockPorts; b <= r.Hi/BlockPorts; b++ {
			if _, ok := space.Owner(0, b*BlockPorts); ok {
				n++
			}
		}
		return n
	}
	if !p.Hold(after, rng.Uint64()) || owned(after) != 1 || owned(before) < 500/BlockPorts {
		t.Fatalf("%d blocks of the new range and %d of the old one", owned(after), owned(before))
	}
	s := search(p, 0, rng.Uint64())
	for port, ok := p.Next(&s); ok; port, ok = p.Next(&s) {
		if port < after.Lo || port > after.Hi {
			t.Fatalf("port %d of the old range", port)
		}
	}
	for port := range taken {
		p.Free(0, port)
	}
	if owned(before) != 0 || owned(after) < 1 {
		t.Errorf("%d blocks of the old range and %d of the new one", owned(before), owned(after))
	}
	p.Hold(Range{0, 1, 0}, 1)
	if blocks, flows := p.InUse(); blocks != 0 || flows != 0 {
		t.Errorf("%d blocks and %d flows of no ports", blocks, flows)
	}
}

// A caller that refuses everything gets no more than a few blocks.
func TestRefusingHoardsNothing(t *testing.T) {
	p, rng := NewPorts(newSpace(t, 1), 0), random(4)
	for range 1000 {
		place(p, Range{0, 1024, 65535}, rng.Uint64(), func(uint16) bool { return false })
	}
	if blocks, _ := p.InUse(); blocks > 3 {
		t.Errorf("%d blocks without a flow", blocks)
	}
}

// After 8 refused ports, and not before, the next one is of another block; the
// walk over the own ones goes on when all of that one were refused, too.
func TestAnotherBlockAfter8(t *testing.T) {
	p := NewPorts(newSpace(t, 1), 0)
	r := Range{0, 1024, 65535}
	first, _ := place(p, r, 1, func(uint16) bool { return true })
	s := search(p, 0, 12345)
	for i := 1; ; i++ {
		port, ok := p.Next(&s)
		if !ok {
			if i != 129 {
				t.Errorf("ended at candidate %d, want the 129th", i)
			}
			break
		}
		own, want := port/BlockPorts == first/BlockPorts, i <= 8 || i > 8+64
		if own != want {
			t.Errorf("candidate %d is of the old block: %v, want %v", i, own, want)
		}
	}
	if blocks, _ := p.InUse(); blocks != 2 {
		t.Errorf("%d blocks, want 2", blocks)
	}
}

// Flows of different hashes do not begin in the same place: neither their block
// nor their port in it.
func TestClaimsAreSpread(t *testing.T) {
	rng := random(14)
	blocks, places := map[uint16]int{}, map[uint16]int{}
	space := newSpace(t, 1)
	for worker := range uint16(500) {
		p := NewPorts(space, worker)
		hash := rng.Uint64()
		p.Hold(Range{0, 1024, 65535}, hash)
		s := search(p, 0, hash)
		port, _ := p.Next(&s)
		blocks[port/BlockPorts/64]++ // sixteenths of the address
		places[port%BlockPorts/8]++
		space.ReleaseAll(worker)
	}
	for name, counts := range map[string]map[uint16]int{"sixteenths": blocks, "eighths of a block": places} {
		for at, n := range counts {
			if n > 100 {
				t.Errorf("%s: %d of 500 in the %d.", name, n, at)
			}
		}
		if len(counts) < 8 {
			t.Errorf("%s: only %d are used", name, len(counts))
		}
	}
}

func TestSearchOfNothing(t *testing.T) {
	p := NewPorts(newSpace(t, 1), 0)
	place(p, Range{0, 1024, 65535}, 1, func(uint16) bool { return true })
	for _, r := range []Range{{0, 2000, 1999}, {0, 65535, 0}, {0, 1030, 1029}, {1, 1024, 65535}, {2, 0, 0}} {
		if r.Slot < 2 && p.Hold(r, 77) {
			t.Errorf("range %v: a block", r)
		}
		s := search(p, r.Slot, 77)
		for range 3 {
			if port, ok := p.Next(&s); ok {
				t.Errorf("range %v: port %d", r, port)
			}
		}
	}
}

// Free during a search is not allowed, but must do no harm.
func TestFreeDuringSearch(t *testing.T) {
	space := newSpace(t, 1)
	p, rng := NewPorts(space, 0), random(5)
	r := Range{0, 1024, 65535}
	var ports []uint16
	taken := map[uint16]bool{}
	for range 10 * BlockPorts {
		port, _ := place(p, r, rng.Uint64(), used(taken))
		ports = append(ports, port)
	}
	slices.Sort(ports)
	s := search(p, 0, 99)
	for i := 0; ; i++ {
		port, ok := p.Next(&s)
		if !ok {
			break
		}
		if w, ok := space.Owner(0, port); !ok || w != 0 {
			t.Fatalf("port %d belongs to %d, %v", port, w, ok)
		}
		for range 16 { // a whole block in 4 steps
			if len(ports) > 0 {
				p.Free(0, ports[0])
				ports = ports[1:]
			}
		}
	}
}

// The first port tried tells nothing about where the next flow's is: all come
// equally often. Chi-square of the ports of 4 blocks, 255 degrees of freedom;
// the 99.99 % quantile is 347.
func TestFirstPortIsSpread(t *testing.T) {
	p, rng := NewPorts(newSpace(t, 1), 0), random(6)
	r := Range{0, 4096, 4096 + 4*BlockPorts - 1}
	taken := map[uint16]bool{}
	for range 4 * BlockPorts {
		place(p, r, rng.Uint64(), used(taken))
	}
	const searches = 100 * 4 * BlockPorts
	counts := make([]int, 4*BlockPorts)
	for range searches {
		s := search(p, 0, rng.Uint64())
		port, _ := p.Next(&s)
		counts[port-r.Lo]++
	}
	expected, chi := float64(searches)/float64(len(counts)), 0.0
	for _, n := range counts {
		chi += (float64(n) - expected) * (float64(n) - expected) / expected
	}
	if chi > 347 {
		t.Errorf("chi-square %.0f, want at most 347", chi)
	}
}

// The same hash leads to the same port as long as the blocks are the same.
func TestSameHashSamePort(t *testing.T) {
	p, rng := NewPorts(newSpace(t, 1), 0), random(7)
	r := Range{0, 1024, 65535}
	taken := map[uint16]bool{}
	for range 1000 {
		place(p, r, rng.Uint64(), used(taken))
	}
	for range 100 {
		hash := rng.Uint64()
		a, b := search(p, 0, hash), search(p, 0, hash)
		for range Patience {
			x, _ := p.Next(&a)
			y, _ := p.Next(&b)
			if x != y {
				t.Fatalf("hash %#x: ports %d and %d", hash, x, y)
			}
		}
	}
}

// Workers with too few ports for all take and free at once; a port belongs to
// one of them at a time.
func TestPortsConcurrent(t *testing.T) {
	const workers = 4
	space := newSpace(t, 1)
	r := Range{0, 1030, 1030 + 1000}
	var users [1 << 16]atomic.Int32 // workers that have the port
	var wait sync.WaitGroup
	for worker := range uint16(workers) {
		wait.Go(func() {
			p, rng := NewPorts(space, worker), random(uint64(worker))
			defer space.ReleaseAll(worker)
			taken := map[uint16]bool{}
			for i := range 20000 {
				if port, ok := place(p, r, rng.Uint64(), used(taken)); ok {
					if n := users[port].Add(1); n != 1 {
						t.Errorf("%d workers have port %d", n, port)
						return
					}
				}
				for port := range taken {
					if len(taken) <= i/8%400 {
						break
					}
					delete(taken, port)
					users[port].Add(-1)
					p.Free(0, port)
				}
			}
			for port := range taken {
				users[port].Add(-1)
			}
		})
	}
	wait.Wait()
}

package nat

import "testing"

// TestNoAllocs has a row for each thing that a packet or a flow makes a worker
// do. Only a claim of a block and the first of 256 new stations may allocate.
func TestNoAllocs(t *testing.T) {
	space, rng := newSpace(t, 1), random(20)
	r := Range{0, 1024, 65535}
	p := NewPorts(space, 1)
	taken := map[uint16]bool{}
	for range 1000 {
		place(p, r, rng.Uint64(), used(taken))
	}
	blocks, _ := p.InUse()
	x := NewIndex(1024)
	for i := range uint32(512) {
		x.Insert(uint64(i)*0x9e3779b97f4a7c15, i)
	}
	hashes := make([]uint64, 64)
	s := NewStations()
	st, other := station(1), station(2)
	id := intern(t, s, st)
	frame := frameOf(&st)
	for _, row := range []struct {
		name string
		f    func()
	}{
		{"Owner", func() { space.Owner(0, 5000) }},
		{"Hold of what it holds", func() { p.Hold(r, 1) }},
		{"Begin and Next", func() {
			var walk Search
			p.Begin(&walk, 0, rng.Uint64())
			for range Patience {
				p.Next(&walk)
			}
		}},
		{"Take and Free", func() {
			var walk Search
			p.Begin(&walk, 0, rng.Uint64())
			port, _ := p.Next(&walk)
			p.Take(0, port)
			p.Free(0, port)
		}},
		{"Index.Insert, Lookup and Remove", func() {
			x.Insert(12345, 1)
			x.Lookup(12345, 0)
			x.Remove(12345, 1)
		}},
		{"Index.Ahead", func() { x.Ahead(hashes) }},
		{"Intern of a known station", func() { s.Intern(&st) }},
		{"Intern of a new one and Release", func() {
			id, _ := s.Intern(&other)
			s.Release(id)
		}},
		{"Sends", func() { s.Sends(id, SourceOf(frame), st.VLAN, st.Tagged, st.Interface) }},
	} {
		if n := testing.AllocsPerRun(1000, row.f); n != 0 {
			t.Errorf("%s: %v allocations", row.name, n)
		}
	}
	if now, _ := p.InUse(); now > blocks {
		t.Errorf("%d blocks, %d before: a claim was among it", now, blocks)
	}
}

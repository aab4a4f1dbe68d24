package nat

import (
	"slices"
	"testing"
)

// portsModel runs Ports of several workers and a naive account of the same side
// by side. It knows flows as a list, and who owns what by asking for each block.
type portsModel struct {
	t       *testing.T
	space   *Space
	workers [3]*Ports
	flows   [3][]modelFlow
	ranges  [3][modelSlots]Range
	had     [3][modelSlots]Range // of which a worker had a block when check was called last
}

type modelFlow struct {
	slot, port uint16
	backend    uint8
}

const modelSlots = 2

func newPortsModel(t *testing.T) *portsModel {
	m := &portsModel{t: t, space: newSpace(t, modelSlots)}
	for w := range m.workers {
		m.start(w)
	}
	return m
}

// start is the start of a worker, or what becomes of one that has ended.
func (m *portsModel) start(w int) {
	m.space.ReleaseAll(uint16(w))
	m.workers[w], m.flows[w], m.had[w] = NewPorts(m.space, uint16(w)), nil, [modelSlots]Range{}
	m.hold(w, Range{0, 1024, 65535}, uint64(w))
	m.hold(w, Range{1, 65500, 65535}, uint64(w))
}

// hold gives a worker another range, and checks what becomes of its blocks.
func (m *portsModel) hold(w int, r Range, hash uint64) {
	m.ranges[w][r.Slot] = r
	var stay []uint16
	has := false
	for _, b := range m.owned(r.Slot, w) {
		inside := portsIn([]uint16{b}, r) > 0
		if inside || m.count(w, r.Slot, b) > 0 {
			stay = append(stay, b)
		}
		has = has || inside
	}
	want := has || portsIn(m.owned(r.Slot, -1), r) > 0
	if got := m.workers[w].Hold(r, hash); got != want {
		m.t.Fatalf("worker %d holds %v: %v, want %v", w, r, got, want)
	}
	claimed := 0
	for _, b := range m.owned(r.Slot, w) {
		if !slices.Contains(stay, b) {
			if claimed++; portsIn([]uint16{b}, r) == 0 {
				m.t.Fatalf("worker %d holds %v: has block %d", w, r, b)
			}
		}
	}
	if n := len(m.owned(r.Slot, w)); n != len(stay)+claimed || claimed > 1 || claimed == 1 && has {
		m.t.Fatalf("worker %d holds %v: %d blocks, %d of them new, want %v to stay", w, r, n, claimed, stay)
	}
}

// owned returns the blocks of a slot that w has; w is -1 for free ones.
func (m *portsModel) owned(slot uint16, w int) (blocks []uint16) {
	for b := range uint16(blocksPerAddress) {
		owner, ok := m.space.Owner(slot, b*BlockPorts)
		if ok && int(owner) == w || !ok && w < 0 {
			blocks = append(blocks, b)
		}
	}
	return blocks
}

// portsIn counts the ports of the blocks that are in r.
func portsIn(blocks []uint16, r Range) (n int) {
	for _, b := range blocks {
		first, last := int(b)*BlockPorts, int(b)*BlockPorts+BlockPorts-1
		n += max(0, min(last, int(r.Hi))-max(first, int(r.Lo))+1)
	}
	return n
}

// count returns how many flows of w have a port in the block.
func (m *portsModel) count(w int, slot, block uint16) (n int) {
	for _, f := range m.flows[w] {
		if f.slot == slot && f.port/BlockPorts == block {
			n++
		}
	}
	return n
}

func (m *portsModel) empties(w int, slot uint16) (n int) {
	for _, b := range m.owned(slot, w) {
		if m.count(w, slot, b) == 0 {
			n++
		}
	}
	return n
}

// open looks for a port as the packet path does, but refuses the first refuse
// candidates whatever they are.
func (m *portsModel) open(w int, slot uint16, hash uint64, backend uint8, refuse int) {
	p, r := m.workers[w], m.ranges[w][slot]
	s := search(p, slot, hash)
	seen := map[uint16]bool{}
	claims := 0
	for {
		before, empty := m.owned(r.Slot, w), m.empties(w, r.Slot)
		own, free := portsIn(before, r), portsIn(m.owned(r.Slot, -1), r)
		port, ok := p.Next(&s)
		after := m.owned(r.Slot, w)
		wants := len(seen) == own && own < MaxCandidates ||
			len(seen) == Patience && claims == 0 && empty <= maxEmpty
		claimed := 0
		if wants && free > 0 {
			claimed = 1
		}
		if got := len(after) - len(before); got != claimed {
			m.t.Fatalf("claimed %d blocks after %d of %d own ports, %d before and %d empty ones, want %d",
				got, len(seen), own, claims, empty, claimed)
		}
		claims += claimed
		if !ok {
			if want := portsIn(after, r); len(seen) != min(want, MaxCandidates) {
				m.t.Fatalf("search in %v ended after %d of %d own ports", r, len(seen), want)
			}
			return
		}
		if seen[port] || port < r.Lo || port > r.Hi || !slices.Contains(after, port/BlockPorts) {
			m.t.Fatalf("port %d of %v: seen %v, own blocks %v", port, r, seen[port], after)
		}
		seen[port] = true
		taken := false
		for _, f := range m.flows[w] {
			taken = taken || f == modelFlow{r.Slot, port, backend}
		}
		if !taken && len(seen) > refuse {
			p.Take(r.Slot, port)
			m.flows[w] = append(m.flows[w], modelFlow{r.Slot, port, backend})
			return
		}
	}
}

// end ends one flow and checks what became of its block.
func (m *portsModel) end(w, i int) {
	f := m.flows[w][i]
	last := len(m.flows[w]) - 1
	m.flows[w][i] = m.flows[w][last]
	m.flows[w] = m.flows[w][:last]
	block := f.port / BlockPorts
	want := m.count(w, f.slot, block) > 0 || m.empties(w, f.slot) == 1 && portsIn([]uint16{block}, m.ranges[w][f.slot]) > 0
	m.workers[w].Free(f.slot, f.port)
	if kept := slices.Contains(m.owned(f.slot, w), block); kept != want {
		m.t.Fatalf("block %d of slot %d: kept %v, want %v", block, f.slot, kept, want)
	}
}

func (m *portsModel) check() {
	for w, p := range m.workers {
		owned := [modelSlots][]uint16{m.owned(0, w), m.owned(1, w)}
		for slot, r := range m.ranges[w] {
			has := portsIn(owned[slot], r) > 0
			if had := m.had[w][slot] == r; had && !has {
				m.t.Fatalf("worker %d had a block of %v and has none", w, r)
			}
			if m.had[w][slot] = (Range{}); has {
				m.had[w][slot] = r
			}
		}
		if blocks, flows := p.InUse(); blocks != len(owned[0])+len(owned[1]) || flows != len(m.flows[w]) {
			m.t.Fatalf("worker %d: %d blocks and %d flows in use, want %d and %d", w, blocks, flows, len(owned[0])+len(owned[1]), len(m.flows[w]))
		}
		for _, f := range m.flows[w] {
			if !slices.Contains(owned[f.slot], f.port/BlockPorts) {
				m.t.Fatalf("worker %d: the block of %+v is not its own", w, f)
			}
		}
	}
}

// run takes four bytes for each step.
func (m *portsModel) run(data []byte) {
	ranges := []Range{{0, 1024, 65535}, {0, 1000, 1420}, {1, 130, 190}, {1, 65500, 65535}, {0, 2000, 1999}}
	for ; len(data) >= 4; data = data[4:] {
		w := int(data[0] % 3)
		hash := (uint64(data[1]) + 1) * (uint64(data[2]) + 1) * 0x9e3779b97f4a7c15
		switch op := data[0] / 3 % 8; {
		case op == 7 && data[3]%4 == 0:
			m.start(w)
		case op == 7:
			m.hold(w, ranges[int(data[2])%len(ranges)], hash)
		case op >= 4:
			for range data[3]%32 + 1 {
				if n := len(m.flows[w]); n > 0 {
					m.end(w, int(hash>>32)%n)
				}
			}
		default:
			refuse := 0
			if data[3] >= 0xf0 {
				refuse = int(data[3]&0xf) * 10
			}
			m.open(w, uint16(data[2]%modelSlots), hash, data[3]%2, refuse)
		}
		m.check()
	}
}

func TestPortsAgainstModel(t *testing.T) {
	steps := 2000
	if testing.Short() {
		steps = 500
	}
	rng := random(8)
	data := make([]byte, steps*4)
	for i := range data {
		data[i] = byte(rng.Uint32())
		if i%4 == 0 && data[i]/3%8 == 7 && rng.IntN(4) > 0 {
			data[i] = byte(rng.IntN(12)) // ends and other ranges are rare, or nothing fills up
		}
	}
	newPortsModel(t).run(data)
}

func FuzzPorts(f *testing.F) {
	f.Add([]byte{0, 1, 1, 0, 1, 2, 1, 0, 2, 3, 1, 0, 12, 0, 0, 9})       // three workers, a small range
	f.Add([]byte{0, 1, 0, 0xff, 0, 2, 0, 0xf1, 0, 2, 0, 0xfe})           // refused ports
	f.Add([]byte{0, 1, 2, 0, 1, 1, 2, 0, 21, 0, 0, 0, 1, 1, 2, 0})       // an end leaves room
	f.Add([]byte{21, 0, 4, 1, 0, 7, 0, 0, 12, 0, 0, 31, 12, 0, 0, 0})    // empty range, nothing to end
	f.Add([]byte{0, 7, 0, 0, 21, 3, 1, 1, 0, 9, 0, 0, 12, 0, 0, 31, 12}) // another range
	f.Fuzz(func(t *testing.T, data []byte) {
		newPortsModel(t).run(data[:min(len(data), 400)])
	})
}

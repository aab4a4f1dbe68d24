package nat

import "slices"

const (
	// MaxCandidates is how many ports a Search yields at most, as
	// NF_NAT_MAX_ATTEMPTS in Linux's net/netfilter/nf_nat_core.c.
	MaxCandidates = 128

	// Patience is how many refused candidates it takes until a worker wants
	// another block, although it has ports left to try. With a port in two in
	// use towards a backend, that is 1 search in 256.
	Patience = 8

	// maxEmpty is how many blocks without a flow a worker keeps of an address.
	// With one, neither the worker's last flow nor one more than fits into a
	// block makes it claim and release in turn; and who has one block has one
	// for good.
	maxEmpty = 1
)

// Range is the ports of a SNAT address that flows may use: Lo to Hi, both
// inclusive. If Lo is greater than Hi there are none.
type Range struct {
	Slot   uint16 // from Space.Slot
	Lo, Hi uint16
}

// Ports is what one worker owns of a Space, and how many flows use it.
//
// It has 8 bytes for each block and nothing for a port: whether a port is free
// for a flow depends on the flow's backend, and only the caller's Index knows.
type Ports struct {
	space  *Space
	worker uint16
	held   [MaxAddresses]holding
	blocks int // in all of held
	flows  int // in all of held
}

// holding is the own blocks of one address. They are sorted, so that a port's
// block is found by bisection and those of a range are neighbours.
type holding struct {
	blocks []block
	empty  int32  // how many have no flow
	lo, hi uint16 // ports that flows may use, see Hold; none if lo is greater
}

// outside tells whether flows may use no port of a block.
func (h *holding) outside(number uint16) bool {
	return h.lo > h.hi || number < h.lo/BlockPorts || number > h.hi/BlockPorts
}

type block struct {
	number uint16
	flows  uint32 // with a port of the block; several can have the same
}

// NewPorts returns the Ports of a worker, which owns nothing yet; they take
// 128 KiB. The number is the caller's, and no two workers have the same.
func NewPorts(space *Space, worker uint16) *Ports {
	p := &Ports{space: space, worker: worker}
	for slot := range p.held {
		p.held[slot].lo = 1 // and hi is 0
	}
	return p
}

// Hold says which ports of an address flows may use from now on; before the
// first call there are none. Blocks outside r go back to the space as soon as
// they have no flow.
//
// It also sees to it that this worker has a block of r, claiming one if need be:
// having one, it never is without again. Else a worker that needs its first port
// late, in a flood say, would find that others have them all, and would have no
// flow of its own to take one from. Hold reports false if there is no block
// left; to call it again does no harm.
//
// Where it begins to look for a block follows from hash, as with Begin. It may
// allocate.
func (p *Ports) Hold(r Range, hash uint64) bool {
	h := &p.held[r.Slot]
	if h.lo != r.Lo || h.hi != r.Hi {
		h.lo, h.hi = r.Lo, r.Hi
		h.blocks = slices.DeleteFunc(h.blocks, func(b block) bool {
			gone := b.flows == 0 && h.outside(b.number)
			if gone {
				p.dropped(h, r.Slot, b.number)
			}
			return gone
		})
	}
	if i := h.find(r.Lo / BlockPorts); i < len(h.blocks) && !h.outside(h.blocks[i].number) {
		return true
	}
	_, _, ok := p.claim(r, hash)
	return ok
}

// Search is a walk over the ports a flow may get, which Ports.Begin begins and
// Ports.Next advances.
//
// It goes row by row over a table with a column for each own block in the range
// and 64 rows: it tries a port in every block before a second one in any. Where
// it begins and the order of the rows follow from the hash. A block claimed on
// the way is no column: it is gone through by itself, at once, because nearly
// always its first port is free.
type Search struct {
	r    Range
	hash uint64

	first, columns uint16 // the own blocks in the range when the search began
	start          uint16 // column that each row begins with
	column, row    uint16 // next of the walk; it is over when row is BlockPorts
	inserted       uint16 // index of the claimed block: columns from there on have moved by one

	claimed uint16 // block claimed last
	place   uint16 // next row in it; BlockPorts if there is none
	tried   uint8
	asked   bool // whether the space was asked for a block
}

// Begin makes s a search for a port of an address, in the range of Hold. hash is
// the flow's, evenly spread in all bits and keyed with a secret, as
// flow.Table.Hash returns it.
func (p *Ports) Begin(s *Search, slot uint16, hash uint64) {
	h := &p.held[slot]
	*s = Search{}
	s.r.Slot, s.r.Lo, s.r.Hi = slot, h.lo, h.hi
	s.hash, s.inserted, s.place = hash, blocksPerAddress, BlockPorts
	first := h.find(h.lo / BlockPorts)
	s.first, s.columns = uint16(first), uint16(max(0, h.find(h.hi/BlockPorts+1)-first))
	if s.columns == 0 {
		s.row = BlockPorts
	}
	s.start = uint16(((hash >> 32) * uint64(s.columns)) >> 32)
	s.column = s.start
}

// Next returns the next port to try, and reports false when there is none. Each
// is in a block that this worker owns, and in the range; none is returned twice;
// and if fewer than MaxCandidates are returned, they are all there are. The
// caller calls Take for the one it chooses, and Free and Hold of the same
// address, if need be, only after the search.
//
// It claims another block from the space after 8 ports that were refused, once,
// and whenever it has no more port to try. Claiming can allocate, so that there
// are at most 16 bytes for each block; without it nothing is allocated.
func (p *Ports) Next(s *Search) (port uint16, ok bool) {
	for s.tried < MaxCandidates {
		// A worker with more empty blocks than it keeps had its callers refuse
		// ports that are free: they shall not get it the whole space.
		if s.tried == Patience && !s.asked && p.held[s.r.Slot].empty <= maxEmpty {
			p.extend(s)
		}
		switch {
		case s.place < BlockPorts:
			port = s.port(s.claimed, s.place)
			s.place++
		case s.row < BlockPorts:
			i := s.first + s.column
			if i >= s.inserted {
				i++
			}
			blocks := p.held[s.r.Slot].blocks
			if int(i) >= len(blocks) {
				return 0, false // Free was called meanwhile
			}
			port = s.port(blocks[i].number, s.row)
			if s.column++; s.column == s.columns {
				s.column = 0
			}
			if s.column == s.start {
				s.row++
			}
		default:
			if !p.extend(s) {
				return 0, false
			}
			continue
		}
		if s.r.Lo <= port && port <= s.r.Hi {
			s.tried++
			return port, true
		}
	}
	return 0, false
}

// port returns the port that block has in a row. An odd stride reaches all 64.
func (s *Search) port(block, row uint16) uint16 {
	base, stride := uint16(s.hash), uint16(s.hash>>6)|1
	return block*BlockPorts + (base+row*stride)%BlockPorts
}

// extend adds a block of the space to the own ones and lets the search go on
// there. It reports false if there is none.
func (p *Ports) extend(s *Search) bool {
	s.asked = true
	number, i, ok := p.claim(s.r, s.hash)
	if ok {
		s.claimed, s.place, s.inserted = number, 0, uint16(i)
	}
	return ok
}

// claim adds a block of the space to the own ones. It returns the block's number
// and where it is among them, and reports false if there is none.
func (p *Ports) claim(r Range, hash uint64) (number uint16, i int, ok bool) {
	lo, hi := r.Lo/BlockPorts, r.Hi/BlockPorts
	from := lo + uint16(((hash>>16&0xffff)*uint64(hi-lo+1))>>16)
	if number, ok = p.space.Claim(r.Slot, p.worker, r.Lo, r.Hi, from); !ok {
		return 0, 0, false
	}
	h := &p.held[r.Slot]
	i = h.find(number)
	h.blocks = slices.Insert(h.blocks, i, block{number: number})
	h.empty++
	p.blocks++
	return number, i, true
}

// dropped gives an empty block back to the space, and counts it off.
func (p *Ports) dropped(h *holding, slot, number uint16) {
	p.space.Release(slot, number)
	h.empty--
	p.blocks--
}

// find returns the index of the first own block whose number is not less.
func (h *holding) find(number uint16) int {
	lo, hi := 0, len(h.blocks)
	for lo < hi {
		middle := (lo + hi) / 2
		if h.blocks[middle].number < number {
			lo = middle + 1
		} else {
			hi = middle
		}
	}
	return lo
}

// own returns the index of the block that port is in, -1 if it is not owned.
func (h *holding) own(port uint16) int {
	i := h.find(port / BlockPorts)
	if i == len(h.blocks) || h.blocks[i].number != port/BlockPorts {
		return -1
	}
	return i
}

// Take counts a flow that has port now. The port is one that Next returned;
// for any other nothing is counted.
func (p *Ports) Take(slot, port uint16) {
	h := &p.held[slot]
	i := h.own(port)
	if i < 0 {
		return
	}
	if h.blocks[i].flows == 0 {
		h.empty--
	}
	h.blocks[i].flows++
	p.flows++
}

// Free counts a flow less: one for which Take was called, with the same port.
// When it was the last one of its block, the block goes back to the space
// unless it is the only empty one of the address, in the range of Hold.
func (p *Ports) Free(slot, port uint16) {
	h := &p.held[slot]
	i := h.own(port)
	if i < 0 || h.blocks[i].flows == 0 {
		return
	}
	h.blocks[i].flows--
	p.flows--
	if h.blocks[i].flows > 0 {
		return
	}
	h.empty++
	if number := h.blocks[i].number; h.empty > maxEmpty || h.outside(number) {
		h.blocks = slices.Delete(h.blocks, i, i+1)
		p.dropped(h, slot, number)
	}
}

// InUse returns how many blocks this worker owns and how many flows have a port
// in them, over all addresses.
func (p *Ports) InUse() (blocks, flows int) { return p.blocks, p.flows }

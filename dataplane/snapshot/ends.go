package snapshot

// ends finds the slots of backends by an address that packets from or to them
// have. What is in it may be out of date, as the backends' state is not in it:
// whoever asks looks at the backend as well. So it stays the same, and is shared,
// when backends come and go, and it is built again only for those that are new.
type ends struct {
	heads []end    // an open-addressing hash table like vipTable's; none if it is empty
	next  []uint32 // by slot: the next one with the same address, plus one; 0 for none
}

// end is the first slot with an address, plus one; 0 is a free place.
type end struct {
	addr [16]byte
	slot uint32
}

// newEnds makes the ends of those slots for which address returns one.
func newEnds(slots int, address func(slot uint32) (addr [16]byte, ok bool)) *ends {
	e := &ends{}
	var members []end
	for slot := range uint32(slots) {
		if addr, ok := address(slot); ok {
			members = append(members, end{addr, slot + 1})
		}
	}
	if len(members) == 0 {
		return e
	}
	size := 2
	for size < 2*len(members) {
		size *= 2
	}
	e.heads, e.next = make([]end, size), make([]uint32, slots)
	for _, m := range members {
		head := e.place(&m.addr)
		e.next[m.slot-1] = head.slot
		*head = m
	}
	return e
}

// place returns the place of an address, or the free one where it would be.
func (e *ends) place(addr *[16]byte) *end {
	mask := uint64(len(e.heads) - 1)
	for i := hashAddr(addr) & mask; ; i = (i + 1) & mask {
		if p := &e.heads[i]; p.slot == 0 || p.addr == *addr {
			return p
		}
	}
}

// first returns the first slot with an address, and after the one that follows it;
// None if there is none (any more).
func (e *ends) first(addr *[16]byte) uint32 {
	if len(e.heads) == 0 {
		return None
	}
	return e.place(addr).slot - 1
}

func (e *ends) after(slot uint32) uint32 { return e.next[slot] - 1 }

// has tells whether a slot is found by an address.
func (e *ends) has(addr *[16]byte, slot uint32) bool {
	for at := e.first(addr); at != None; at = e.after(at) {
		if at == slot {
			return true
		}
	}
	return false
}

func (e *ends) empty() bool { return len(e.heads) == 0 }

// addEnds makes it possible to find the backends that leave the clients' addresses,
// and those behind tunnels.
func (s *Snapshot) addEnds(before *Snapshot, changed []uint32) {
	s.tunnels = s.endsOf(before, changed, func(s *Snapshot) *ends { return s.tunnels }, (*Snapshot).tunnelEnd)
	s.keepers = s.endsOf(before, changed, func(s *Snapshot) *ends { return s.keepers }, (*Snapshot).keeperEnd)
}

func (s *Snapshot) endsOf(before *Snapshot, changed []uint32, of func(*Snapshot) *ends, address func(*Snapshot, uint32) ([16]byte, bool)) *ends {
	mine := func(slot uint32) ([16]byte, bool) { return address(s, slot) }
	if before == nil {
		return newEnds(s.Slots(), mine)
	}
	old := of(before)
	for _, slot := range changed {
		if addr, ok := mine(slot); ok && (int(slot) >= before.Slots() || !old.has(&addr, slot)) {
			return newEnds(s.Slots(), mine)
		}
	}
	return old
}

func (s *Snapshot) tunnelEnd(slot uint32) ([16]byte, bool) { return s.Backend(slot).Rewrite.Outer() }

func (s *Snapshot) keeperEnd(slot uint32) ([16]byte, bool) {
	b := s.Backend(slot)
	return b.Addr, b.State != Removed && s.Services[b.Service].Mode == NATKeep
}

// addAnswers notes on which ports the services that leave the clients' addresses
// are.
func (s *Snapshot) addAnswers(vips []VIPSpec) {
	if s.keepers.empty() {
		return
	}
	s.answers = make([][]VIPSpec, len(s.Services))
	for _, v := range vips {
		if s.Services[v.Service].Mode == NATKeep {
			s.answers[v.Service] = append(s.answers[v.Service], v)
		}
	}
}

// IsAnswer tells whether a packet from this address and port can be the answer
// of a backend that sees its clients' addresses.
func (s *Snapshot) IsAnswer(addr *[16]byte, proto uint8, port uint16) bool {
	for slot := s.keepers.first(addr); slot != None; slot = s.keepers.after(slot) {
		b := s.Backend(slot)
		if b.State == Removed || b.Addr != *addr || int(b.Service) >= len(s.answers) {
			continue
		}
		for i := range s.answers[b.Service] {
			v := &s.answers[b.Service][i]
			if v.Proto == proto && (b.Port == port || b.Port == 0 && v.Lo <= port && port <= v.Hi) {
				return true
			}
		}
	}
	return false
}

// HasAnswers is false if IsAnswer is true of nothing.
func (s *Snapshot) HasAnswers() bool { return !s.keepers.empty() }

// HasTunnels is false if IsTunnel is true of nothing.
func (s *Snapshot) HasTunnels() bool { return !s.tunnels.empty() }

// IsTunnel tells whether weir's tunnels have packets with these outer addresses.
func (s *Snapshot) IsTunnel(src, dst *[16]byte) bool {
	for slot := s.tunnels.first(dst); slot != None; slot = s.tunnels.after(slot) {
		rw := &s.Backend(slot).Rewrite
		if to, ok := rw.Outer(); ok && to == *dst && rw.IsSource(src) {
			return true
		}
	}
	return false
}

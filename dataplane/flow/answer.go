package flow

import "weir/dataplane/prefetch"

// The packets of NAT flows go both ways, and an answer has another tuple than
// what it answers. The caller finds the flow by an index of its own, from that
// tuple to the number of the flow's place. The methods here take such numbers.
// The number of a flow stays the same for as long as the table has it.

// place returns the header and the way of a place with a flow in it, nil if
// there is none.
func (t *Table) place(number uint32) (h *header, way int) {
	set := uint64(number / setLines)
	way = int(number%setLines) - 1
	if set >= uint64(len(t.sets)) || way < 0 {
		return nil, 0
	}
	h = &t.sets[set].header
	if h.status[way] == 0 {
		return nil, 0
	}
	return h, way
}

// PrefetchAt asks for what At, Answered and KnownAnswer will read for these numbers.
func (t *Table) PrefetchAt(numbers []uint32) {
	prefetch.Elements(t.lines, numbers)
	var sets [Group]uint32
	for len(numbers) > 0 {
		n := min(len(numbers), Group)
		for i, number := range numbers[:n] {
			sets[i] = number / setLines
		}
		prefetch.Elements(t.sets, sets[:n])
		numbers = numbers[n:]
	}
}

// At returns the flow with this number, live or over, and nil if there is none.
// It changes nothing.
func (t *Table) At(number uint32) *Entry {
	if h, _ := t.place(number); h == nil {
		return nil
	}
	return t.Found(number)
}

// Answered notes a packet of the backend for the flow with this number: last
// seen now, and the state that seg leads to. It returns false, and notes
// nothing, if there is no such flow or it was idle for too long.
//
// An answer makes no flow trusted: anybody's SYN gets one, and so does anybody's
// question by UDP. The client's next packet does.
func (t *Table) Answered(number uint32, seg Segment, now Tick) bool {
	h, i := t.place(number)
	if h == nil {
		return false
	}
	status := uint32(h.status[i])
	s := State(status & stateMask)
	if h.idle(i, now) > t.limit[s] {
		return false
	}
	if !settled(status, seg.Flags) {
		next := step(status, seg.Flags, fromBackend)
		h.status[i] = uint8(next)
		t.tellReset(number, status, next)
	}
	h.seen[i] = now
	return true
}

// KnownAnswer is to Answered what Known is to Lookup: it notes a packet of the
// backend if the flow with this number is trusted, its mark is mark, and the
// packet changes nothing but when the flow was last seen. Else it returns false and
// has done nothing.
func (t *Table) KnownAnswer(number uint32, tcpFlags uint8, mark uint32, now Tick) bool {
	set, i := number/setLines, number%setLines-1
	if uint64(set) >= uint64(len(t.sets)) || i >= ways {
		return false
	}
	s := &t.sets[set]
	h := &s.header
	status := uint32(h.status[i])
	if s.entries[i].mark != mark || !settled(status, tcpFlags) || h.idle(int(i), now) > t.limit[status&stateMask] {
		return false
	}
	h.seen[i] = now
	return true
}

// StateOf returns the state of the flow with this number, live or over, and
// StateNone if there is none.
func (t *Table) StateOf(number uint32) State {
	h, i := t.place(number)
	if h == nil {
		return StateNone
	}
	return h.state(i)
}

// Idle returns for how long neither side of the flow with this number was seen,
// in ticks; 0 if there is none.
func (t *Table) Idle(number uint32, now Tick) Tick {
	h, i := t.place(number)
	if h == nil {
		return 0
	}
	return Tick(max(0, h.idle(i, now)))
}

// Reusable tells whether a new flow may take what this one holds, its SNAT port
// say. It may if nothing is to come any more: ended is true for a connection
// that was reset or finished by both sides, for a flow that was idle for too
// long, and if there is none. And it may in need if the flow is untrusted.
func (t *Table) Reusable(number uint32, now Tick) (ended, untrusted bool) {
	h, i := t.place(number)
	if h == nil {
		return true, false
	}
	s := h.state(i)
	return s.ended() || h.idle(i, now) > t.limit[s], h.status[i]&trusted == 0
}

// DeleteAt removes the flow with this number, live or over, and returns a copy
// of it; ok is false if there was none.
func (t *Table) DeleteAt(number uint32) (gone Entry, ok bool) {
	h, i := t.place(number)
	if h == nil {
		return gone, false
	}
	h.free(i)
	t.len--
	return *t.Found(number), true
}

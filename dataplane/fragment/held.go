package fragment

import "math/bits"

// Meta is what has to be remembered with a held frame.
type Meta struct {
	Ingress uint16 // index into Snapshot.Interfaces of where it came in
}

const (
	// maxHeld is how many fragments of one datagram are held: all but the
	// first of the largest one at IPv6's least MTU of 1,280 bytes, backwards.
	maxHeld = 64

	// frameShare is the bytes of a store for which there is one record: less
	// than most frames have that are worth being held.
	frameShare = 512
)

// record is one held frame.
type record struct {
	at, size int // in store.memory
	datagram int // index of its datagram; taken if it is held no more
	next     uint32
	meta     Meta
}

const taken = -1

// store keeps held frames in the order in which they came, in a ring of bytes
// and a ring of records. When either is full, what has waited for longest goes:
// under a flood, the fragments that are really about to be joined by their
// first one are among the newest.
type store struct {
	memory []byte
	write  int // where in memory the next frame goes

	// Records oldest to newest-1 are in use; number n is at n & mask.
	records        []record
	mask           uint32
	oldest, newest uint32

	held int // records in use that are not taken
}

func newStore(size int) store {
	n := 1 << bits.Len(uint(max(1, size/frameShare)-1))
	return store{memory: make([]byte, size), records: make([]record, n), mask: uint32(n - 1)}
}

func (s *store) record(n uint32) *record { return &s.records[n&s.mask] }

// oldestHeld returns the datagram of the frame that has been held for longest,
// and frees the room of those before it, which are taken.
func (s *store) oldestHeld() (datagram int, ok bool) {
	for s.oldest != s.newest {
		if r := s.record(s.oldest); r.datagram != taken {
			return r.datagram, true
		}
		s.oldest++
	}
	return 0, false
}

// room returns where size bytes, at least one, are free.
func (s *store) room(size int) (at int, ok bool) {
	if s.oldest == s.newest {
		return 0, size <= len(s.memory)
	}
	if s.newest-s.oldest == uint32(len(s.records)) {
		return 0, false
	}
	switch oldest := s.record(s.oldest).at; {
	case s.write <= oldest: // the newest frames are before the oldest
		return s.write, size <= oldest-s.write
	case size <= len(s.memory)-s.write:
		return s.write, true
	default:
		return 0, size <= oldest
	}
}

// add copies frame to where there is room and returns its record's number.
func (s *store) add(at int, frame []byte, datagram int, meta Meta) uint32 {
	n := s.newest
	*s.record(n) = record{at: at, size: len(frame), datagram: datagram, meta: meta}
	s.write = at + copy(s.memory[at:], frame)
	s.newest++
	s.held++
	return n
}

// Hold keeps a copy of frame, a fragment for which Track has just returned Hold.
// It returns false if it was not kept, because too many fragments of the
// datagram are: the caller counts it as FragmentLost. Where there is no room,
// those held for longest make it.
func (t *Table) Hold(k *Key, frame []byte, meta Meta) bool {
	i := t.find(k)
	if i < 0 || len(frame) == 0 || len(frame) > len(t.store.memory) {
		return false
	}
	d := &t.datagrams[i]
	for d.state == waiting && d.held < maxHeld {
		oldest, any := t.store.oldestHeld()
		if at, ok := t.store.room(len(frame)); ok {
			n := t.store.add(at, frame, i, meta)
			if d.held == 0 {
				d.first = n
			} else {
				t.store.record(d.last).next = n
			}
			d.last = n
			d.held++
			return true
		}
		if !any {
			return false
		}
		t.giveUp(oldest)
	}
	return false
}

// Next takes out the oldest held fragment of datagram k, whose first fragment
// has come, until ok is false. The frame is good until the next Hold.
func (t *Table) Next(k *Key) (frame []byte, meta Meta, ok bool) {
	i := t.find(k)
	if i < 0 || t.datagrams[i].state != known || t.datagrams[i].held == 0 {
		return nil, Meta{}, false
	}
	r := t.takeHeld(&t.datagrams[i])
	t.forgetComplete(i)
	return t.store.memory[r.at : r.at+r.size : r.at+r.size], r.meta, true
}

// takeHeld takes the oldest held fragment of d, which has one, out of the
// store. Its bytes stay where they are until a frame is added.
func (t *Table) takeHeld(d *datagram) *record {
	r := t.store.record(d.first)
	r.datagram = taken
	d.first = r.next
	d.held--
	t.store.held--
	return r
}

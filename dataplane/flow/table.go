// Package flow remembers, for one worker, which backend each flow went to.
//
// The problem it solves: Maglev alone sends a flow elsewhere when the set of
// backends changes under it, and NAT cannot work without memory at all. But a
// table that grows with the traffic is a gift to whoever sends a flood, and
// one shared by workers needs locks. So each worker owns a Table of a size
// fixed at the start, outside the Go heap, in which nothing is allocated or
// locked afterwards. When there is no room, a flow that is over makes it, else
// one that has shown a single packet only (it is untrusted: a flood consists of
// such), else one that was quiet for more than a minute. Flows in use stay, and
// the new one gets no entry. What is lost is only the memory: without NAT, the
// next packet goes where Maglev says, which is nearly always the same backend.
//
// # Layout
//
// A set is eight places for flows whose hashes share their low bits. It is nine
// cache lines: a header, which has for each place a tag, which is 15 bits of the
// hash, the State and whether the flow is trusted, and the Tick it was last seen
// at; and behind it the Entry of each place. The number of a place is that of its
// line in the table.
//
//	header   | tags 8 x 16 bits | status 8 x 8 bits | last seen 8 x 32 bits |
//	entry    | tuple | delta | backend | generation | mark | NAT             |
//
// So a packet of a known flow touches two lines, one of an unknown flow touches
// one, and expiry, eviction and the state of a flow's answers need headers only.
// Both lines are in the same page of memory, in 93 of 100 places even if that has
// 4 KiB, so the processor looks up one address and not two. All eight tags of a set
// are compared at once (see match).
//
// # Batches
//
// What a packet costs here is the wait for those two lines, when there are many
// flows. So a batch is looked up in steps, each over all of it: Hash and Ahead,
// Prefetch, and only then Known or Lookup. In the first steps the processor is told
// what the next one is going to read, and goes on with other packets meanwhile. A
// load would not do: instructions leave a processor in order, so behind one that
// waits there is soon no room for more (see package prefetch).
//
// # Ownership
//
// A Table belongs to one goroutine: nothing in it is safe for two.
package flow

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"weir/dataplane/packet"
	"weir/dataplane/prefetch"
)

// TicksPerSecond is the resolution of a Tick.
const TicksPerSecond = 16

// Tick is a time in 1/16 s since the worker's start. It wraps after 8.5 years,
// so two of them are compared by their difference.
type Tick uint32

// TickAt returns the Tick of a time since the worker's start, rounded down.
func TickAt(sinceStart time.Duration) Tick {
	return Tick(sinceStart / (time.Second / TicksPerSecond))
}

// Entry is one flow: exactly a cache line. Delta, Backend, Generation and NAT are the
// caller's: it may change them at any time while it holds the pointer, and the
// table reads none of them. The rest it must leave alone.
//
// A pointer to an Entry is good until the next Insert, Delete, DeleteAt or
// Sweep, which may give the place to another flow, and until Close, which takes
// the memory away.
type Entry struct {
	Tuple      packet.Tuple // as given to Insert
	Delta      packet.Delta // under NAT: what it does to a checksum of the client's packets
	Backend    uint32       // slot number in the snapshot
	Generation uint32       // of the snapshot Backend was checked against

	_ [4]byte

	// mark is, until the flow is trusted, the sequence number of the client's
	// last TCP segment; after that it is what Mark has set, at first 0.
	mark uint32

	NAT NATState
}

// NATState is what NAT keeps of a flow. All of it is the caller's, and zero at
// Insert.
type NATState struct {
	Slot    uint16 // of the SNAT address
	Port    uint16 // the SNAT port
	Station uint16 // that the client's latest packet came from
	Flags   uint8
}

// Eviction says what had to go for a flow to be inserted.
type Eviction uint8

const (
	// EvictedNone: the place was free, or there was none to be had.
	EvictedNone Eviction = iota
	// EvictedEnded: the flow there was over (idle for too long, reset, finished
	// by both sides, or the same tuple again) and no Sweep had come by yet.
	EvictedEnded
	// EvictedUntrusted: the set was full of live flows, and of those that have
	// not shown a second packet in sequence the one quiet for longest was given
	// up. A flood does this, or a table that is too small.
	EvictedUntrusted
	// EvictedOldest: all flows of the set were trusted, and the one quiet for
	// longest, for more than a minute, was given up. A steady rate of these
	// says the table is too small.
	EvictedOldest
)

const (
	ways       = 8       // places in a set
	setLines   = 9       // cache lines of a set: of its header, and of its places
	maxEntries = 1 << 30 // 72 GiB
)

// Table is a connection table of fixed size.
type Table struct {
	sets    []set   // a power of two of them
	lines   []Entry // the same memory by cache lines, most of which are an Entry
	mask    uint64  // number of sets - 1
	limit   limits
	keys    Keys
	len     int
	cursor  uint64 // next set of Sweep
	evicted Entry  // by the latest Insert
	memory  []byte // what the sets are in; nil after Close
	noted   func(*Entry, Event)
}

// New returns an empty table with room for entries flows, rounded up to a power
// of two and to at least 8. It takes 72 bytes for each, in huge pages if the
// kernel has them, and all of it at once, so that no packet waits for a page
// and a box that is too small shows it at the start. Close gives it back.
//
// Sets do not fill evenly, so there is no room for some flows, or only another
// one's, before the table is full: with a flow for every second entry for about
// 1 in 100, for every fourth for about 1 in 6000. Where that hurts (NAT), ask
// for four times the flows.
func New(entries int, timeouts Timeouts) (*Table, error) {
	if entries < 1 || entries > maxEntries {
		return nil, fmt.Errorf("new flow table: %d entries, must be 1 to %d", entries, maxEntries)
	}
	limit, err := timeouts.ticks()
	if err != nil {
		return nil, fmt.Errorf("new flow table: %w", err)
	}
	sets := max(1, 1<<bits.Len(uint(entries-1))/ways)
	t := &Table{mask: uint64(sets - 1), limit: limit, keys: NewKeys()}
	if err := t.mapMemory(sets); err != nil {
		return nil, fmt.Errorf("new flow table: %w", err)
	}
	return t, nil
}

// Len returns the number of flows in the table, with those that are over but
// that no Sweep or Insert has removed yet.
func (t *Table) Len() int { return t.len }

// Cap returns how many flows fit.
func (t *Table) Cap() int { return len(t.sets) * ways }

// LongestTimeout returns in ticks after how long without a packet any flow is
// over.
func (t *Table) LongestTimeout() int32 { return slices.Max(t.limit[:]) }

// Sets returns the number of sets, for Sweep and Range.
func (t *Table) Sets() int { return len(t.sets) }

// NoPlace is the number of no place.
const NoPlace = ^uint32(0)

// Group is how many hashes Ahead is best called with, a power of two: so many share the
// price of the call, some nanoseconds, and most of a batch is still to come.
const Group = 16

// Ahead asks for what Prefetch reads for these hashes, and does not wait for it: for
// that there is the time until Prefetch is called. Without it Prefetch waits for each.
func (t *Table) Ahead(hashes []uint64) {
	prefetch.Hashed(t.sets, hashes)
}

// Prefetch asks for what Known and Lookup will read for these hashes, and what Insert
// will write, and puts into places for each hash the number of the place that its flow
// is in, if it is there, for Known; else any number. Both slices are of the same length.
func (t *Table) Prefetch(hashes []uint64, places []uint32) {
	sets := t.sets
	if len(sets) == 0 || len(places) < len(hashes) {
		return
	}
	places = places[:len(hashes)]
	for i, hash := range hashes {
		number := hash & uint64(len(sets)-1)
		h := &sets[number].header
		m := h.match(hash)
		if m == 0 { // where Insert is going to put it, probably
			m = h.vacancy()
		}
		places[i] = uint32(number*setLines + 1 + uint64(m.first()))
		if i%Group == Group-1 {
			prefetch.Elements(t.lines, places[i+1-Group:i+1])
		}
	}
	prefetch.Elements(t.lines, places[len(places)&^(Group-1):])
}

// Known notes packets as Lookup does as long as they are of known flows, and returns
// how many those are. A flow is known to a packet if it is there and trusted, its
// mark is mark, and the packet changes nothing but when the flow was last seen. Of
// the packet after those Known has noted nothing, and Lookup tells what there is.
// places are what Prefetch has found for the packets, at whatever time since; Found
// returns their entries.
//
// It is what nearly all packets need, in as few steps as can be.
func (t *Table) Known(places []uint32, packets []packet.Parsed, mark uint32, now Tick) int {
	sets := t.sets
	packets = packets[:len(places)]
	for n, place := range places {
		p := &packets[n]
		number, i := place/setLines, place%setLines-1
		if uint64(number) >= uint64(len(sets)) || i >= ways {
			return n
		}
		s := &sets[number]
		h, e := &s.header, &s.entries[i]
		status := uint32(h.status[i])
		if e.mark != mark || !settled(status, p.TCPFlags) || !same(&e.Tuple, &p.Tuple) || h.idle(int(i), now) > t.limit[status&stateMask] {
			return n
		}
		if h.seen[i] != now { // a line that is not written to need not be written back
			h.seen[i] = now
		}
	}
	return len(places)
}

// Found returns the entry in a place that Known has found a flow in just now.
func (t *Table) Found(place uint32) *Entry { return &t.lines[place] }

// Mark sets what Known compares, if the flow is trusted: a number that the caller
// gives a meaning to, and that is not 0. e is an entry of this table.
func (t *Table) Mark(e *Entry, mark uint32) {
	if h, i := t.place(t.Number(e)); h.status[i]&trusted != 0 {
		e.mark = mark
	}
}

// find returns the set and the place of k, -1 if it is not there. It does not
// look at the time.
func (t *Table) find(hash uint64, k *packet.Tuple) (s *set, way int) {
	s = &t.sets[hash&t.mask]
	for m := s.header.match(hash); m != 0; m = m.next() {
		if i := m.first(); same(&s.entries[i].Tuple, k) {
			return s, i
		}
	}
	return s, -1
}

// same is a == b without a call. Every hit pays for it, and with the comparison
// of 37 bytes that the compiler makes, a hit in the cache takes half as long
// again.
func same(a, b *packet.Tuple) bool {
	return (binary.LittleEndian.Uint64(a.Src[0:])^binary.LittleEndian.Uint64(b.Src[0:]))|
		(binary.LittleEndian.Uint64(a.Src[8:])^binary.LittleEndian.Uint64(b.Src[8:]))|
		(binary.LittleEndian.Uint64(a.Dst[0:])^binary.LittleEndian.Uint64(b.Dst[0:]))|
		(binary.LittleEndian.Uint64(a.Dst[8:])^binary.LittleEndian.Uint64(b.Dst[8:]))|
		uint64(a.SrcPort^b.SrcPort)|uint64(a.DstPort^b.DstPort)|uint64(a.Proto^b.Proto) == 0
}

// Lookup returns the flow k belongs to and notes the packet, which came from
// the client: last seen now, and the state and trust that seg leads to (ignored for
// what is not TCP). It returns nil if there is no such
// flow, if it was idle for too long, or if this packet opens a new connection
// where one was closed: then the backend is to be chosen anew, and Insert to be
// called.
func (t *Table) Lookup(hash uint64, k *packet.Tuple, seg Segment, now Tick) *Entry {
	s, i := t.find(hash, k)
	if i < 0 {
		return nil
	}
	h := &s.header
	status := uint32(h.status[i])
	if h.idle(i, now) > t.limit[status&stateMask] {
		return nil
	}
	e := &s.entries[i]
	if !settled(status, seg.Flags) {
		if reopens(status, seg.Flags) {
			return nil
		}
		next := step(status, seg.Flags, fromClient)
		if status&trusted == 0 {
			next |= e.vouch(State(status&stateMask), seg)
		}
		h.status[i] = uint8(next)
		if State(status&stateMask) == StateSYN {
			t.tellOpening(e, next, seg.Flags)
		}
	}
	h.seen[i] = now
	return e
}

// Peek returns the flow k belongs to, or nil if there is none or it was idle
// for too long. It changes nothing: for ICMP errors about a flow, which must
// not keep it alive, and for asking where a packet would go.
func (t *Table) Peek(hash uint64, k *packet.Tuple, now Tick) *Entry {
	s, i := t.find(hash, k)
	if i < 0 || s.header.idle(i, now) > t.limit[s.header.status[i]&stateMask] {
		return nil
	}
	return &s.entries[i]
}

// Insert adds the flow k, for which Lookup has just returned nil, and returns
// its entry for the caller to fill in; the flow is untrusted. If another one
// had to go, evicted is a copy of it, good until the next Insert, and why says
// what it was, so that the caller's gauges stay right; else it is nil and why is
// EvictedNone. The entry is nil if there
// is no room, which is when all eight flows of the set are trusted and were seen
// within the last minute.
func (t *Table) Insert(hash uint64, k *packet.Tuple, seg Segment, now Tick) (e, evicted *Entry, why Eviction) {
	s, i := t.find(hash, k)
	h := &s.header
	if i >= 0 {
		why = EvictedEnded
	} else if i, why = t.victim(h, now); i < 0 {
		return nil, nil, EvictedNone
	}
	e = &s.entries[i]
	if why == EvictedNone {
		t.len++
	} else {
		t.evicted = *e
		evicted = &t.evicted
	}
	h.put(i, hash, uint8(firstState(k.Proto, seg.Flags)), now)
	*e = Entry{}
	e.Tuple, e.mark = *k, seg.Sequence
	return e, evicted, why
}

// quiet is for how long a trusted flow was not seen, in ticks, if it may have
// to go for a new one: long enough that hardly any transfer has such a pause,
// short enough that idle connections cannot keep new ones out for hours.
const quiet = 60 * TicksPerSecond

// victim picks the place for a new flow: a free one, else one whose flow is
// over, else the untrusted one that was quiet for longest, else the trusted one
// if it is quiet. It returns -1 if none may go.
func (t *Table) victim(h *header, now Tick) (way int, why Eviction) {
	way, why = -1, EvictedOldest
	oldest := int32(quiet)
	for i, w := range h.status {
		if w == 0 {
			return i, EvictedNone
		}
		idle, kind := h.idle(i, now), EvictedOldest
		switch s := State(w & stateMask); {
		case idle > t.limit[s] || s.ended():
			kind = EvictedEnded
		case w&trusted == 0:
			kind = EvictedUntrusted
		}
		if kind < why || kind == why && idle > oldest {
			way, why, oldest = i, kind, idle
		}
	}
	return way, why
}

// Delete removes the flow k, live or over, and returns a copy of it; ok is
// false if it was not there.
func (t *Table) Delete(hash uint64, k *packet.Tuple) (gone Entry, ok bool) {
	s, i := t.find(hash, k)
	if i < 0 {
		return gone, false
	}
	s.header.free(i)
	t.len--
	return s.entries[i], true
}

// Sweep visits the next sets sets, going round and round the table call by
// call, and removes every flow there that was idle for too long. It calls gone
// for each; the entry is good during that call only, and gone must not call
// the table, but for Number.
func (t *Table) Sweep(now Tick, sets int, gone func(*Entry)) {
	for range min(sets, t.Sets()) {
		s := &t.sets[t.cursor]
		t.cursor = (t.cursor + 1) & t.mask
		h := &s.header
		if h.tags[0]|h.tags[1] == 0 {
			continue
		}
		for i, w := range h.status {
			if w != 0 && h.idle(i, now) > t.limit[w&stateMask] {
				h.free(i)
				t.len--
				gone(&s.entries[i])
			}
		}
	}
}

// Range calls f for every live flow of sets sets from set from on, with how
// long it has been idle, and returns where to go on: 0 once the end of the
// table was reached. f must not call the table.
func (t *Table) Range(from, sets int, now Tick, f func(e *Entry, s State, idle time.Duration)) (next int) {
	end := from + min(sets, t.Sets()-from)
	for number := from; number < end; number++ {
		s := &t.sets[number]
		h := &s.header
		for i, w := range h.status {
			idle := max(0, h.idle(i, now))
			if w == 0 || idle > t.limit[w&stateMask] {
				continue
			}
			f(&s.entries[i], State(w&stateMask), time.Duration(idle)*time.Second/TicksPerSecond)
		}
	}
	if end == t.Sets() {
		return 0
	}
	return end
}

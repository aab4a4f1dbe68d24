// Package flow remembers, for one worker, which backend each flow went to.
//
// The problem it solves: Maglev alone sends a flow elsewhere when the set of
// backends changes under it, and NAT cannot work without memory at all. But a
// table that grows with the traffic is a gift to whoever sends a flood, and
// one shared by workers needs locks. So each worker owns a Table of a size
// fixed at the start, outside the Go heap, in which nothing is allocated or
// locked afterwards. When it is full, the flow that was quiet for longest
// makes room, and what it loses is only the memory: without NAT, its next
// packet goes where Maglev says, which is nearly always the same backend.
//
// # Layout
//
// A set is eight places for flows whose hashes share their low bits. A set has
// one header of a cache line, in an array of its own: for each place a word
// with 23 bits of the hash and the State, and the Tick it was last seen at. The
// Entry of a place, another cache line, is in a second array.
//
//	header     | hash, state  8 x 32 bits | last seen     8 x 32 bits |
//	entry      | tuple | backend | generation | packets | NAT's spare |
//
// So a packet of a known flow touches two lines, one of an unknown flow touches
// one, and expiry and eviction read headers only.
//
// # Ownership
//
// A Table belongs to one goroutine: nothing in it is safe for two.
package flow

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"

	"weir/dataplane/packet"
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

// Entry is one flow: exactly a cache line. The caller may change what is after
// Tuple at any time while it holds the pointer; the table reads none of it.
//
// A pointer to an Entry is good until the next Insert, Delete or Sweep, which
// may give the place to another flow, and until Close, which takes the memory
// away.
type Entry struct {
	Tuple      packet.Tuple // as given to Insert; not to be changed
	Backend    uint32       // the caller's: slot number in the snapshot
	Generation uint32       // the caller's: of the snapshot Backend was checked against
	Packets    uint32       // counted by Insert and Lookup; wraps
	Spare      [12]byte     // zero at Insert; for NAT: outside address and port
}

// Eviction says what had to go for a flow to be inserted.
type Eviction uint8

const (
	// EvictedNone: the place was free.
	EvictedNone Eviction = iota
	// EvictedEnded: the flow there was over (idle for too long, or the same
	// tuple again) and no Sweep had come by yet.
	EvictedEnded
	// EvictedOldest: the set was full of live flows, and the one quiet for
	// longest was given up. A steady rate of these says the table is too small.
	EvictedOldest
)

const (
	ways       = 8       // places in a set
	maxEntries = 1 << 30 // 72 GiB
)

// A place's word is 23 bits of the hash, a bit that is always set and 8 bits of
// State, or zero if the place is free.
const (
	stateBits = 8
	stateMask = 1<<stateBits - 1
	tagOne    = 1 << stateBits
)

func tagOf(hash uint64) uint32 { return uint32(hash>>32)&^stateMask | tagOne }

// header is all that the places of a set need for everything but a hit.
type header struct {
	word [ways]uint32
	seen [ways]Tick
}

// idle returns in ticks how long ago place i was seen; negative if the clock
// went back.
func (h *header) idle(i int, now Tick) int32 { return int32(now - h.seen[i]) }

// Table is a connection table of fixed size.
type Table struct {
	headers []header
	entries []Entry
	mask    uint64 // number of sets - 1
	limit   [stateCount]int32
	keys    hashKeys
	len     int
	cursor  uint64 // next set of Sweep
	touched uint32 // where Prefetch leaves what it read
	memory  []byte // what headers and entries are in; nil after Close
}

// New returns an empty table with room for entries flows, rounded up to a power
// of two and to at least 8. It takes 72 bytes for each, in huge pages if the
// kernel has them, and all of it at once, so that no packet waits for a page
// and a box that is too small shows it at the start. Close gives it back.
//
// Sets do not fill evenly, so some flows are evicted before the table is full:
// with a flow for every second entry about 1 in 100, for every fourth about 1
// in 6000. Where losing one hurts (NAT), ask for four times the flows.
func New(entries int, timeouts Timeouts) (*Table, error) {
	if entries < 1 || entries > maxEntries {
		return nil, fmt.Errorf("new flow table: %d entries, must be 1 to %d", entries, maxEntries)
	}
	limit, err := timeouts.ticks()
	if err != nil {
		return nil, fmt.Errorf("new flow table: %w", err)
	}
	sets := max(1, 1<<bits.Len(uint(entries-1))/ways)
	t := &Table{mask: uint64(sets - 1), limit: limit}
	if err := t.mapMemory(sets); err != nil {
		return nil, fmt.Errorf("new flow table: %w", err)
	}
	var secret [len(t.keys) * 8]byte
	rand.Read(secret[:]) // never fails, by its documentation
	for i := range t.keys {
		t.keys[i] = binary.NativeEndian.Uint64(secret[i*8:])
	}
	return t, nil
}

// Len returns the number of flows in the table, with those that are over but
// that no Sweep or Insert has removed yet.
func (t *Table) Len() int { return t.len }

// Cap returns how many flows fit.
func (t *Table) Cap() int { return len(t.entries) }

// Sets returns the number of sets, for Sweep and Range.
func (t *Table) Sets() int { return len(t.headers) }

// Prefetch brings what Lookup will read for these hashes into the cache. With a
// whole batch at a time the processor waits for all of its memory at once, and
// not for one packet after the other.
func (t *Table) Prefetch(hashes []uint64) {
	var sum uint32 // else the compiler would drop the loads
	for _, hash := range hashes {
		sum += t.headers[hash&t.mask].word[0]
	}
	for _, hash := range hashes {
		set := hash & t.mask
		h := &t.headers[set]
		tag := tagOf(hash)
		for i := range h.word {
			if h.word[i]&^stateMask == tag {
				sum += t.entries[set*ways+uint64(i)].Packets
				break
			}
		}
	}
	t.touched += sum
}

// find returns the set and the place of k, -1 if it is not there. It does not
// look at the time.
func (t *Table) find(hash uint64, k *packet.Tuple) (set uint64, h *header, way int) {
	set = hash & t.mask
	h = &t.headers[set]
	tag := tagOf(hash)
	for i := range h.word {
		if h.word[i]&^stateMask == tag && same(&t.entries[set*ways+uint64(i)].Tuple, k) {
			return set, h, i
		}
	}
	return set, h, -1
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

// Lookup returns the flow k belongs to and notes the packet: last seen now, one
// more counted, and the state that tcpFlags leads to (ignored for what is not
// TCP). It returns nil if there is no such flow, if it was idle for too long,
// or if this packet opens a new connection where one was closed: then the
// backend is to be chosen anew, and Insert to be called.
func (t *Table) Lookup(hash uint64, k *packet.Tuple, tcpFlags uint8, now Tick) *Entry {
	set, h, i := t.find(hash, k)
	if i < 0 {
		return nil
	}
	s := State(h.word[i] & stateMask)
	if h.idle(i, now) > t.limit[s] || s.reopenedBy(tcpFlags) {
		return nil
	}
	if next := NextState(s, tcpFlags); next != s {
		h.word[i] = h.word[i]&^stateMask | uint32(next)
	}
	h.seen[i] = now
	e := &t.entries[set*ways+uint64(i)]
	e.Packets++
	return e
}

// Peek returns the flow k belongs to, or nil if there is none or it was idle
// for too long. It changes nothing: for ICMP errors about a flow, which must
// not keep it alive, and for asking where a packet would go.
func (t *Table) Peek(hash uint64, k *packet.Tuple, now Tick) *Entry {
	set, h, i := t.find(hash, k)
	if i < 0 || h.idle(i, now) > t.limit[h.word[i]&stateMask] {
		return nil
	}
	return &t.entries[set*ways+uint64(i)]
}

// Insert adds the flow k, for which Lookup has just returned nil, and returns
// its entry for the caller to fill in. The entry is never nil. If another flow
// had to go, evicted is a copy of it and why says what it was, so that the
// caller's gauges stay right; else why is EvictedNone.
func (t *Table) Insert(hash uint64, k *packet.Tuple, tcpFlags uint8, now Tick) (e *Entry, evicted Entry, why Eviction) {
	set, h, i := t.find(hash, k)
	if i >= 0 {
		why = EvictedEnded
	} else {
		i, why = t.victim(h, now)
	}
	e = &t.entries[set*ways+uint64(i)]
	if why == EvictedNone {
		t.len++
	} else {
		evicted = *e
	}
	h.word[i] = tagOf(hash) | uint32(firstState(k.Proto, tcpFlags))
	h.seen[i] = now
	*e = Entry{Tuple: *k, Packets: 1}
	return e, evicted, why
}

// victim picks the place for a new flow: a free one, else one whose flow is
// over, else the one that was quiet for longest.
func (t *Table) victim(h *header, now Tick) (way int, why Eviction) {
	why = EvictedOldest
	for i, w := range h.word {
		if w == 0 {
			return i, EvictedNone
		}
		ended := h.idle(i, now) > t.limit[w&stateMask]
		switch {
		case ended && why == EvictedOldest:
			way, why = i, EvictedEnded
		case !ended && why == EvictedOldest && h.idle(i, now) > h.idle(way, now):
			way = i
		}
	}
	return way, why
}

// Delete removes the flow k, live or over, and returns a copy of it; ok is
// false if it was not there.
func (t *Table) Delete(hash uint64, k *packet.Tuple) (gone Entry, ok bool) {
	set, h, i := t.find(hash, k)
	if i < 0 {
		return gone, false
	}
	h.word[i] = 0
	t.len--
	return t.entries[set*ways+uint64(i)], true
}

// Sweep visits the next sets sets, going round and round the table call by
// call, and removes every flow there that was idle for too long. It calls gone
// for each; the entry is good during that call only, and gone must not call
// the table.
func (t *Table) Sweep(now Tick, sets int, gone func(*Entry)) {
	for range min(sets, t.Sets()) {
		set := t.cursor
		t.cursor = (t.cursor + 1) & t.mask
		h := &t.headers[set]
		for i, w := range h.word {
			if w != 0 && h.idle(i, now) > t.limit[w&stateMask] {
				h.word[i] = 0
				t.len--
				gone(&t.entries[set*ways+uint64(i)])
			}
		}
	}
}

// Range calls f for every live flow of sets sets from set from on, with how
// long it has been idle, and returns where to go on: 0 once the end of the
// table was reached. f must not call the table.
func (t *Table) Range(from, sets int, now Tick, f func(e *Entry, s State, idle time.Duration)) (next int) {
	end := from + min(sets, t.Sets()-from)
	for set := from; set < end; set++ {
		h := &t.headers[set]
		for i, w := range h.word {
			idle := max(0, h.idle(i, now))
			if w == 0 || idle > t.limit[w&stateMask] {
				continue
			}
			f(&t.entries[set*ways+i], State(w&stateMask), time.Duration(idle)*time.Second/TicksPerSecond)
		}
	}
	if end == t.Sets() {
		return 0
	}
	return end
}

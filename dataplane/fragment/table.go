package fragment

import (
	"hash/maphash"
	"math/bits"

	"weir/dataplane/flow"
	"weir/dataplane/stats"
)

// Defaults of a Config.
const (
	DefaultDatagrams = 1024
	DefaultHeldBytes = 1 << 20

	// DefaultTimeout is the 15 s that RFC 791 section 3.2 starts with, and not
	// the 60 s of RFC 8200 section 4.5 or the 30 s of Linux (net.ipv4.ipfrag_time):
	// whoever remembers a datagram that lost a fragment for longer than its
	// sender takes to use the 16-bit identification again breaks the next
	// datagram too (RFC 4963 section 2). Fragments of one datagram are
	// milliseconds apart; the backend reassembles by its own time-out.
	DefaultTimeout = 15 * flow.TicksPerSecond

	// DefaultWait is how long fragments are held. On a path that reorders, the
	// first one is milliseconds late; a flood is not to be kept for longer
	// than that takes.
	DefaultWait = 1 * flow.TicksPerSecond
)

// Config bounds a Table. What is 0 is taken from the defaults.
type Config struct {
	Datagrams int       // remembered at a time; rounded up to a power of two, at least 8
	HeldBytes int       // for frames that wait for the first fragment
	Timeout   flow.Tick // a datagram that is not complete is forgotten after this
	Wait      flow.Tick // fragments that came before the first are given up after this
}

// ways is how many datagrams share a set, in which the hash of a Key picks none
// in particular.
const ways = 8

// state is what is known of a datagram.
type state uint8

const (
	free     state = iota // there is none in this place
	waiting               // the first fragment has not come
	known                 // the ports are known
	poisoned              // fragments overlapped: nothing of it goes on any more
)

// datagram is one of which fragments have come and others are to come.
type datagram struct {
	key   Key
	born  flow.Tick // when the first of its fragments came, whichever it was
	state state
	ports Ports

	end   int // of the bytes that have come
	total int // its length in bytes, 0 before the last fragment has come
	units int // that have come

	// Its held fragments, as numbers of records in the store.
	held        int
	first, last uint32
}

// complete reports whether all of it has come.
func (d *datagram) complete() bool {
	return d.total != 0 && d.units == (d.total+unit-1)/unit
}

// Table remembers datagrams for one worker; nothing in it is safe for two
// goroutines. It takes about 1.1 KiB for each datagram.
//
// Where a datagram can be in the table follows from a hash with a secret of the
// table, so that nobody can aim at the place of another one. A set that is full
// gives up the oldest datagram of those that wait for their first fragment or
// are poisoned. Only the first fragment of another datagram may push out one
// whose own has come. So a flood of lone fragments costs other lone fragments
// their place, and nobody else.
type Table struct {
	datagrams []datagram
	seen      []seen // by index into datagrams
	mask      uint64 // number of sets - 1
	seed      maphash.Seed
	timeout   flow.Tick
	wait      flow.Tick
	len       int
	cursor    int // next set of Expire
	store     store
	lost      int // held frames given up since Expire was last called
}

// New returns an empty table. All memory it will ever use is allocated here.
func New(cfg Config) *Table {
	orDefault(&cfg.Datagrams, DefaultDatagrams)
	orDefault(&cfg.HeldBytes, DefaultHeldBytes)
	orDefault(&cfg.Timeout, DefaultTimeout)
	orDefault(&cfg.Wait, DefaultWait)
	n := max(ways, 1<<bits.Len(uint(cfg.Datagrams-1)))
	return &Table{
		datagrams: make([]datagram, n),
		seen:      make([]seen, n),
		mask:      uint64(n/ways - 1),
		seed:      maphash.MakeSeed(),
		timeout:   cfg.Timeout,
		wait:      cfg.Wait,
		store:     newStore(cfg.HeldBytes),
	}
}

func orDefault[T int | flow.Tick](v *T, otherwise T) {
	if *v <= 0 {
		*v = otherwise
	}
}

// Len returns the number of datagrams remembered, with those that are too old
// but that no Expire has come by yet.
func (t *Table) Len() int { return t.len }

// Held returns the number of fragments that wait for their first one.
func (t *Table) Held() int { return t.store.held }

// Track notes that the fragment s of datagram k has come, and says what to do
// with it. first is what the fragment says of the flow: given for the first
// fragment, at offset 0, and nil for all others.
//
// Any fragment that covers bytes that have come, and others that have not,
// poisons the datagram: it, all that follow and those held are dropped (RFC
// 5722 section 4). So does one that contradicts the length that the last one
// gave. One of which all bytes have come is taken for a duplicate, as in Linux,
// whatever its own bounds; since it is dropped too, nobody sees two versions.
//
// After the first Forward of a datagram, take out what is held by Next. A
// datagram of which everything has come is forgotten; a poisoned one only after
// the time-out.
func (t *Table) Track(k *Key, s Span, first *Ports, now flow.Tick) Result {
	if !s.valid() {
		return Result{Reason: stats.Malformed}
	}
	i := t.find(k)
	if i >= 0 && t.expired(i, now) {
		t.forget(i)
		i = -1
	}
	if i < 0 {
		if i = t.add(k, first != nil, now); i < 0 {
			return Result{Reason: stats.FragmentLost}
		}
	}
	d := &t.datagrams[i]
	switch reason := t.note(i, s); {
	case reason == stats.FragmentOverlap:
		t.giveUpHeld(i)
		d.state = poisoned
		return Result{Reason: reason}
	case reason != stats.ReasonNone:
		return Result{Reason: reason}
	}
	if first != nil {
		d.ports, d.state = *first, known
	}
	if d.state == waiting {
		return Result{Action: Hold}
	}
	result := Result{Action: Forward, Ports: d.ports}
	t.forgetComplete(i)
	return result
}

// valid checks what must hold for any fragment: only the last may have a length
// that the offset of another one cannot follow (RFC 791 section 3.2, RFC 8200
// section 4.5), and there is something in it.
func (s Span) valid() bool {
	return s.Offset >= 0 && s.Offset%unit == 0 && s.Length > 0 &&
		s.Length <= maxDatagram-s.Offset && (!s.More || s.Length%unit == 0)
}

// note adds s to what has come of datagram i. If it may not be added, it
// changes nothing and says why.
func (t *Table) note(i int, s Span) stats.Reason {
	d, seen := &t.datagrams[i], &t.seen[i]
	end := s.Offset + s.Length
	switch {
	case d.state == poisoned,
		d.total != 0 && end > d.total,
		!s.More && end < d.end:
		return stats.FragmentOverlap
	}
	from, to := s.Offset/unit, (end+unit-1)/unit
	switch seen.count(from, to) {
	case 0:
	case to - from:
		return stats.FragmentDuplicate
	default:
		return stats.FragmentOverlap
	}
	seen.mark(from, to)
	d.units += to - from
	d.end = max(d.end, end)
	if !s.More {
		d.total = end
	}
	return stats.ReasonNone
}

// set returns the index of the first place that k can be in.
func (t *Table) set(k *Key) int {
	return int(maphash.Comparable(t.seed, *k)&t.mask) * ways
}

// find returns the index of datagram k, however old, or -1.
func (t *Table) find(k *Key) int {
	set := t.set(k)
	for i := set; i < set+ways; i++ {
		if d := &t.datagrams[i]; d.state != free && d.key == *k {
			return i
		}
	}
	return -1
}

// add makes a place for datagram k, of which it is known whether the fragment
// that has come is the first, and returns its index; -1 if there is no place
// for it.
func (t *Table) add(k *Key, first bool, now flow.Tick) int {
	i := t.victim(t.set(k), first, now)
	if i < 0 {
		return -1
	}
	if t.datagrams[i].state != free {
		t.forget(i)
	}
	t.datagrams[i] = datagram{key: *k, born: now, state: waiting}
	t.seen[i] = seen{}
	t.len++
	return i
}

// victim picks a place in a set: a free one, or one whose datagram is too old;
// else the oldest datagram that waits or is poisoned; else, for a datagram
// whose first fragment has come, the oldest of all.
func (t *Table) victim(set int, first bool, now flow.Tick) int {
	oldest, oldestKnown := -1, -1
	for i := set; i < set+ways; i++ {
		d := &t.datagrams[i]
		candidate := &oldest
		switch {
		case d.state == free || t.expired(i, now):
			return i
		case d.state == known:
			candidate = &oldestKnown
		}
		if *candidate < 0 || now-d.born > now-t.datagrams[*candidate].born {
			*candidate = i
		}
	}
	if oldest < 0 && first {
		return oldestKnown
	}
	return oldest
}

// expired reports whether datagram i is too old. Only the time since it was
// first heard of counts, so that nobody can keep one alive (RFC 8200 section
// 4.5).
func (t *Table) expired(i int, now flow.Tick) bool {
	d := &t.datagrams[i]
	limit := t.timeout
	if d.state == waiting {
		limit = t.wait
	}
	age := int32(now - d.born)
	return age > int32(limit)
}

// forget frees the place of datagram i.
func (t *Table) forget(i int) {
	t.giveUpHeld(i)
	t.datagrams[i].state = free
	t.len--
}

// forgetComplete forgets datagram i if all of it has come and gone on.
func (t *Table) forgetComplete(i int) {
	if d := &t.datagrams[i]; d.held == 0 && d.complete() {
		t.forget(i)
	}
}

// giveUpHeld drops the held fragments of datagram i.
func (t *Table) giveUpHeld(i int) {
	d := &t.datagrams[i]
	t.lost += d.held
	for d.held > 0 {
		t.takeHeld(d)
	}
}

// expireRecords is how many datagrams with held fragments one Expire gives up
// at most.
const expireRecords = 64

// Expire gives up what has waited for too long, and forgets datagrams that are
// too old, a few at each call: it is cheap enough to be called once per batch.
// It returns how many held fragments were given up since the last call,
// whatever for: too long a wait, no room, or a poisoned datagram. The caller
// counts them as FragmentLost.
func (t *Table) Expire(now flow.Tick) (lost int) {
	for range expireRecords {
		i, ok := t.store.oldestHeld()
		if !ok || int32(now-t.datagrams[i].born) <= int32(t.wait) {
			break
		}
		t.giveUp(i)
	}
	for i := t.cursor; i < t.cursor+ways; i++ {
		if t.datagrams[i].state != free && t.expired(i, now) {
			t.forget(i)
		}
	}
	t.cursor = (t.cursor + ways) % len(t.datagrams)
	lost, t.lost = t.lost, 0
	return lost
}

// giveUp drops the held fragments of datagram i. If its first fragment has not
// come, it can never be whole again, and is forgotten.
func (t *Table) giveUp(i int) {
	if t.datagrams[i].state == waiting {
		t.forget(i)
		return
	}
	t.giveUpHeld(i)
	t.forgetComplete(i)
}

package flow

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"weir/dataplane/packet"
)

const (
	nobody party = iota
	client
	backend
)

// model runs a table and a Go map side by side.
type model struct {
	t     *testing.T
	table *Table
	flows map[packet.Tuple]*modelFlow
	now   uint64
	next  uint32 // id of the next flow, a new one each time
	count map[Eviction]int
	full  int // inserts for which there was no room
	knew  int // packets of clients whose flow was known
	heard int // answers whose flow was known
	told  []told
	tells map[Event]int
}

// told is an event and the id of the flow that it is of.
type told struct {
	id   uint32
	what Event
}

// expect checks what the table has told of one packet. what is 0 for nothing.
func (m *model) expect(f *modelFlow, what Event) {
	m.t.Helper()
	var want []told
	if what != 0 {
		want = append(want, told{f.id, what})
		m.tells[what]++
	}
	if !slices.Equal(m.told, want) {
		m.t.Fatalf("told %+v, want %+v", m.told, want)
	}
	m.told = m.told[:0]
}

func newModel(t *testing.T, entries int, start Tick) *model {
	table, err := New(entries, modelTimeouts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	table.keys = stableKeys() // a fuzz finding must be repeatable
	m := &model{
		t: t, table: table, flows: map[packet.Tuple]*modelFlow{}, now: uint64(start),
		count: map[Eviction]int{}, tells: map[Event]int{},
	}
	table.Watch(func(e *Entry, what Event) { m.told = append(m.told, told{e.Backend, what}) })
	return m
}

// check compares an entry with a flow of the model.
func (m *model) check(e *Entry, k packet.Tuple, f *modelFlow) {
	m.t.Helper()
	if want := (NATState{uint16(f.id), uint16(f.id), uint16(f.id), uint8(f.id)}); e.Tuple != k ||
		e.Backend != f.id || e.Generation != f.id || e.NAT != want || !f.trusted && e.mark != f.sequence {
		m.t.Fatalf("%v: %+v, want %+v", k, *e, *f)
	}
}

// gone checks that e is a flow of the model as it was left, and removes it.
func (m *model) gone(e *Entry) *modelFlow {
	m.t.Helper()
	f := m.flows[e.Tuple]
	if f == nil {
		m.t.Fatalf("gone: %+v, which was not there", *e)
	}
	m.check(e, e.Tuple, f)
	delete(m.flows, e.Tuple)
	return f
}

// packet is what the forwarder does: Lookup, and Insert on a miss.
func (m *model) packet(k packet.Tuple, s Segment) {
	hash, now := m.table.Hash(&k), Tick(m.now)
	f := m.flows[k]
	live := f != nil && !f.over(m.now)
	peeked := m.table.Peek(hash, &k, now)
	if (peeked != nil) != live {
		m.t.Fatalf("peek %v: %v, want %+v at %d", k, peeked, f, m.now)
	}
	if live && s.Flags&(syn|ack|fin|rst) == syn {
		live = f.udp || f.reset == nobody && !f.finished[client]
	}
	if m.known(hash, k, f, s, live) {
		return
	}
	e := m.table.Lookup(hash, &k, s, now)
	if (e != nil) != live {
		m.t.Fatalf("lookup %v %+v: %v, want %+v at %d", k, s, e, f, m.now)
	}
	if e == nil {
		m.insert(hash, k, s)
		return
	}
	f.trust(s)
	before := f.state()
	f.note(client, s.Flags)
	m.expect(f, f.ofClient(before, s.Flags))
	f.seen = m.now
	m.check(e, k, f)
	m.table.Mark(e, m.mark())
	if f.trusted {
		f.mark = m.mark()
	}
	if e != peeked || m.table.Number(e) != f.number {
		m.t.Fatalf("lookup %v: place %d, want %d", k, m.table.Number(e), f.number)
	}
}

// mark is what the forwarder looks for: another one from time to time.
func (m *model) mark() uint32 { return uint32(m.now>>4) + 1 }

// known looks for a packet as the forwarder does first, and reports whether that
// has found its flow: one that is live, trusted, and marked as now, if the packet
// changes nothing.
func (m *model) known(hash uint64, k packet.Tuple, f *modelFlow, s Segment, live bool) bool {
	m.t.Helper()
	var places [1]uint32
	m.table.Prefetch([]uint64{hash}, places[:])
	p := packet.Parsed{Tuple: k, TCPFlags: s.Flags}
	n := m.table.Known(places[:], []packet.Parsed{p}, m.mark(), Tick(m.now))
	want := live && f.settled(m.mark(), s)
	if (n == 1) != want {
		m.t.Fatalf("known %v %+v: %d, want %+v at %d", k, s, n, f, m.now)
	}
	if n == 0 {
		return false
	}
	m.knew++
	f.seen = m.now
	m.check(m.table.Found(places[0]), k, f)
	return true
}

// answer is what the forwarder does with a packet of the backend.
func (m *model) answer(number uint32, s Segment) {
	k, f := m.at(number)
	live := f != nil && !f.over(m.now)
	if m.knownAnswer(number, f, s, live) {
		m.ask(number, k, f)
		return
	}
	if got := m.table.Answered(number, s, Tick(m.now)); got != live {
		m.t.Fatalf("answered %d: %v, want %+v at %d", number, got, f, m.now)
	}
	if live {
		before := f.state()
		f.note(backend, s.Flags)
		f.seen = m.now
		if f.state() == StateClosed && before != StateClosed {
			m.expect(f, Reset)
		}
	}
	m.expect(f, 0)
	m.ask(number, k, f)
}

// knownAnswer is known for a packet of the backend.
func (m *model) knownAnswer(number uint32, f *modelFlow, s Segment, live bool) bool {
	m.t.Helper()
	want := live && f.settled(m.mark(), s)
	if got := m.table.KnownAnswer(number, s.Flags, m.mark(), Tick(m.now)); got != want {
		m.t.Fatalf("known answer %d %+v: %v, want %+v at %d", number, s, got, f, m.now)
	}
	if want {
		m.heard++
		f.seen = m.now
	}
	return want
}

// settled tells whether a packet of either side changes nothing but when the flow
// was last seen, and the flow is known as such.
func (f *modelFlow) settled(mark uint32, s Segment) bool {
	return f.trusted && f.mark == mark && (f.udp || f.state() == StateEstablished && s.Flags&(syn|fin|rst) == 0)
}

// at returns the flow with a number.
func (m *model) at(number uint32) (packet.Tuple, *modelFlow) {
	for k, f := range m.flows {
		if f.number == number {
			return k, f
		}
	}
	return packet.Tuple{}, nil
}

// ask compares all that the table says about a number with a flow.
func (m *model) ask(number uint32, k packet.Tuple, f *modelFlow) {
	m.t.Helper()
	e, s := m.table.At(number), m.table.StateOf(number)
	idle := m.table.Idle(number, Tick(m.now))
	ended, untrusted := m.table.Reusable(number, Tick(m.now))
	if f == nil {
		if e != nil || s != StateNone || idle != 0 || !ended || untrusted {
			m.t.Fatalf("number %d: %v, %s, idle %d, reusable %v %v, want nothing", number, e, s, idle, ended, untrusted)
		}
		return
	}
	if e == nil {
		m.t.Fatalf("number %d: nothing, want %v", number, k)
	}
	m.check(e, k, f)
	if s != f.state() || uint64(idle) != m.now-f.seen || ended != (f.rank(m.now) == int(EvictedEnded)) || untrusted == f.trusted {
		m.t.Fatalf("number %d: %s, idle %d, reusable %v %v, want %+v at %d", number, s, idle, ended, untrusted, *f, m.now)
	}
}

func (m *model) insert(hash uint64, k packet.Tuple, s Segment) {
	var set []*modelFlow
	for other, f := range m.flows {
		if (m.table.Hash(&other)^hash)&m.table.mask == 0 {
			set = append(set, f)
		}
	}
	want, oldest := EvictedNone, m.now
	if f := m.flows[k]; f != nil {
		want, oldest = EvictedEnded, f.seen
	} else if len(set) == ways {
		rank := 100
		for _, f := range set {
			rank = min(rank, f.rank(m.now))
		}
		for _, f := range set {
			if f.rank(m.now) == rank {
				oldest = min(oldest, f.seen)
			}
		}
		if rank == 100 {
			if e, evicted, why := m.table.Insert(hash, &k, s, Tick(m.now)); e != nil || evicted != nil || why != EvictedNone {
				m.t.Fatalf("insert %v: %v (%d), want no room", k, e, why)
			}
			m.full++
			return
		}
		want = Eviction(rank)
	}
	again := m.flows[k]
	e, evicted, why := m.table.Insert(hash, &k, s, Tick(m.now))
	if e == nil || why != want {
		m.t.Fatalf("insert %v: %v (%d), want (%d)", k, e, why, want)
	}
	if why == EvictedNone {
		if evicted != nil {
			m.t.Fatalf("insert %v: evicted %+v", k, evicted)
		}
	} else if f := m.gone(evicted); f.seen != oldest || again != nil && f != again {
		m.t.Fatalf("insert %v: evicted %v, seen %d, want %d", k, evicted.Tuple, f.seen, oldest)
	}
	m.count[why]++
	if *e != (Entry{Tuple: k, mark: s.Sequence}) {
		m.t.Fatalf("insert %v: not fresh: %+v", k, *e)
	}
	m.next++
	id := m.next
	e.Backend, e.Generation, e.NAT = id, id, NATState{uint16(id), uint16(id), uint16(id), uint8(id)}
	f := &modelFlow{
		udp: k.Proto != packet.ProtoTCP, opening: s.Flags&syn != 0 && s.Flags&fin == 0, sequence: s.Sequence,
		number: m.table.Number(e), seen: m.now, id: id,
	}
	if number, f := m.at(f.number); f != nil {
		m.t.Fatalf("insert %v: at the place of %v", k, number)
	}
	f.note(client, s.Flags)
	m.expect(f, 0)
	m.flows[k] = f
}

func (m *model) delete(k packet.Tuple) {
	f := m.flows[k]
	e, ok := m.table.Delete(m.table.Hash(&k), &k)
	if ok != (f != nil) {
		m.t.Fatalf("delete %v: %v, want %v", k, ok, f)
	}
	if ok {
		m.gone(&e)
		m.ask(f.number, k, nil)
	}
}

func (m *model) deleteAt(number uint32) {
	k, f := m.at(number)
	e, ok := m.table.DeleteAt(number)
	if ok != (f != nil) {
		m.t.Fatalf("delete %d: %v, want %v", number, ok, f)
	}
	if ok {
		if m.gone(&e) != f {
			m.t.Fatalf("delete %d: %v, want %v", number, e.Tuple, k)
		}
		m.ask(number, k, nil)
	}
}

func (m *model) sweep(sets int) {
	m.table.Sweep(Tick(m.now), sets, func(e *Entry) {
		if f := m.gone(e); !f.over(m.now) {
			m.t.Fatalf("sweep: %v was not over: %+v at %d", e.Tuple, f, m.now)
		}
	})
	if sets >= m.table.Sets() {
		for k, f := range m.flows {
			if f.over(m.now) {
				m.t.Fatalf("sweep left %v: %+v at %d", k, f, m.now)
			}
		}
	}
}

// compare reads the whole table and checks it against the map.
func (m *model) compare() {
	if m.table.Len() != len(m.flows) {
		m.t.Fatalf("%d flows, want %d", m.table.Len(), len(m.flows))
	}
	want := maps.Clone(m.flows)
	maps.DeleteFunc(want, func(_ packet.Tuple, f *modelFlow) bool { return f.over(m.now) })
	for from, first := 0, true; first || from != 0; first = false {
		from = m.table.Range(from, 1, Tick(m.now), func(e *Entry, s State, idle time.Duration) {
			f := want[e.Tuple]
			if f == nil {
				m.t.Fatalf("range: %+v, which is not there", *e)
			}
			m.check(e, e.Tuple, f)
			if since := time.Duration(m.now-f.seen) * time.Second / TicksPerSecond; s != f.state() || idle != since {
				m.t.Fatalf("range: %+v %s idle %v, want %+v at %d", *e, s, idle, *f, m.now)
			}
			delete(want, e.Tuple)
		})
	}
	if len(want) > 0 {
		m.t.Fatalf("range: %d flows missing", len(want))
	}
	for k, f := range m.flows {
		m.ask(f.number, k, f)
	}
	m.ask(0, packet.Tuple{}, nil) // a header
	m.ask(uint32(len(m.table.lines)), packet.Tuple{}, nil)
	m.ask(math.MaxUint32, packet.Tuple{}, nil)
}

// sequences are the numbers that segments have: at the edges of what is still
// in sequence, and twice the most likely ones.
var sequences = [16]uint32{
	0, 0, 1, 1, 1, 2, 65535, 65536, 65537, 1 << 20, 1<<20 + 1, 1 << 21,
	math.MaxUint32, 1<<32 - 1<<16, 1<<32 - 1<<20, 1<<32 - 1<<20 - 1,
}

// run reads three bytes per operation. There are 64 tuples, half of them TCP.
func (m *model) run(ops []byte) {
	for ; len(ops) >= 3; ops = ops[3:] {
		op, arg := ops[0]&15, ops[2]
		k := tuple4(testClient, testVIP, uint16(ops[1]&31), 80, packet.ProtoUDP)
		segment := Segment{}
		if ops[1]&32 != 0 {
			k.Proto = packet.ProtoTCP
			segment = Segment{Flags: arg, Sequence: sequences[ops[0]>>4]}
		}
		number := uint32(ops[1])
		if f := m.flows[k]; f != nil {
			number = f.number
		}
		switch op {
		default:
			m.packet(k, segment)
		case 6, 7:
			m.answer(number, Segment{Flags: arg})
		case 8:
			m.deleteAt(number)
		case 9: // without a Lookup before, which the table must survive
			m.insert(m.table.Hash(&k), k, segment)
		case 10:
			m.delete(k)
		case 11:
			m.sweep(int(arg % 8))
		case 12:
			m.now += uint64(arg) * 4
		case 13, 14:
			m.now += uint64(arg % 8)
		case 15:
			m.compare()
		}
		if m.table.Len() != len(m.flows) {
			m.t.Fatalf("%d flows, want %d", m.table.Len(), len(m.flows))
		}
	}
	m.compare()
}

func TestAgainstMap(t *testing.T) {
	for _, entries := range []int{8, 16, 64, 1024} {
		for _, start := range []Tick{0, 1 << 31, ^Tick(0) - 500} {
			t.Run(fmt.Sprintf("%d entries from tick %#x", entries, uint32(start)), func(t *testing.T) {
				r := rand.New(rand.NewPCG(uint64(entries), uint64(start)))
				m := newModel(t, entries, start)
				flags := []byte{syn, ack, ack, ack, ack | psh, synAck, finAck, rst, 0}
				ops := make([]byte, 3*40_000)
				for i := range ops {
					ops[i] = byte(r.Uint32())
				}
				for i := 0; i < len(ops); i += 3 {
					if r.IntN(8) != 0 { // else any flags, and a long pause
						ops[i+2] = flags[r.IntN(len(flags))]
					}
					if op := ops[i] & 15; op >= 8 && op <= 11 && r.IntN(4) != 0 {
						ops[i] &^= 8 // fewer deletions, that sets may fill
					}
				}
				m.run(ops)
				t.Logf("evictions %v, no room %d times", m.count, m.full)
				if entries == 8 && (m.full == 0 || len(m.count) != 4) {
					t.Errorf("evictions %v, no room %d times: not all is tested", m.count, m.full)
				}
				if m.knew < 100 || m.heard < 50 {
					t.Errorf("%d packets and %d answers were of known flows: not all is tested", m.knew, m.heard)
				}
				if len(m.tells) != 3 {
					t.Errorf("told %v: not all is tested", m.tells)
				}
			})
		}
	}
}

func FuzzTable(f *testing.F) {
	f.Add(uint32(0), []byte{0, 32, 2, 0x60, 32, 18, 0x26, 32, 18, 0x20, 32, 16, 6, 32, 17, 0x20, 32, 17, 15, 0, 0})
	f.Add(uint32(0), []byte{0, 32, 2, 0, 32, 16, 12, 0, 255, 0, 32, 2, 15, 0, 0})
	f.Add(^uint32(0), []byte{0, 1, 0, 13, 0, 7, 0, 1, 0, 11, 0, 7, 10, 1, 0})
	many := []byte{}
	for i := range byte(64) {
		many = append(many, 0, i, 16, 13, 0, 1)
	}
	f.Add(uint32(0xffffffe0), many)
	f.Fuzz(func(t *testing.T, start uint32, ops []byte) {
		newModel(t, 16, Tick(start)).run(ops)
	})
}

package flow

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"weir/dataplane/packet"
)

// modelTimeouts are short and all different, so that a few bytes of fuzz input
// reach every one of them.
var modelTimeouts = Timeouts{
	UDP:            3 * time.Second,
	TCPSYN:         time.Second,
	TCPEstablished: 8 * time.Second,
	TCPFIN:         2 * time.Second,
	TCPClosed:      time.Second / 2,
}

// modelFlow is what the oracle knows of a flow.
type modelFlow struct {
	state            State
	seen             uint64 // in ticks that do not wrap
	backend, packets uint32
}

func (f modelFlow) over(now uint64) bool {
	const tick = time.Second / TicksPerSecond
	limit := map[State]time.Duration{
		StateUDP: modelTimeouts.UDP, StateSYN: modelTimeouts.TCPSYN, StateEstablished: modelTimeouts.TCPEstablished,
		StateFIN: modelTimeouts.TCPFIN, StateClosed: modelTimeouts.TCPClosed,
	}[f.state]
	return time.Duration(now-f.seen)*tick > limit
}

// model runs a table and a Go map side by side.
type model struct {
	t     *testing.T
	table *Table
	flows map[packet.Tuple]modelFlow
	now   uint64
	next  uint32 // backend of the next flow, a new one each time
}

func newModel(t *testing.T, entries int, start Tick) *model {
	table, err := New(entries, modelTimeouts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	table.keys = stableKeys() // a fuzz finding must be repeatable
	return &model{t: t, table: table, flows: map[packet.Tuple]modelFlow{}, now: uint64(start)}
}

// gone checks that e is a flow of the model as it was left, and removes it.
func (m *model) gone(e *Entry) modelFlow {
	f, ok := m.flows[e.Tuple]
	if !ok || e.Backend != f.backend || e.Packets != f.packets {
		m.t.Fatalf("gone: %+v, want %v %+v", *e, ok, f)
	}
	delete(m.flows, e.Tuple)
	return f
}

// packet is what the forwarder does: Lookup, and Insert on a miss.
func (m *model) packet(k packet.Tuple, flags uint8) {
	hash, now := m.table.Hash(&k), Tick(m.now)
	f, known := m.flows[k]
	peeked := m.table.Peek(hash, &k, now)
	if (peeked != nil) != (known && !f.over(m.now)) {
		m.t.Fatalf("peek %v: %v, want %v %+v at %d", k, peeked, known, f, m.now)
	}
	reopened := flags&(syn|ack|fin|rst) == syn && (f.state == StateFIN || f.state == StateClosed)
	e := m.table.Lookup(hash, &k, flags, now)
	if (e != nil) != (known && !f.over(m.now) && !reopened) {
		m.t.Fatalf("lookup %v: %v, want %v %+v at %d", k, e, known, f, m.now)
	}
	if e != nil {
		f.state, f.seen, f.packets = NextState(f.state, flags), m.now, f.packets+1
		if e.Tuple != k || e.Backend != f.backend || e.Packets != f.packets || e != peeked {
			m.t.Fatalf("lookup %v: %+v, want %+v", k, *e, f)
		}
		m.flows[k] = f
		return
	}
	m.insert(hash, k, flags)
}

func (m *model) insert(hash uint64, k packet.Tuple, flags uint8) {
	inSet, ended, oldest := 0, 0, m.now
	for other, f := range m.flows {
		if (m.table.Hash(&other)^hash)&m.table.mask == 0 {
			inSet++
			oldest = min(oldest, f.seen)
			if f.over(m.now) {
				ended++
			}
		}
	}
	_, again := m.flows[k]
	e, evicted, why := m.table.Insert(hash, &k, flags, Tick(m.now))
	switch why {
	case EvictedNone:
		if again || inSet == ways || evicted != (Entry{}) {
			m.t.Fatalf("insert %v: nothing evicted; again %v, %d in the set", k, again, inSet)
		}
	case EvictedEnded:
		f := m.gone(&evicted)
		if again != (evicted.Tuple == k) || !again && (!f.over(m.now) || inSet < ways) {
			m.t.Fatalf("insert %v: %v counts as ended", k, evicted.Tuple)
		}
	case EvictedOldest:
		f := m.gone(&evicted)
		if again || inSet < ways || ended > 0 || f.seen != oldest {
			m.t.Fatalf("insert %v: %v counts as oldest; %d in the set, %d ended, seen %d, oldest %d", k, evicted.Tuple, inSet, ended, f.seen, oldest)
		}
	}
	if *e != (Entry{Tuple: k, Packets: 1}) {
		m.t.Fatalf("insert %v: not fresh: %+v", k, *e)
	}
	m.next++
	e.Backend, e.Generation, e.Spare[0] = m.next, m.next, 1
	m.flows[k] = modelFlow{state: firstState(k.Proto, flags), seen: m.now, backend: m.next, packets: 1}
}

func (m *model) delete(k packet.Tuple) {
	_, known := m.flows[k]
	e, ok := m.table.Delete(m.table.Hash(&k), &k)
	if ok != known {
		m.t.Fatalf("delete %v: %v, want %v", k, ok, known)
	}
	if ok {
		m.gone(&e)
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
	maps.DeleteFunc(want, func(_ packet.Tuple, f modelFlow) bool { return f.over(m.now) })
	for from, first := 0, true; first || from != 0; first = false {
		from = m.table.Range(from, 1, Tick(m.now), func(e *Entry, s State, idle time.Duration) {
			f, ok := want[e.Tuple]
			since := time.Duration(m.now-f.seen) * time.Second / TicksPerSecond
			if !ok || s != f.state || e.Backend != f.backend || idle != since {
				m.t.Fatalf("range: %+v %s idle %v, want %v %+v at %d", *e, s, idle, ok, f, m.now)
			}
			delete(want, e.Tuple)
		})
	}
	if len(want) > 0 {
		m.t.Fatalf("range: %d flows missing", len(want))
	}
}

// run reads three bytes per operation. There are 64 tuples, half of them TCP.
func (m *model) run(ops []byte) {
	for ; len(ops) >= 3; ops = ops[3:] {
		op, arg := ops[0], ops[2]
		k := tuple4(testClient, testVIP, uint16(ops[1]&31), 80, packet.ProtoUDP)
		if ops[1]&32 != 0 {
			k.Proto = packet.ProtoTCP
		}
		switch op % 16 {
		default:
			m.packet(k, arg)
		case 9: // without a Lookup before, which the table must survive
			m.insert(m.table.Hash(&k), k, arg)
		case 10:
			m.delete(k)
		case 11:
			m.sweep(int(arg % 8))
		case 12:
			m.now += uint64(arg)
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
				ops := make([]byte, 3*20_000)
				for i := range ops {
					ops[i] = byte(r.Uint32())
				}
				m.run(ops)
			})
		}
	}
}

func FuzzTable(f *testing.F) {
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

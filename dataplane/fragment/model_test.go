package fragment_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"weir/dataplane/flow"
	"weir/dataplane/fragment"
	"weir/dataplane/stats"
)

// model is a naive table: a map, a boolean for each byte, and no bounds. It is
// written from the RFCs and not from the table.
type model struct {
	timeout, wait flow.Tick
	datagrams     map[fragment.Key]*modelDatagram
	lost          int
}

type modelDatagram struct {
	born     flow.Tick
	have     [1 << 16]bool
	last     int // the datagram's length, -1 if not known
	ports    *fragment.Ports
	poisoned bool
	held     []modelFrame
}

type modelFrame struct {
	bytes []byte
	meta  fragment.Meta
}

func (m *model) expire(now flow.Tick) {
	for k, d := range m.datagrams {
		limit := m.timeout
		if d.ports == nil && !d.poisoned {
			limit = m.wait
		}
		if now-d.born > limit {
			m.lost += len(d.held)
			delete(m.datagrams, k)
		}
	}
}

// sweep is what Expire does: what the caller should have taken out when the
// first fragment came goes too, once it has waited for too long.
func (m *model) sweep(now flow.Tick) {
	m.expire(now)
	for k, d := range m.datagrams {
		if d.ports != nil && len(d.held) > 0 && now-d.born > m.wait {
			m.lost += len(d.held)
			d.held = nil
			m.forgetComplete(k)
		}
	}
}

func (m *model) held() (n int) {
	for _, d := range m.datagrams {
		n += len(d.held)
	}
	return n
}

func (m *model) track(k fragment.Key, s fragment.Span, first *fragment.Ports, now flow.Tick) fragment.Result {
	m.expire(now)
	if s.Length == 0 || s.Offset+s.Length > 65535 || s.More && s.Length%8 != 0 || s.Offset%8 != 0 {
		return fragment.Result{Reason: stats.Malformed}
	}
	d := m.datagrams[k]
	if d == nil {
		d = &modelDatagram{born: now, last: -1}
		m.datagrams[k] = d
	}
	if d.poisoned {
		return fragment.Result{Reason: stats.FragmentOverlap}
	}
	covered, beyond := 0, false
	for i := s.Offset; i < s.Offset+s.Length; i++ {
		if d.have[i] {
			covered++
		}
	}
	for i := s.Offset + s.Length; i < len(d.have); i++ {
		beyond = beyond || d.have[i]
	}
	switch {
	case d.last >= 0 && s.Offset+s.Length > d.last, !s.More && beyond,
		covered > 0 && covered < s.Length:
		m.lost += len(d.held)
		d.held, d.poisoned = nil, true
		return fragment.Result{Reason: stats.FragmentOverlap}
	case covered == s.Length:
		return fragment.Result{Reason: stats.FragmentDuplicate}
	}
	for i := s.Offset; i < s.Offset+s.Length; i++ {
		d.have[i] = true
	}
	if !s.More {
		d.last = s.Offset + s.Length
	}
	if first != nil {
		d.ports = first
	}
	if d.ports == nil {
		return fragment.Result{Action: fragment.Hold}
	}
	m.forgetComplete(k)
	return fragment.Result{Action: fragment.Forward, Ports: *d.ports}
}

func (m *model) forgetComplete(k fragment.Key) {
	d := m.datagrams[k]
	if d.last < 0 || len(d.held) > 0 {
		return
	}
	for i := range d.last {
		if !d.have[i] {
			return
		}
	}
	delete(m.datagrams, k)
}

func (m *model) next(k fragment.Key) (modelFrame, bool) {
	d := m.datagrams[k]
	if d == nil || d.ports == nil || len(d.held) == 0 {
		return modelFrame{}, false
	}
	f := d.held[0]
	d.held = d.held[1:]
	m.forgetComplete(k)
	return f, true
}

// step is one fragment of a fuzzed history, in stepLen bytes:
//
//	datagram | flags | offset in units | length | ticks since the one before
type step []byte

const stepLen = 7

const (
	flagMore  = 1 << iota
	flagFar   // offset in the datagram's far half
	flagKeep  // do not take out what is held
	flagSweep // expire before it
)

// FuzzTable plays histories of fragments of few datagrams, so that no set is
// ever full, on a table and on the model.
func FuzzTable(f *testing.F) {
	seed := func(steps ...[stepLen]byte) {
		var b []byte
		for _, s := range steps {
			b = append(b, s[:]...)
		}
		f.Add(b)
	}
	seed([stepLen]byte{0, flagMore, 0, 0, 0, 64, 0}, [stepLen]byte{0, 0, 0, 8, 0, 13, 0})                     // in order
	seed([stepLen]byte{0, 0, 0, 8, 0, 13, 0}, [stepLen]byte{0, flagMore, 0, 0, 0, 64, 1})                     // backwards
	seed([stepLen]byte{1, 0, 0, 8, 0, 13, 0}, [stepLen]byte{1, flagMore, 0, 0, 0, 64, 17})                    // too late
	seed([stepLen]byte{2, flagMore, 0, 0, 0, 64, 0}, [stepLen]byte{2, flagMore, 0, 4, 0, 64, 0})              // overlap
	seed([stepLen]byte{2, flagMore, 0, 1, 0, 64, 0}, [stepLen]byte{2, flagMore, 0, 1, 0, 64, 0})              // duplicate
	seed([stepLen]byte{3, 0, 0, 1, 0, 64, 0}, [stepLen]byte{3, flagMore, 0, 9, 0, 64, 0})                     // beyond the end
	seed([stepLen]byte{3, flagMore, 0, 1, 0, 64, 0}, [stepLen]byte{3, flagFar, 255, 255, 0, 8, flagSweep})    // the largest
	seed([stepLen]byte{4, flagMore | flagKeep, 0, 0, 0, 8, 0}, [stepLen]byte{4, flagSweep, 0, 1, 0, 1, 255})  // time-out
	seed([stepLen]byte{0, flagMore, 0, 1, 0, 7, 0}, [stepLen]byte{0, flagMore, 0, 1, 0, 0, 0})                // malformed
	seed([stepLen]byte{5, 0, 0, 0, 5, 0xdc, 0}, [stepLen]byte{5, flagMore | flagKeep, 0, 0, 0, 8, flagSweep}) // whole
	f.Fuzz(func(t *testing.T, history []byte) {
		play(t, history)
	})
}

// TestHistories plays histories that are likelier to make sense than those of a
// fuzzer that has not run for long.
func TestHistories(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var history []byte
		for range 40 {
			s := [stepLen]byte{byte(random.Uint32() % 3)}
			if random.Uint32()%4 > 0 {
				s[1] |= flagMore
			}
			if random.Uint32()%8 == 0 {
				s[1] |= flagSweep
			}
			if random.Uint32()%8 == 0 {
				s[1] |= flagKeep
			}
			s[3] = byte(random.Uint32() % 6)
			s[5] = byte(1+random.Uint32()%3) * 8
			if s[1]&flagMore == 0 {
				s[5] -= byte(random.Uint32() % 8)
			}
			if random.Uint32()%16 == 0 {
				s[6] = byte(random.Uint32() % 32)
			}
			history = append(history, s[:]...)
		}
		play(t, history)
	}
}

func play(t *testing.T, history []byte) {
	const timeout, wait = 200, 16
	table := fragment.New(fragment.Config{Datagrams: 64, HeldBytes: 1 << 16, Timeout: timeout, Wait: wait})
	m := &model{timeout: timeout, wait: wait, datagrams: map[fragment.Key]*modelDatagram{}}
	now, lost := flow.Tick(1<<32-100), 0
	for n := 0; len(history) >= stepLen && n < 60; n++ {
		s := step(history[:stepLen])
		history = history[stepLen:]
		now += flow.Tick(s[6])
		key := fragment.Key{ID: uint32(s[0] % 6), Proto: 17}
		flags := s[1]
		span := fragment.Span{
			Offset: int(binary.BigEndian.Uint16(s[2:])%4096) * 8,
			Length: int(binary.BigEndian.Uint16(s[4:]) % 4096),
			More:   flags&flagMore != 0,
		}
		if flags&flagFar != 0 {
			span.Offset += 4096 * 8
		}
		var first *fragment.Ports
		if span.Offset == 0 {
			first = &fragment.Ports{Src: uint16(n), Dst: 53, Proto: 17}
		}
		if flags&flagSweep != 0 {
			lost += table.Expire(now)
			m.sweep(now)
		}
		got, want := table.Track(&key, span, first, now), m.track(key, span, first, now)
		if got != want {
			t.Fatalf("step %d: %+v of %d at %d: %+v, want %+v", n, span, key.ID, now, got, want)
		}
		switch got.Action {
		case fragment.Hold:
			frame := bytes.Repeat([]byte{byte(n)}, 1+n)
			meta := fragment.Meta{Ingress: uint16(n)}
			if !table.Hold(&key, frame, meta) {
				t.Fatalf("step %d: not held", n)
			}
			d := m.datagrams[key]
			d.held = append(d.held, modelFrame{frame, meta})
		case fragment.Forward:
			for flags&flagKeep == 0 {
				frame, meta, ok := table.Next(&key)
				want, wantOK := m.next(key)
				if ok != wantOK || !bytes.Equal(frame, want.bytes) || meta != want.meta {
					t.Fatalf("step %d: held %x %v %v, want %x %v %v", n, frame, meta, ok, want.bytes, want.meta, wantOK)
				}
				if !ok {
					break
				}
			}
		case fragment.Drop:
			if _, _, ok := table.Next(&fragment.Key{ID: 77}); ok {
				t.Fatal("a datagram that is not there has held fragments")
			}
		}
	}
	settle(t, table, m, now, &lost)
	settle(t, table, m, now+timeout+1, &lost)
	if table.Len() != 0 || table.Held() != 0 {
		t.Fatalf("after the time-out %d datagrams and %d held are left", table.Len(), table.Held())
	}
}

// settle lets the table do all that is due and compares the gauges.
func settle(t *testing.T, table *fragment.Table, m *model, now flow.Tick, lost *int) {
	m.sweep(now)
	for range 64 {
		*lost += table.Expire(now)
	}
	if table.Held() != m.held() || *lost != m.lost {
		t.Fatalf("%d held and %d lost, want %d and %d", table.Held(), *lost, m.held(), m.lost)
	}
	if len(m.datagrams) != table.Len() {
		t.Fatalf("%d datagrams, want %d", table.Len(), len(m.datagrams))
	}
}

package nat

import (
	"encoding/binary"
	"math/bits"
	"testing"

	"weir/dataplane/packet"
)

// station returns a different one for each n.
func station(n int) Station {
	st := Station{MAC: packet.MAC{byte(n&3)<<2 | 2}, Interface: uint16(n >> 16)}
	binary.BigEndian.PutUint16(st.MAC[4:], uint16(n))
	return st
}

// is tells whether a frame of a station is taken for one of the station with an id.
func is(s *Stations, id uint16, st *Station) bool {
	return s.Sends(id, SourceOf(frameOf(st)), st.VLAN, st.Tagged, st.Interface)
}

// frameOf returns the beginning of a frame that a station has sent.
func frameOf(st *Station) []byte {
	return append(append(make([]byte, 6), st.MAC[:]...), 0x81, 0)
}

func intern(t testing.TB, s *Stations, st Station) uint16 {
	t.Helper()
	id, ok := s.Intern(&st)
	if !ok || *s.At(id) != st || !is(s, id, &st) {
		t.Fatalf("intern %v: %d, %v", st, id, ok)
	}
	return id
}

// Every field tells stations apart, and nothing else does.
func TestInternTellsApart(t *testing.T) {
	s := NewStations()
	mac := packet.MAC{2, 0, 0, 0, 0, 1}
	all := []Station{
		{MAC: mac},
		{MAC: packet.MAC{2, 0, 0, 0, 0, 2}},
		{MAC: packet.MAC{3, 0, 0, 0, 0, 1}},
		{MAC: mac, Interface: 1},
		{MAC: mac, Interface: 256},
		{MAC: mac, Tagged: true}, // a tag with a priority only
		{MAC: mac, Tagged: true, VLAN: 1},
		{MAC: mac, Tagged: true, VLAN: 4095},
		{MAC: mac, Tagged: true, VLAN: 4095, Interface: 1},
	}
	ids := map[uint16]bool{}
	for _, st := range all {
		id := intern(t, s, st)
		if ids[id] {
			t.Errorf("%v has the id of another one", st)
		}
		ids[id] = true
		if again := intern(t, s, st); again != id {
			t.Errorf("%v: id %d, then %d", st, id, again)
		}
		for _, other := range all {
			if got := is(s, id, &other); got != (other == st) {
				t.Errorf("is %v %v: %v", st, other, got)
			}
		}
	}
	if s.Len() != len(all) {
		t.Errorf("len %d, want %d", s.Len(), len(all))
	}
}

func TestStationReferences(t *testing.T) {
	s := NewStations()
	st := station(1)
	id := intern(t, s, st)
	intern(t, s, st)
	s.Release(id)
	if s.Len() != 1 || !is(s, id, &st) {
		t.Error("gone with a reference left")
	}
	s.Release(id)
	if s.Len() != 0 {
		t.Error("still there without a reference")
	}
	for _, id := range []uint16{id, 1, 300, NoStation} { // all without references
		s.Release(id)
		if s.Len() != 0 {
			t.Errorf("released %d, which is free: len %d", id, s.Len())
		}
	}
	if is(s, NoStation, &Station{}) || is(s, 5, &Station{}) {
		t.Error("an id that was never given is the zero station")
	}
	if again := intern(t, s, station(2)); again != id {
		t.Errorf("id %d, want %d again", again, id)
	}
}

// 65535 fit, the next does not, and one less makes room for one.
func TestStationsFull(t *testing.T) {
	s := NewStations()
	var seen [1 << 16]bool
	for n := range MaxStations {
		id := intern(t, s, station(n))
		if seen[id] || id == NoStation {
			t.Fatalf("station %d has id %d", n, id)
		}
		seen[id] = true
	}
	extra := station(MaxStations)
	if id, ok := s.Intern(&extra); ok || id != NoStation {
		t.Errorf("one too many: %d, %v", id, ok)
	}
	if is(s, NoStation, &extra) {
		t.Error("NoStation is somebody's")
	}
	known := intern(t, s, station(77))
	s.Release(known)
	s.Release(known)
	if id := intern(t, s, extra); id != known {
		t.Errorf("id %d, want the free one, %d", id, known)
	}
	if s.Len() != MaxStations {
		t.Errorf("len %d, want %d", s.Len(), MaxStations)
	}
	for n := range MaxStations + 1 {
		if st := station(n); n != 77 {
			id := intern(t, s, st)
			s.Release(id)
			s.Release(id)
		}
	}
	if s.Len() != 0 {
		t.Errorf("%d are left", s.Len())
	}
	for i, id := range s.table {
		if id != 0 {
			t.Fatalf("place %d of the table is not empty", i)
		}
	}
}

// A flood of random sources, each gone after a while, leaves short ways: the
// longest stretch without a gap is what the worst look-up has to pass. With one
// place in two in use, Θ(log n) is expected; 400 never happens unless removal
// leaves something behind or stations gather.
func TestFloodLeavesShortWays(t *testing.T) {
	s, rng := NewStations(), random(11)
	ids := make([]uint16, 0, MaxStations)
	for range 300000 {
		st := Station{Interface: 1}
		binary.BigEndian.PutUint32(st.MAC[2:], rng.Uint32())
		if id, ok := s.Intern(&st); ok {
			ids = append(ids, id)
		}
		if len(ids) == MaxStations {
			for range 1000 {
				i := rng.IntN(len(ids))
				s.Release(ids[i])
				ids[i] = ids[len(ids)-1]
				ids = ids[:len(ids)-1]
			}
		}
	}
	longest, stretch, used := 0, 0, 0
	for i := range 2 * tableSlots { // twice, for the stretch across the end
		if s.table[i%tableSlots] == 0 {
			stretch = 0
			continue
		}
		used++
		stretch++
		longest = max(longest, stretch)
	}
	if used/2 != s.Len() || longest > 400 {
		t.Errorf("%d places in use for %d stations, %d in a row", used/2, s.Len(), longest)
	}
}

// The place in the table must depend on every bit of a station and on the key.
func TestStationHash(t *testing.T) {
	s, other, rng := NewStations(), NewStations(), random(12)
	for i := range s.keys {
		s.keys[i] = rng.Uint64()
	}
	const trials = 2000
	for name, flip := range map[string]func(*Station, *Stations){
		"MAC first bit":  func(st *Station, _ *Stations) { st.MAC[0] ^= 1 },
		"MAC last bit":   func(st *Station, _ *Stations) { st.MAC[5] ^= 0x80 },
		"VLAN first bit": func(st *Station, _ *Stations) { st.VLAN ^= 1 },
		"VLAN last bit":  func(st *Station, _ *Stations) { st.VLAN ^= 0x800 },
		"tagged":         func(st *Station, _ *Stations) { st.Tagged = !st.Tagged },
		"interface":      func(st *Station, _ *Stations) { st.Interface ^= 1 },
		"key 0":          func(_ *Station, s *Stations) { s.keys[0] ^= 1 << 40 },
		"key 1":          func(_ *Station, s *Stations) { s.keys[1] ^= 1 << 40 },
		"key 2":          func(_ *Station, s *Stations) { s.keys[2] ^= 1 << 40 },
		"key 3":          func(_ *Station, s *Stations) { s.keys[3] ^= 1 << 40 },
	} {
		changed := 0 // of 17 bits
		for range trials {
			st := Station{VLAN: uint16(rng.IntN(4096)), Interface: uint16(rng.IntN(8))}
			binary.BigEndian.PutUint32(st.MAC[1:], rng.Uint32())
			before := s.hash(&st)
			other.keys = s.keys
			flip(&st, other)
			changed += bits.OnesCount32(before ^ other.hash(&st))
		}
		if mean := float64(changed) / trials; mean < 7.5 || mean > 9.5 {
			t.Errorf("%s changes %.2f of 17 bits, want about half", name, mean)
		}
	}
}

// runStations runs Stations and a map side by side. The keys are such that all
// stations of interface 0 belong to one of four places just before the end of
// the table, so that they are in each other's way and go on at its beginning.
func runStations(t *testing.T, data []byte) {
	s := NewStations()
	s.keys = [4]uint64{0, 0, 1, tableSlots - 8}
	references := map[Station]int{}
	ids := map[Station]uint16{}
	for ; len(data) >= 2; data = data[2:] {
		st := station(int(data[1]) | int(data[0]&0x70)<<12)
		switch {
		case data[0]&1 == 0 || data[0]&0xf == 1:
			id, ok := s.Intern(&st)
			if !ok || references[st] > 0 && ids[st] != id {
				t.Fatalf("intern %v: %d, %v, was %d", st, id, ok, ids[st])
			}
			for other, n := range references {
				if n > 0 && other != st && ids[other] == id {
					t.Fatalf("%v and %v have id %d", st, other, id)
				}
			}
			ids[st] = id
			references[st]++
		case references[st] > 0:
			s.Release(ids[st])
			if references[st]--; references[st] == 0 {
				delete(references, st)
			}
		}
		if s.Len() != len(references) {
			t.Fatalf("len %d, want %d", s.Len(), len(references))
		}
	}
	used := 0
	for _, id := range s.table {
		if id != 0 {
			used++
		}
	}
	if used != len(references) {
		t.Fatalf("%d places of the table in use for %d stations", used, len(references))
	}
	for st := range references {
		if id := intern(t, s, st); id != ids[st] || *s.At(id) != st {
			t.Fatalf("%v: id %d, want %d", st, id, ids[st])
		}
	}
}

func TestStationsAgainstModel(t *testing.T) {
	rng := random(13)
	data := make([]byte, 6000)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	runStations(t, data)
}

func FuzzStations(f *testing.F) {
	f.Add([]byte{0, 1, 0, 1, 3, 1, 3, 1, 0, 2})             // two references, then another one
	f.Add([]byte{0, 1, 0, 2, 0, 3, 3, 2, 0, 3, 3, 1, 0, 2}) // one out of the middle
	f.Fuzz(func(t *testing.T, data []byte) { runStations(t, data[:min(len(data), 2000)]) })
}

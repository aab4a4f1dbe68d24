package nat

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"

	"weir/dataplane/packet"
)

const (
	// MaxStations is how many different stations there can be at a time.
	MaxStations = 1<<16 - 1

	// NoStation is an id that no station has, for a flow without one.
	NoStation = MaxStations

	// chunkStations is how many stations memory is allocated for at a time.
	chunkStations = 256

	// tableSlots is a power of two, so that the table is at most half full.
	tableSlots = 1 << 17
)

// Station is a neighbour on a link: where a client's packets come from and
// where the answers go back to, be it the client or a router.
type Station struct {
	MAC       packet.MAC
	VLAN      uint16 // 12 bits; 0 if not Tagged, so that equal ones compare equal
	Tagged    bool   // whether frames have an 802.1Q tag
	Interface uint16 // the caller's number of the interface
}

// Stations gives each Station a number of 16 bits while a flow refers to it, so
// that a flow's entry needs no more than that.
//
// It takes 256 KiB, and 4.5 KiB more for every 256 stations that there have
// been at a time: 1.4 MiB at most. Stations are found by open addressing with
// linear probing; what is removed closes its gap, so no flood of source
// addresses leaves anything behind that later look-ups have to pass.
type Stations struct {
	table  [tableSlots]uint16 // id + 1, or 0 if the place is free
	chunks [(MaxStations + chunkStations - 1) / chunkStations]*chunk
	keys   [4]uint64 // secret, so that nobody can aim at one place of the table
	made   int       // ids that exist; they are below it
	len    int       // ids with references
	free   uint16    // first id without references, or NoStation
}

// chunk has the stations of 256 neighbouring ids.
type chunk struct {
	records [chunkStations]record
	next    [chunkStations]uint16 // of an id without references: the next of these, or NoStation
}

type record struct {
	Station
	references uint32
}

// NewStations returns an empty table with a secret of its own.
func NewStations() *Stations {
	s := &Stations{free: NoStation}
	var secret [len(s.keys) * 8]byte
	rand.Read(secret[:]) // never fails, by its documentation
	for i := range s.keys {
		s.keys[i] = binary.NativeEndian.Uint64(secret[i*8:])
	}
	return s
}

// hash multiplies what two secrets have met, and once more so that every bit
// reaches every bit.
func (s *Stations) hash(st *Station) uint32 {
	a := uint64(binary.LittleEndian.Uint32(st.MAC[:])) | uint64(binary.LittleEndian.Uint16(st.MAC[4:]))<<32 | uint64(st.VLAN)<<48
	b := uint64(st.Interface)
	if st.Tagged {
		b |= 1 << 16
	}
	hi, lo := bits.Mul64(a^s.keys[0], b^s.keys[1])
	hi, lo = bits.Mul64(hi^lo^s.keys[2], a^s.keys[3])
	return uint32(hi^lo) % tableSlots
}

func (s *Stations) record(id uint16) *record {
	return &s.chunks[id/chunkStations].records[id%chunkStations]
}

// Len returns how many different stations have references.
func (s *Stations) Len() int { return s.len }

// Intern returns the id of a station, 0 to MaxStations-1, and adds one
// reference to it. It reports false, with NoStation, if the station is new and
// there are MaxStations others.
//
// It allocates memory for 256 stations when there are more of them than ever
// before.
func (s *Stations) Intern(st *Station) (id uint16, ok bool) {
	at := s.hash(st)
	for ; s.table[at] != 0; at = (at + 1) % tableSlots {
		id = s.table[at] - 1
		if r := s.record(id); r.Station == *st {
			r.references++
			return id, true
		}
	}
	if id, ok = s.allocate(); !ok {
		return NoStation, false
	}
	s.table[at] = id + 1
	*s.record(id) = record{Station: *st, references: 1}
	s.len++
	return id, true
}

// allocate returns an id that has no references.
func (s *Stations) allocate() (id uint16, ok bool) {
	if id = s.free; id != NoStation {
		s.free = s.chunks[id/chunkStations].next[id%chunkStations]
		return id, true
	}
	if s.made == MaxStations {
		return NoStation, false
	}
	id = uint16(s.made)
	if id%chunkStations == 0 {
		s.chunks[id/chunkStations] = new(chunk)
	}
	s.made++
	return id, true
}

// Release takes away a reference that Intern has added. Without references the
// station is forgotten and its id may become another one's. For an id that has
// none, NoStation among them, it does nothing.
func (s *Stations) Release(id uint16) {
	if int(id) >= s.made {
		return
	}
	r := s.record(id)
	if r.references == 0 {
		return
	}
	if r.references--; r.references > 0 {
		return
	}
	s.remove(id)
	s.chunks[id/chunkStations].next[id%chunkStations] = s.free
	s.free = id
	s.len--
}

// remove takes an id out of the table, and moves those after it that were
// displaced by it, up to the next free place (Knuth, The Art of Computer
// Programming, volume 3, §6.4, algorithm R).
func (s *Stations) remove(id uint16) {
	gap := s.hash(&s.record(id).Station)
	for s.table[gap] != id+1 {
		gap = (gap + 1) % tableSlots
	}
	for at := (gap + 1) % tableSlots; s.table[at] != 0; at = (at + 1) % tableSlots {
		home := s.hash(&s.record(s.table[at] - 1).Station)
		if (at-home)%tableSlots >= (at-gap)%tableSlots {
			s.table[gap] = s.table[at]
			gap = at
		}
	}
	s.table[gap] = 0
}

// At returns the station of an id that has references. It must not be changed,
// and is good for as long as there is a reference.
func (s *Stations) At(id uint16) *Station { return &s.record(id).Station }

// SourceOf returns the source of an Ethernet frame as Sends wants it.
func SourceOf(frame []byte) uint64 {
	const address = 1<<48 - 1
	return binary.LittleEndian.Uint64(frame[6:]) & address
}

// Sends reports whether a frame with this source, tag and interface is from the
// station with an id: the check for every packet of a flow whether it still comes
// from the same neighbour. No frame is from NoStation.
func (s *Stations) Sends(id uint16, source uint64, vlan uint16, tagged bool, iface uint16) bool {
	if int(id) >= s.made {
		return false
	}
	r := s.record(id)
	mac := uint64(binary.LittleEndian.Uint32(r.MAC[0:])) | uint64(binary.LittleEndian.Uint16(r.MAC[4:]))<<32
	return mac == source && r.VLAN == vlan && r.Tagged == tagged && r.Interface == iface
}

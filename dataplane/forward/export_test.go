package forward

import (
	"reflect"

	"weir/dataplane/packet"
)

// Flags of flow.NATState, for tests that look into the flow table.
const (
	NATFlow = natFlow
	NATKept = natKeep
)

// NATUse is how much of everything there is for NAT is in use.
type NATUse struct {
	Index    int // answers that are known
	Flows    int // with a SNAT port
	Stations int // different ones
}

// NATUse returns what is in use.
func (f *Forwarder) NATUse() NATUse {
	if f.nat.index == nil {
		return NATUse{}
	}
	_, flows := f.nat.ports.InUse()
	return NATUse{Index: f.nat.index.Len(), Flows: flows, Stations: f.nat.stations.Len()}
}

// Tried returns how many ports were tried for the latest new flow.
func (f *Forwarder) Tried() int { return f.nat.tried }

// Blocks returns how many blocks of SNAT ports the worker has.
func (f *Forwarder) Blocks() int {
	if f.nat.ports == nil {
		return 0
	}
	blocks, _ := f.nat.ports.InUse()
	return blocks
}

// Retired returns the addresses of the backends that have been taken away and are
// remembered, by slot and generation.
func (f *Forwarder) Retired() map[[2]uint32][16]byte {
	all := make(map[[2]uint32][16]byte)
	for key, b := range f.nat.retired {
		all[[2]uint32{key.slot, key.generation}] = b.addr
	}
	return all
}

// Knows tells whether the next packet of a flow would be taken for what it is
// without a look at its service, as it stands.
func (f *Forwarder) Knows(t packet.Tuple) bool {
	var places [1]uint32
	f.flows.Prefetch([]uint64{f.flows.Hash(&t)}, places[:])
	p := packet.Parsed{Tuple: t, TCPFlags: packet.TCPAck}
	return f.flows.Known(places[:], []packet.Parsed{p}, f.mark, f.now) == 1
}

// TargetSize is what a worker has for each backend of what every packet needs, in bytes.
func TargetSize() uintptr { return reflect.TypeFor[target]().Size() }

// ReadBackendsAhead has backends be read ahead however few there are.
func (f *Forwarder) ReadBackendsAhead() { f.many = 0 }

package balancer

import (
	"fmt"
	"net/netip"

	"weir/dataplane/engine"
	"weir/dataplane/limit"
	"weir/dataplane/maglev"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// VIP is the one address that is balanced, on every port.
var VIP = netip.AddrFrom4([4]byte{203, 0, 113, 10})

const (
	// NewRate is how many entries for new flows each worker may make per second:
	// the default of flows.new_rate.
	NewRate = 125_000

	// LimitNewFlows is how many new flows per second mode [Limited] lets pass.
	LimitNewFlows = 20_000
)

// half is how many backends there are from the start, and how many follow.
const half = 4

func backendMAC(slot int) packet.MAC { return packet.MAC{2, 0, 0, 0, 1, byte(slot)} }

// compile makes a snapshot of one service. Its flows go to the first half of
// its backends until they are drained, and then to the other half.
func compile(mode Mode, drained bool, i engine.InterfaceStatus, space *nat.Space) (*snapshot.Snapshot, error) {
	svc := snapshot.Service{Name: string(mode), Empty: stats.NoBackend}
	spec := snapshot.Spec{
		Generation: 1,
		Interfaces: []snapshot.Interface{{Name: i.Name, MAC: i.MAC, MTU: uint32(i.MTU)}},
		NewFlows:   limit.Rate{PerSecond: NewRate},
	}
	if drained {
		spec.Generation = 2
	}
	var weights []maglev.Backend
	for slot := range 2 * half {
		link := rewrite.Link{Src: i.MAC, Dst: backendMAC(slot), MTU: i.MTU}
		b := snapshot.Backend{
			State: snapshot.Keeps, Generation: 1, Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + slot)}).As16(),
		}
		weight := uint32(0)
		if drained == (slot >= half) {
			b.State, weight = snapshot.Active, 1
		}
		var err error
		if mode == NAT || mode == Keep {
			b.Rewrite, err = rewrite.NAT(link, false)
		} else {
			b.Rewrite, err = rewrite.DSR(link, false)
		}
		if err != nil {
			return nil, err
		}
		spec.Backends = append(spec.Backends, b)
		svc.Members = append(svc.Members, uint32(slot))
		weights = append(weights, maglev.Backend{Name: fmt.Sprint(slot), Weight: weight})
	}
	switch mode {
	case NAT:
		svc.Mode = snapshot.NAT
		for n := range byte(4) {
			addr := netip.AddrFrom4([4]byte{10, 0, 0, 240 + n}).As16()
			slots, err := space.Slots([][16]byte{addr})
			if err != nil {
				return nil, err
			}
			spec.SNAT = append(spec.SNAT, snapshot.SNAT{Addr: addr, Range: nat.Range{Slot: slots[0], Lo: 1024, Hi: 65535}})
		}
	case Keep:
		svc.Mode = snapshot.NATKeep
	case Limited:
		svc.Limits.NewFlows = limit.Rate{PerSecond: LimitNewFlows}
	}
	var err error
	if svc.Table, err = maglev.Build(maglev.DefaultSize, weights); err != nil {
		return nil, err
	}
	spec.Services = []snapshot.Service{svc}
	for _, proto := range []uint8{packet.ProtoTCP, packet.ProtoUDP} {
		spec.VIPs = append(spec.VIPs, snapshot.VIPSpec{Addr: VIP.As16(), Proto: proto, Lo: 1, Hi: 65535})
	}
	return snapshot.New(spec)
}

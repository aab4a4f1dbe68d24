package snapshot

import (
	"fmt"
	"math/bits"

	"weir/dataplane/packet"
	"weir/dataplane/rewrite"
)

// Spread shares the flows to one VIP out to several nodes, of which this one
// gets all packets. It is for services of mode Direct: under NAT a flow is its
// node's, which has the SNAT port.
type Spread struct {
	Addr [16]byte // IPv4-mapped for IPv4

	// Table is a Maglev table over Members (maglev.Build by the nodes' names);
	// each entry is an index into it. With the same nodes it is the same on
	// each of them. An empty one spreads nothing.
	Table []uint16

	// Members are the nodes, this one among them.
	Members []SpreadMember
}

// SpreadMember is a node that takes a share of the flows.
type SpreadMember struct {
	Self bool // this node; it needs no Rewrite

	// Rewrite is made by rewrite.DSR. Only the stations and the MTU of its link
	// are used: a frame keeps the VLAN tag that it came with.
	Rewrite rewrite.Rewrite
}

// Member returns the node that a flow of a service belongs to, by nothing but
// its tuple, or its client's prefix where that picks the backend.
func (s *Spread) Member(svc *Service, t *packet.Tuple) *SpreadMember {
	return &s.Members[s.Table[another(svc.hash(t))%uint64(len(s.Table))]]
}

// Is tells whether a frame from this station comes from a member, which has
// decided already that the frame is for this node.
func (s *Spread) Is(station packet.MAC) bool {
	for i := range s.Members {
		if m := &s.Members[i]; !m.Self && m.Rewrite.Station() == station {
			return true
		}
	}
	return false
}

// another turns a stable hash into another one. Were the member taken from the
// same hash as the backend, by tables of the same size, each node would have the
// flows of some of the backends only.
func another(hash uint64) uint64 {
	// The next 16 bytes of pi after those in package flow.
	hi, lo := bits.Mul64(hash^0xc0ac29b7c97c50dd, 0x3f84d5b5b5470917)
	return hi ^ lo
}

// addSpreads gives VIPs their spreads. The error names the address whose nodes
// cannot be sent to, or of which none or several are this node.
func (s *Snapshot) addSpreads(spreads []Spread) error {
	for i := range spreads {
		spread := &spreads[i]
		vip := s.vips.find(&spread.Addr)
		if vip == nil || vip.SNAT != nil || len(spread.Table) == 0 {
			continue
		}
		addr := packet.NetipAddr(spread.Addr)
		selves := 0
		for j := range spread.Members {
			m := &spread.Members[j]
			switch {
			case m.Self:
				selves++
			case m.Rewrite.Station().IsZero() || m.Rewrite.Station().IsMulticast():
				return fmt.Errorf("build snapshot: spread %s: member %d is at no station: %s", addr, j, m.Rewrite.Station())
			case int(m.Rewrite.Egress) >= len(s.Interfaces):
				return fmt.Errorf("build snapshot: spread %s: member %d: there is no interface %d", addr, j, m.Rewrite.Egress)
			}
		}
		if selves != 1 {
			return fmt.Errorf("build snapshot: spread %s: %d of its members are this node", addr, selves)
		}
		vip.Spread = spread
		for _, ranges := range [][]portRange{vip.tcp, vip.udp} {
			for _, r := range ranges {
				svc := &s.Services[r.service]
				svc.spread = svc.spread || svc.Mode == Direct
			}
		}
	}
	return nil
}

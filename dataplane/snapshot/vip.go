package snapshot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sort"

	"weir/dataplane/packet"
)

// VIPSpec gives one port range of one VIP to a service.
type VIPSpec struct {
	Addr    [16]byte // IPv4-mapped for IPv4
	Proto   uint8    // packet.ProtoTCP or packet.ProtoUDP
	Lo, Hi  uint16   // first and last port of the range
	Service uint32   // index into Spec.Services
}

// Reject says what the sender of a packet to a closed port of a VIP is told.
type Reject uint8

const (
	RejectSilently Reject = iota // nothing
	RejectICMP                   // ICMP port unreachable
	RejectReset                  // TCP: a reset; else ICMP port unreachable
)

// VIPPolicy is how one VIP behaves as a host.
type VIPPolicy struct {
	Addr   [16]byte // IPv4-mapped for IPv4
	Mute   bool     // does not answer ping (now)
	Reject Reject

	// Silent says that another node announces the VIP, or none does: nobody is
	// answered who asks for it by ARP or NDP, and a station that claims it is not
	// in conflict with this one. Packets that come for it all the same are
	// handled as for any VIP.
	Silent bool
}

// VIP is one virtual address and the services on it, or a SNAT address.
type VIP struct {
	addr   [16]byte
	tcp    []portRange // sorted by lo, never overlapping
	udp    []portRange
	Policy VIPPolicy

	// SNAT is set for a SNAT address: backends send there, not clients.
	SNAT *SNAT

	// Spread is set for a VIP whose flows other nodes take their share of.
	Spread *Spread
}

// Silent tells whether questions for the address are left to others.
func (v *VIP) Silent() bool { return v.Policy.Silent || v.SNAT != nil && v.SNAT.Silent }

type portRange struct {
	lo, hi  uint16
	service uint32
}

// Service returns the index of the service on a protocol and port, or None.
func (v *VIP) Service(proto uint8, port uint16) uint32 {
	ranges := v.tcp
	if proto == packet.ProtoUDP {
		ranges = v.udp
	}
	// The first range that does not end before port is the only candidate.
	lo, hi := 0, len(ranges)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if ranges[mid].hi < port {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(ranges) || ranges[lo].lo > port {
		return None
	}
	return ranges[lo].service
}

// vipTable is an open-addressing hash table with linear probing, at most half
// full, so that a look-up is one cache line in the usual case.
type vipTable struct {
	slots []vipSlot // a power of two, at least one of them free
	vips  []VIP

	claims []VIPSpec // that it was built from
	snat   []SNAT
}

type vipSlot struct {
	addr [16]byte
	vip  uint32 // index into vips plus one; 0 is a free slot
}

func (t *vipTable) find(addr *[16]byte) *VIP {
	mask := uint64(len(t.slots) - 1)
	for i := hashAddr(addr) & mask; ; i = (i + 1) & mask {
		slot := &t.slots[i]
		if slot.vip == 0 {
			return nil
		}
		if slot.addr == *addr {
			return &t.vips[slot.vip-1]
		}
	}
}

// hashAddr mixes an address by one 64×64→128-bit multiplication, folded. VIPs
// come from the configuration, so no seed has to keep an attacker out.
func hashAddr(a *[16]byte) uint64 {
	const k0, k1 = 0x9e3779b97f4a7c15, 0xd1b54a32d192ed03 // odd, of no structure
	hi, lo := bits.Mul64(
		binary.LittleEndian.Uint64(a[0:8])^k0,
		binary.LittleEndian.Uint64(a[8:16])^k1)
	return hi ^ lo
}

func newVIPTable(spec *Spec) (vipTable, error) {
	services := spec.Services
	sorted := slices.Clone(spec.VIPs)
	sort.Slice(sorted, func(i, j int) bool {
		a, b := &sorted[i], &sorted[j]
		if c := bytes.Compare(a.Addr[:], b.Addr[:]); c != 0 {
			return c < 0
		}
		if a.Proto != b.Proto {
			return a.Proto < b.Proto
		}
		return a.Lo < b.Lo
	})
	t := vipTable{claims: spec.VIPs, snat: spec.SNAT}
	for i := range sorted {
		sp := &sorted[i]
		if uint64(sp.Service) >= uint64(len(services)) {
			return vipTable{}, fmt.Errorf("build snapshot: %s: there is no service %d", packet.NetipAddr(sp.Addr), sp.Service)
		}
		if sp.Lo > sp.Hi {
			return vipTable{}, fmt.Errorf("build snapshot: %s of service %s: port range %d-%d ends before it begins",
				packet.NetipAddr(sp.Addr), services[sp.Service].Name, sp.Lo, sp.Hi)
		}
		if i == 0 || sp.Addr != sorted[i-1].Addr {
			t.vips = append(t.vips, VIP{addr: sp.Addr})
		} else if prev := &sorted[i-1]; prev.Proto == sp.Proto && prev.Hi >= sp.Lo {
			return vipTable{}, fmt.Errorf("build snapshot: services %s and %s both claim %s protocol %d port %d",
				services[prev.Service].Name, services[sp.Service].Name, packet.NetipAddr(sp.Addr), sp.Proto, sp.Lo)
		}
		vip := &t.vips[len(t.vips)-1]
		r := portRange{lo: sp.Lo, hi: sp.Hi, service: sp.Service}
		switch sp.Proto {
		case packet.ProtoTCP:
			vip.tcp = append(vip.tcp, r)
		case packet.ProtoUDP:
			vip.udp = append(vip.udp, r)
		default:
			return vipTable{}, fmt.Errorf("build snapshot: %s: protocol %d is neither TCP nor UDP",
				packet.NetipAddr(sp.Addr), sp.Proto)
		}
	}
	for i := range spec.SNAT {
		t.vips = append(t.vips, VIP{addr: spec.SNAT[i].Addr, SNAT: &spec.SNAT[i]})
	}
	size := 2
	for size < 2*len(t.vips) {
		size *= 2
	}
	t.slots = make([]vipSlot, size)
	for i := range t.vips {
		if t.find(&t.vips[i].addr) != nil {
			return vipTable{}, fmt.Errorf("build snapshot: %s is given twice as a SNAT address, or is a VIP too",
				packet.NetipAddr(t.vips[i].addr))
		}
		t.insert(uint32(i))
	}
	t.setPolicies(spec.Policies)
	return t, nil
}

func (t *vipTable) setPolicies(policies []VIPPolicy) {
	for i := range policies {
		if vip := t.find(&policies[i].Addr); vip != nil {
			vip.Policy = policies[i]
		}
	}
}

// isOf tells whether a table was built from the same slices, which nobody changes.
func (t *vipTable) isOf(spec *Spec) bool {
	return same(t.claims, spec.VIPs) && same(t.snat, spec.SNAT)
}

func same[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// with returns a table of the same VIPs with other policies, and without spreads.
func (t *vipTable) with(policies []VIPPolicy) vipTable {
	n := *t
	n.vips = slices.Clone(t.vips)
	for i := range n.vips {
		n.vips[i].Policy, n.vips[i].Spread = VIPPolicy{}, nil
	}
	n.setPolicies(policies)
	return n
}

func (t *vipTable) insert(vip uint32) {
	addr := &t.vips[vip].addr
	mask := uint64(len(t.slots) - 1)
	i := hashAddr(addr) & mask
	for t.slots[i].vip != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = vipSlot{addr: *addr, vip: vip + 1}
}

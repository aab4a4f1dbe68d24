package ladder

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"weir/dataplane/maglev"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// There is one interface, by which all packets come and go.
var (
	weirMAC   = packet.MAC{0x02, 0, 0, 0, 0, 0x02}
	clientMAC = packet.MAC{0x02, 0, 0, 0, 0, 0x01}
)

const (
	mtu         = 1500
	servicePort = 9 // the discard protocol's

	// snats are how many addresses NAT has: a million flows take a sixteenth of the
	// ports, towards one backend.
	snats = 16

	// maxBackends is what a Maglev table of the usual size has slots for.
	maxBackends = maglev.DefaultSize
)

// address returns a number of 24 bits in a network of the address family.
func address(v6 bool, network byte, number uint32) netip.Addr {
	if !v6 {
		return netip.AddrFrom4([4]byte{network, byte(number >> 16), byte(number >> 8), byte(number)})
	}
	a := [16]byte{0xfd, network}
	binary.BigEndian.PutUint32(a[12:], number)
	return netip.AddrFrom16(a)
}

// Networks.
const (
	clientNet  = 198
	vipNet     = 203
	backendNet = 10
	snatNet    = 11
	tunnelNet  = 12
)

func vipOf(v6 bool, n uint32) netip.Addr        { return address(v6, vipNet, n) }
func backendOf(v6 bool, slot uint32) netip.Addr { return address(v6, backendNet, slot+1) }
func backendMAC(slot uint32) (mac packet.MAC) {
	mac[0] = 0x06
	binary.BigEndian.PutUint32(mac[2:], slot)
	return mac
}

// rewriteOf returns what is done to the packets to a backend.
func (m Mode) rewriteOf(slot uint32) (rewrite.Rewrite, error) {
	link := rewrite.Link{Src: weirMAC, Dst: backendMAC(slot), MTU: mtu}
	switch {
	case m.nat():
		return rewrite.NAT(link, m.backend6())
	case m.tunnel():
		return rewrite.IPIP(link, m.client6(), rewrite.Tunnel{
			Source: address(m.backend6(), tunnelNet, 1), Destination: backendOf(m.backend6(), slot),
		})
	}
	return rewrite.DSR(link, m.client6())
}

// table returns a Maglev table for this many backends of the same weight. All
// services have the same, as they have in the appliance if their backends are
// the same.
func (l *ladder) table(backends int) ([]uint16, error) {
	if t := l.tables[backends]; t != nil {
		return t, nil
	}
	t, err := maglev.Build(maglev.DefaultSize, members(0, backends))
	if err == nil {
		l.tables[backends] = t
	}
	return t, err
}

// members returns as many backends of the same weight, from a number on.
func members(first, n int) []maglev.Backend {
	all := make([]maglev.Backend, n)
	for i := range all {
		all[i] = maglev.Backend{Name: fmt.Sprint("backend ", first+i), Weight: 1}
	}
	return all
}

// snapshot returns the snapshot of a world.
func (l *ladder) snapshot(m Mode, services, backends int, space *nat.Space) (*snapshot.Snapshot, error) {
	spec, err := l.spec(m, services, backends, space)
	if err != nil {
		return nil, err
	}
	return snapshot.New(spec)
}

// spec returns what the snapshot of a world is made of: a number of services, one
// on the TCP and the UDP port of a VIP of its own.
func (l *ladder) spec(m Mode, services, backends int, space *nat.Space) (spec snapshot.Spec, err error) {
	spec = snapshot.Spec{
		Generation: 1,
		Interfaces: []snapshot.Interface{{Name: "memory", MAC: weirMAC, MTU: mtu}},
		Services:   make([]snapshot.Service, 0, services),
		Backends:   make([]snapshot.Backend, 0, services*backends),
		VIPs:       make([]snapshot.VIPSpec, 0, 2*services),
	}
	table, err := l.table(backends)
	if err != nil {
		return spec, err
	}
	for n := range uint32(services) {
		svc := snapshot.Service{
			ID: n, Name: fmt.Sprint("service ", n), Table: table, Mode: m.service(), Empty: stats.NoBackend,
			Members: make([]uint32, 0, backends),
		}
		for range backends {
			slot := uint32(len(spec.Backends))
			b := snapshot.Backend{
				State: snapshot.Active, Generation: 1, Service: n, Addr: packet.Addr16(backendOf(m.backend6(), slot)),
			}
			if b.Rewrite, err = m.rewriteOf(slot); err != nil {
				return spec, err
			}
			svc.Members = append(svc.Members, slot)
			spec.Backends = append(spec.Backends, b)
		}
		spec.Services = append(spec.Services, svc)
		for _, proto := range []uint8{packet.ProtoTCP, packet.ProtoUDP} {
			spec.VIPs = append(spec.VIPs, snapshot.VIPSpec{
				Addr: packet.Addr16(vipOf(m.client6(), n)), Proto: proto, Lo: servicePort, Hi: servicePort, Service: n,
			})
		}
	}
	if m.nat() {
		spec.SNAT, err = snatOf(m, space)
	}
	return spec, err
}

func snatOf(m Mode, space *nat.Space) (all []snapshot.SNAT, err error) {
	var addrs [][16]byte
	for n := range uint32(snats) {
		addrs = append(addrs, packet.Addr16(address(m.backend6(), snatNet, n)))
	}
	slots, err := space.Slots(addrs)
	for i, slot := range slots {
		all = append(all, snapshot.SNAT{Addr: addrs[i], Range: nat.Range{Slot: slot, Lo: 1024, Hi: 65535}})
	}
	return all, err
}

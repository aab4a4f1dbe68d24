package forward_test

import (
	"net/netip"

	"weir/dataplane/acl"
	"weir/dataplane/flow"
	"weir/dataplane/limit"
	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
)

// The VIPs that the NAT world has besides those of the fixed world. Each is
// served on tcp/80 and udp/53 by one backend, on eth1 unless the name says
// something else.
var (
	vipNAT44   = netip.MustParseAddr("203.0.113.30")
	vipNAT46   = netip.MustParseAddr("203.0.113.31")
	vipPort44  = netip.MustParseAddr("203.0.113.32") // to port 8443
	vipPort46  = netip.MustParseAddr("203.0.113.33") // to port 8443
	vipKeep4   = netip.MustParseAddr("203.0.113.34")
	vipSmall44 = netip.MustParseAddr("203.0.113.35") // to a backend with a path MTU of 1400
	vipTag44   = netip.MustParseAddr("203.0.113.36") // on eth0, VLAN 7
	vipMute    = netip.MustParseAddr("203.0.113.40") // DSR, answers no ping
	vipICMP    = netip.MustParseAddr("203.0.113.41") // DSR, closed ports are answered by ICMP
	vipReset   = netip.MustParseAddr("203.0.113.42") // DSR, closed ports are answered by a reset
	vipACL     = netip.MustParseAddr("203.0.113.43") // DSR, not for client4
	vipPackets = netip.MustParseAddr("203.0.113.44") // DSR, 3 packets at once
	vipFlows   = netip.MustParseAddr("203.0.113.45") // DSR, 3 new flows at once
	vipSource  = netip.MustParseAddr("203.0.113.46") // DSR, 3 packets at once per /24
	vipSourceF = netip.MustParseAddr("203.0.113.47") // DSR, 3 new flows at once per /32
	vipSilent4 = netip.MustParseAddr("203.0.113.50") // DSR, announced by another node
	vipAll4    = netip.MustParseAddr("203.0.113.51") // DSR, all nodes have a share; tcp/81 is NAT
	vipNAT66   = netip.MustParseAddr("2001:db8:1::30")
	vipNAT64   = netip.MustParseAddr("2001:db8:1::31")
	vipKeep6   = netip.MustParseAddr("2001:db8:1::34")
	vipMute6   = netip.MustParseAddr("2001:db8:1::40")
	vipICMP6   = netip.MustParseAddr("2001:db8:1::41")
	vipReset6  = netip.MustParseAddr("2001:db8:1::42")
	vipSilent6 = netip.MustParseAddr("2001:db8:1::50")
	vipAll6    = netip.MustParseAddr("2001:db8:1::51")

	snat4 = netip.MustParseAddr("10.0.0.240")
	snat6 = netip.MustParseAddr("fd00::f0")
	own4  = netip.MustParseAddr("10.0.0.2") // of the box, shared
	own6  = netip.MustParseAddr("fd00::2")

	client6b = netip.MustParseAddrPort("[2001:db8::1]:4321")
)

// snatPort is the only one there is in the NAT world.
const snatPort = 40000

// natBackend is a backend of the NAT world.
type natBackend struct {
	vip  netip.Addr
	addr netip.Addr
	port uint16 // 0: the VIP's
	mode snapshot.Mode
	link rewrite.Link // Dst is filled in
}

func natBackends() []natBackend {
	eth1 := rewrite.Link{Egress: 1, Src: eth1MAC, MTU: 1500}
	small := rewrite.Link{Egress: 1, Src: eth1MAC, MTU: 1400}
	tagged := rewrite.Link{Src: eth0MAC, MTU: 1500, VLAN: 7}
	addr := netip.MustParseAddr
	return []natBackend{
		{vipNAT44, addr("10.1.0.30"), 0, snapshot.NAT, eth1},
		{vipNAT46, addr("fd01::31"), 0, snapshot.NAT, eth1},
		{vipPort44, addr("10.1.0.32"), 8443, snapshot.NAT, eth1},
		{vipPort46, addr("fd01::33"), 8443, snapshot.NAT, eth1},
		{vipKeep4, addr("10.1.0.34"), 0, snapshot.NATKeep, eth1},
		{vipSmall44, addr("10.1.0.35"), 0, snapshot.NAT, small},
		{vipTag44, addr("10.1.0.36"), 0, snapshot.NAT, tagged},
		{vipNAT66, addr("fd01::30"), 0, snapshot.NAT, eth1},
		{vipNAT64, addr("10.1.0.31"), 0, snapshot.NAT, eth1},
		{vipKeep6, addr("fd01::34"), 8080, snapshot.NATKeep, eth1},
	}
}

func natBackendOf(vip netip.Addr) natBackend {
	for _, b := range natBackends() {
		if b.vip == vip {
			return b
		}
	}
	panic("no such VIP")
}

// natWorld is the world of everything that there is besides DSR and IPIP, and
// of those.
func natWorld(space *nat.Space) *snapshot.Snapshot {
	return must(snapshot.New(natSpec(space, snatPort, snatPort)))
}

func natSpec(space *nat.Space, lo, hi uint16) snapshot.Spec {
	spec := worldSpec()
	for _, b := range natBackends() {
		service, slot := uint32(len(spec.Services)), uint32(len(spec.Backends))
		spec.Services = append(spec.Services, snapshot.Service{
			Name: b.vip.String(), ID: service, Mode: b.mode, Table: []uint16{0}, Members: []uint32{slot},
		})
		b.link.Dst = backendMAC(slot)
		spec.Backends = append(spec.Backends, snapshot.Backend{
			Rewrite: must(rewrite.NAT(b.link, b.addr.Is6())), State: snapshot.Active, Generation: 1,
			Service: service, Addr: b.addr.As16(), Port: b.port,
		})
		claim(&spec, b.vip, service)
	}
	direct := func(vip netip.Addr, change func(*snapshot.Service)) {
		service, slot := uint32(len(spec.Services)), uint32(len(spec.Backends))
		svc := snapshot.Service{Name: vip.String(), ID: service, Table: []uint16{0}, Members: []uint32{slot}}
		change(&svc)
		spec.Services = append(spec.Services, svc)
		spec.Backends = append(spec.Backends, snapshot.Backend{
			Rewrite: must(rewrite.DSR(rewrite.Link{Src: eth0MAC, Dst: backendMAC(slot), MTU: 1500}, vip.Is6())),
			State:   snapshot.Active, Generation: 1, Service: service,
		})
		claim(&spec, vip, service)
	}
	policy := func(vip netip.Addr, p snapshot.VIPPolicy) {
		direct(vip, func(*snapshot.Service) {})
		p.Addr = vip.As16()
		spec.Policies = append(spec.Policies, p)
	}
	for _, vip := range []netip.Addr{vipMute, vipMute6} {
		policy(vip, snapshot.VIPPolicy{Mute: true})
	}
	for _, vip := range []netip.Addr{vipICMP, vipICMP6} {
		policy(vip, snapshot.VIPPolicy{Reject: snapshot.RejectICMP})
	}
	for _, vip := range []netip.Addr{vipReset, vipReset6} {
		policy(vip, snapshot.VIPPolicy{Reject: snapshot.RejectReset})
	}
	three := limit.Rate{PerSecond: 1, Burst: 3}
	direct(vipACL, func(s *snapshot.Service) {
		s.ACL = acl.New(nil, []netip.Prefix{netip.PrefixFrom(client4.Addr(), 32)})
	})
	direct(vipPackets, func(s *snapshot.Service) { s.Limits.Packets = three })
	direct(vipFlows, func(s *snapshot.Service) { s.Limits.NewFlows = three })
	direct(vipSource, func(s *snapshot.Service) { s.Limits.SourcePackets, s.Limits.SourceBits = three, 24 })
	direct(vipSourceF, func(s *snapshot.Service) { s.Limits.SourceNewFlows, s.Limits.SourceBits = three, 32 })
	for _, vip := range []netip.Addr{vipSilent4, vipSilent6} {
		policy(vip, snapshot.VIPPolicy{Silent: true})
	}
	for _, vip := range []netip.Addr{vipAll4, vipAll6} {
		direct(vip, func(*snapshot.Service) {})
		spec.Spreads = append(spec.Spreads, worldSpread(vip))
	}
	for i := range spec.Services {
		if spec.Services[i].Name == vipNAT44.String() {
			spec.VIPs = append(spec.VIPs, snapshot.VIPSpec{
				Addr: vipAll4.As16(), Proto: packet.ProtoTCP, Lo: 81, Hi: 81, Service: uint32(i),
			})
		}
	}
	for _, addr := range []netip.Addr{snat4, snat6} {
		spec.SNAT = append(spec.SNAT, snatOf(space, addr, lo, hi))
	}
	return spec
}

// sharedWorld is natWorld with the box's own addresses in place of weir's.
func sharedWorld(space *nat.Space) *snapshot.Snapshot {
	spec := natSpec(space, snatPort, snatPort)
	spec.SNAT = nil
	for _, addr := range []netip.Addr{own4, own6} {
		s := snatOf(space, addr, snatPort, snatPort)
		s.Shared = true
		spec.SNAT = append(spec.SNAT, s)
	}
	return must(snapshot.New(spec))
}

// silentWorld is natWorld where another node announces all addresses, SNAT
// addresses too.
func silentWorld(space *nat.Space) *snapshot.Snapshot {
	spec := natSpec(space, snatPort, snatPort)
	for _, v := range spec.VIPs {
		spec.Policies = append(spec.Policies, snapshot.VIPPolicy{Addr: v.Addr, Silent: true})
	}
	for i := range spec.SNAT {
		spec.SNAT[i].Silent = true
	}
	return must(snapshot.New(spec))
}

// rareWorld is natWorld where few new flows get an entry.
func rareWorld(space *nat.Space) *snapshot.Snapshot {
	spec := natSpec(space, snatPort, snatPort)
	spec.NewFlows = limit.Rate{PerSecond: 1}
	return must(snapshot.New(spec))
}

func snatOf(space *nat.Space, addr netip.Addr, lo, hi uint16) snapshot.SNAT {
	return snapshot.SNAT{Addr: addr.As16(), Range: nat.Range{Slot: must(space.Slots([][16]byte{addr.As16()}))[0], Lo: lo, Hi: hi}}
}

// answerTo describes what a VIP's backend answers to a client's packet, which is
// TCP with SYN and ACK if that is TCP.
func answerTo(s packettest.Spec) packettest.Spec {
	b := natBackendOf(s.Dst.Addr())
	port := b.port
	if port == 0 {
		port = s.Dst.Port()
	}
	answer := packettest.Spec{
		SrcMAC: otherMAC, DstMAC: eth1MAC, Src: netip.AddrPortFrom(b.addr, port), Dst: seenAs(s),
		Proto: s.Proto, Seq: 0x2000, Ack: s.Seq + 1, ID: 0x0815,
	}
	if b.link.Egress == 0 {
		answer.DstMAC, answer.VLAN = eth0MAC, b.link.VLAN
	}
	if s.Proto == packet.ProtoTCP {
		answer.TCPFlags = packet.TCPSyn | packet.TCPAck
	} else {
		answer.Payload = []byte("answer")
	}
	return answer
}

// seenAs returns what the backend sees the client of a packet as.
func seenAs(s packettest.Spec) netip.AddrPort {
	b := natBackendOf(s.Dst.Addr())
	switch {
	case b.mode == snapshot.NATKeep:
		return s.Src
	case b.addr.Is6():
		return netip.AddrPortFrom(snat6, snatPort)
	}
	return netip.AddrPortFrom(snat4, snatPort)
}

// later is a tick by which everything that is in a flow table is over.
func later() flow.Tick {
	t := flow.DefaultTimeouts()
	return flow.TickAt(t.TCPEstablished+t.UDP) + 16
}

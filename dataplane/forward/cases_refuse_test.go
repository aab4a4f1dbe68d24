package forward_test

import (
	"net/netip"
	"slices"

	"weir/dataplane/nat"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/rewrite"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// sized makes the IP packet of a description n bytes long.
func sized(s packettest.Spec, n int) packettest.Spec {
	headers := 20
	if s.Dst.Addr().Is6() {
		headers = 40
	}
	if headers += 20; s.Proto == packet.ProtoUDP {
		headers -= 12
	}
	s.Payload = make([]byte, n-headers)
	for i := range s.Payload {
		s.Payload[i] = byte(i)
	}
	return s
}

func whole(s *packettest.Spec) { s.DontFragment = true }

// tooBigCases are packets that are longer than what the way has room for.
func tooBigCases() []goldenCase {
	frame := packettest.Frame
	var cases []goldenCase
	for _, v := range []struct {
		name string
		vip  netip.Addr
		room int // for the client's packets, in bytes
		back int // for the backend's; 0 if they do not come by here
	}{
		{"dsr4", vipDSR4, 1500, 0}, {"dsr6", vipDSR6, 1500, 0},
		{"4in4", vip4in4, 1480, 0}, {"4in6", vip4in6, 1460, 0}, {"6in6", vip6in6, 1460, 0}, {"6in4", vip6in4, 1480, 0},
		{"nat44", vipNAT44, 1500, 1500}, {"nat66", vipNAT66, 1500, 1500},
		{"nat46", vipNAT46, 1480, 1520}, {"nat64", vipNAT64, 1520, 1480},
		{"keep4", vipKeep4, 1500, 1500}, {"keep6", vipKeep6, 1500, 1500}, {"small44", vipSmall44, 1400, 1500},
	} {
		udp := with(udpTo(v.vip), whole)
		cases = append(cases, natCase("mtu-"+v.name, "one that just fits, and one byte more: the sender is told what does",
			in(frame(sized(udp, v.room))), in(frame(sized(udp, v.room+1)))))
		if v.vip.Is4() {
			tcp := with(to(v.vip), func(s *packettest.Spec) { s.IPOptions = 2 })
			tcp.Payload = make([]byte, 3000)
			cases = append(cases, natCase("fragmented-"+v.name, "a sender that does not mind: weir takes it apart",
				in(frame(sized(udpTo(v.vip), v.room+1))), in(frame(sized(udpTo(v.vip), 4000))), in(frame(tcp))))
		}
		if v.back == 0 {
			continue
		}
		answer := with(answerTo(udp), whole)
		cases = append(cases, natCase("mtu-answer-"+v.name, "the backend is told the same, by the address that it sends to",
			in(frame(udp)), back(frame(sized(answer, v.back))), back(frame(sized(answer, v.back+1)))))
		if answer.Src.Addr().Is4() {
			answer.DontFragment = false
			cases = append(cases, natCase("fragmented-answer-"+v.name, "or its answer is taken apart",
				in(frame(udp)), back(frame(sized(answer, v.back+1))), back(frame(sized(answer, 4000)))))
		}
	}
	big := frame(sized(with(udpTo(vipDSR4), whole), 1501))
	limited := natCase("mtu-limited", "who does not listen is not told for ever", in(big).dropped(stats.TooBig))
	for range 20 {
		limited.before = append(limited.before, in(big))
	}
	unsummed := func(n int) packettest.Spec {
		return with(sized(udpTo(vipNAT46), n), func(s *packettest.Spec) { s.NoUDPChecksum = true })
	}
	thrice := slices.Repeat([]step{in(frame(sized(udpTo(vipPackets), 4000)))}, 3)
	pieces := packettest.Fragments(sized(with(udpTo(vip4in4), whole), 3000), 1480)
	again := packettest.Fragments(sized(udpTo(vip4in4), 3000), 1480)
	small := smallTunnel(vip6in6)
	return append(cases, limited, small, small64(),
		natCase("fragmented-no-checksum-nat46", "pieces could not get the checksum that IPv6 demands (RFC 7915 section 4.5); who may not be cut is told",
			in(frame(unsummed(1480))), in(frame(unsummed(1481))).dropped(stats.Untranslatable),
			in(frame(with(unsummed(1481), whole)))),
		natCase("fragmented-limit-packets", "three at once, however many pieces each is cut into",
			append(thrice, thrice[0].dropped(stats.ServiceLimit))...),
		natCase("mtu-fragments", "fragments that are too long, and may not be fragmented again",
			in(pieces[0]), in(pieces[1]).dropped(stats.TooBig), in(pieces[2])),
		natCase("fragmented-fragments", "fragments are taken apart again", steps(0, again...)...),
		natCase("fragmented-fragments-reversed", "the last of them first", steps(0, reverse(again)...)...),
		natCase("mtu-tagged", "the answer goes back into the same VLAN",
			in(frame(sized(with(udpTo(vipDSR6), func(s *packettest.Spec) { s.VLAN = 9 }), 1501)))),
		natCase("mtu-group-source", "a sender that is nobody is not told", in(frame(sized(with(udpTo(vipDSR4), func(s *packettest.Spec) {
			s.Src, s.DontFragment = netip.MustParseAddrPort("224.0.0.1:99"), true
		}), 1501))).dropped(stats.TooBig)),
	)
}

// smallTunnel is a case of a way with room for less than IPv6's least MTU.
func smallTunnel(vip netip.Addr) goldenCase {
	return goldenCase{
		name: "mtu-hopeless", why: "less than 1280 bytes of room: no sender of IPv6 could be told",
		world: func(space *nat.Space) *snapshot.Snapshot {
			spec := natSpec(space, snatPort, snatPort)
			link := rewrite.Link{Src: eth0MAC, Dst: backendMAC(4), MTU: 1280}
			spec.Backends[4].Rewrite = must(rewrite.IPIP(link, true, tunnelTo(4, true)))
			return must(snapshot.New(spec))
		},
		steps: []step{in(packettest.Frame(sized(udpTo(vip), 1280))).dropped(stats.TooBig), in(packettest.Frame(sized(udpTo(vip), 1240)))},
	}
}

// small64 is a case of an IPv4 path with room for less than an IPv6 sender can be
// told.
func small64() goldenCase {
	udp := udpTo(vipNAT64)
	return goldenCase{
		name: "mtu-small-nat64", why: "the path takes 1000 bytes: routers on it may cut what is not more than IPv6's least MTU, and of more the sender is told that (RFC 7915 section 5.1)",
		world: func(space *nat.Space) *snapshot.Snapshot {
			spec := natSpec(space, snatPort, snatPort)
			for slot := range spec.Backends {
				if b := &spec.Backends[slot]; b.Addr == natBackendOf(vipNAT64).addr.As16() {
					link := rewrite.Link{Egress: 1, Src: eth1MAC, Dst: backendMAC(uint32(slot)), MTU: 1000}
					b.Rewrite = must(rewrite.NAT(link, false))
				}
			}
			return must(snapshot.New(spec))
		},
		steps: steps(0, packettest.Frame(sized(udp, 1000)), packettest.Frame(sized(udp, 1280)), packettest.Frame(sized(udp, 1281))),
	}
}

// refusalCases are about what a VIP says as a host.
func refusalCases() []goldenCase {
	frame := packettest.Frame
	closed := func(s packettest.Spec) packettest.Spec {
		s.Dst = netip.AddrPortFrom(s.Dst.Addr(), 81)
		return s
	}
	var cases []goldenCase
	for _, v := range []struct {
		name               string
		icmp, reset, muted netip.Addr
	}{{"4", vipICMP, vipReset, vipMute}, {"6", vipICMP6, vipReset6, vipMute6}} {
		data := func(vip netip.Addr) packettest.Spec { return closed(ack(to(vip), "data")) }
		cases = append(cases,
			natCase("ping-mute"+v.name, "the VIP is not to answer now", in(packettest.EchoRequest(to(v.muted), 1, 1)).dropped(stats.PingRefused)),
			natCase("reject-icmp"+v.name, "a closed port is said to be closed", in(frame(closed(to(v.icmp)))), in(frame(closed(udpTo(v.icmp))))),
			natCase("reject-rst"+v.name, "by a reset if it is TCP",
				in(frame(closed(to(v.reset)))), in(frame(data(v.reset))), in(frame(closed(udpTo(v.reset))))),
			natCase("reject-rst-reset"+v.name, "but not to a reset",
				in(frame(closed(flags(to(v.reset), packet.TCPRst)))).dropped(stats.NoService)),
			natCase("reject-fragment"+v.name, "nor to a fragment", in(pieces(closed(udpTo(v.icmp)))[0]).dropped(stats.NoService)),
			natCase("reject-tagged"+v.name, "the answer goes back into the same VLAN",
				in(frame(with(data(v.reset), func(s *packettest.Spec) { s.VLAN = 9 })))),
			natCase("reject-open"+v.name, "ports that are open stay so", in(frame(to(v.icmp))), in(frame(udpTo(v.reset)))),
		)
	}
	limited := natCase("reject-limited", "who asks too often gets no answer", in(frame(closed(to(vipReset)))).dropped(stats.NoService))
	for range 20 {
		limited.before = append(limited.before, in(frame(closed(to(vipReset)))))
	}
	return append(cases, limited)
}

// guardCases are about access lists and rates.
func guardCases() []goldenCase {
	frame := packettest.Frame
	from := func(s packettest.Spec, addr string, port uint16) []byte {
		s.Src = netip.AddrPortFrom(netip.MustParseAddr(addr), port)
		return frame(s)
	}
	packets := func(vip netip.Addr, n int) []step { return slices.Repeat([]step{in(frame(udpTo(vip)))}, n) }
	flows := func(vip netip.Addr, n int) (all []step) {
		for i := range n {
			all = append(all, in(from(to(vip), "192.0.2.1", uint16(5000+i))))
		}
		return all
	}
	u, s := udpTo(vipSource), to(vipSourceF)
	return []goldenCase{
		natCase("acl", "one client is kept out, another is not",
			in(frame(to(vipACL))).dropped(stats.Denied), in(from(to(vipACL), "192.0.2.2", 1))),
		natCase("limit-packets", "three at once, then one per second", append(packets(vipPackets, 3),
			in(frame(udpTo(vipPackets))).dropped(stats.ServiceLimit), in(frame(udpTo(vipPackets))).after(16),
			in(frame(udpTo(vipPackets))).after(16).dropped(stats.ServiceLimit))...),
		natCase("limit-flows", "three new flows at once; those that are there go on", append(flows(vipFlows, 3),
			in(from(to(vipFlows), "192.0.2.1", 6000)).dropped(stats.ServiceLimit),
			in(from(ack(to(vipFlows), "data"), "192.0.2.1", 5000)),
			in(from(to(vipFlows), "192.0.2.1", 6000)).after(16))...),
		natCase("limit-source", "a network has used up what it may, another one has not", append(packets(vipSource, 3),
			in(from(u, "192.0.2.99", 1)).dropped(stats.SourceLimit), in(from(u, "192.0.3.1", 1)))...),
		natCase("limit-source-flows", "a client has opened what it may, its neighbour has not", append(flows(vipSourceF, 3),
			in(from(s, "192.0.2.1", 6000)).dropped(stats.SourceLimit), in(from(s, "192.0.2.2", 6000)))...),
	}
}

// floodCases are about a table that is too small for what comes.
func floodCases() []goldenCase {
	frame := packettest.Frame
	long := []step{in(frame(to(vipDSR4))), in(frame(ack(to(vipDSR4), "")))}
	var flood []step
	for n := range 30 {
		flood = append(flood, in(frame(with(to(vipDSR4), func(s *packettest.Spec) {
			s.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 0, byte(n)}), 1)
		}))))
	}
	more := in(frame(ack(to(vipDSR4), "still here")))
	return []goldenCase{
		{name: "flood", why: "openings push each other out, and not the flow that is in use", entries: 8, world: natWorld,
			steps: append(append(long, flood...), more)},
		{name: "flood-rate", why: "few new flows get an entry: the others go where Maglev says", world: rareWorld,
			steps: append(append(long, flood[:6]...), more)},
	}
}

package forward_test

import (
	"encoding/binary"
	"net/netip"

	"weir/dataplane/flow"
	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/snapshot"
	"weir/dataplane/stats"
)

// A segment is a packettest.Spec with these changed.

func ack(s packettest.Spec, payload string) packettest.Spec {
	s.TCPFlags, s.TCPOptions, s.Payload = packet.TCPAck, false, []byte(payload)
	s.Seq++
	s.ID++
	return s
}

func flags(s packettest.Spec, flags uint8) packettest.Spec {
	s.TCPFlags = flags
	return s
}

// conversation is a whole TCP connection.
func conversation(vip netip.Addr) []step {
	frame := packettest.Frame
	c := with(to(vip), func(s *packettest.Spec) { s.TCPOptions, s.Seq = true, 0x1000 })
	b := with(answerTo(c), func(s *packettest.Spec) { s.TCPOptions = true })
	answer := step{frame: frame(b)}
	if b.DstMAC == eth1MAC {
		answer.ingress = 1
	}
	from := func(s packettest.Spec) step { return step{ingress: answer.ingress, frame: frame(s)} }
	fin := uint8(packet.TCPFin | packet.TCPAck)
	return []step{
		in(frame(c)), answer,
		in(frame(ack(c, ""))), in(frame(ack(c, "GET / HTTP/1.1"))), from(ack(b, "200 OK")), from(ack(b, "odd")),
		in(frame(flags(ack(c, ""), fin))), from(flags(ack(b, ""), fin)), in(frame(ack(c, ""))),
	}
}

func natVariants() []struct {
	name string
	vip  netip.Addr
} {
	return []struct {
		name string
		vip  netip.Addr
	}{
		{"nat44", vipNAT44}, {"nat66", vipNAT66}, {"nat46", vipNAT46}, {"nat64", vipNAT64},
		{"keep4", vipKeep4}, {"keep6", vipKeep6},
	}
}

// natCase is a case of the NAT world.
func natCase(name, why string, steps ...step) goldenCase {
	return goldenCase{name: name, why: why, world: natWorld, steps: steps}
}

// natCases are packets that NAT translates, both ways.
func natCases() []goldenCase {
	frame := packettest.Frame
	cases := []goldenCase{
		natCase("nat44-port", "the backend listens on another port", conversation(vipPort44)...),
		natCase("nat46-port", "the same in the other family", conversation(vipPort46)...),
		natCase("nat44-one-arm", "backends are on VLAN 7 of the clients' interface", conversation(vipTag44)...),
		natCase("nat44-small", "the path to the backend takes 1400 bytes: so does the MSS, both ways",
			conversation(vipSmall44)...),
	}
	for _, v := range natVariants() {
		cases = append(cases, natCase(v.name+"-tcp", "a connection, from SYN to FIN; MSS as the smaller side takes it",
			conversation(v.vip)...))
		u := with(udpTo(v.vip), func(s *packettest.Spec) { s.TOS, s.TTL = 0xb9, 9 })
		a := with(answerTo(u), func(s *packettest.Spec) { s.TOS = 0x2a })
		tagged := func(s *packettest.Spec) { s.VLAN, s.Priority, s.Padding = 9, 5, 7 }
		cases = append(cases,
			natCase(v.name+"-udp", "a question and two answers; TTL is one less, the class stays", in(frame(u)), back(frame(a)),
				back(frame(with(a, func(s *packettest.Spec) { s.Payload = nil })))),
			natCase(v.name+"-tagged", "the answer goes back into the client's VLAN; neither tag nor padding come along",
				in(frame(with(u, tagged))), back(frame(with(a, func(s *packettest.Spec) { s.Padding = 11 })))),
			natCase(v.name+"-other-way", "the client's packets have come to come another way: answers follow",
				in(frame(u)), in(fromMAC(frame(with(u, tagged)), backendMAC(99))), back(frame(a)),
				step{ingress: 1, frame: toMAC(frame(u), eth1MAC)}, back(frame(a))),
			natCase(v.name+"-ttl", "neither way does weir send with TTL 0; it tells the sender",
				in(frame(u)), in(frame(with(u, func(s *packettest.Spec) { s.TTL = 1 }))),
				back(frame(with(a, func(s *packettest.Spec) { s.TTL = 1 })))),
			natCase(v.name+"-reset-by-backend", "a reset goes back to the client", in(frame(to(v.vip))),
				back(frame(flags(answerTo(to(v.vip)), packet.TCPRst|packet.TCPAck)))),
		)
		if u.Dst.Addr().Is4() {
			cases = append(cases, natCase(v.name+"-no-checksum", "IPv6 has to have a UDP checksum, IPv4 has not",
				in(frame(with(u, func(s *packettest.Spec) { s.NoUDPChecksum = true })))))
		} else {
			cases = append(cases, natCase(v.name+"-extensions", "IPv4 has no extension headers", in(frame(with(u, func(s *packettest.Spec) {
				s.Extensions = []uint8{packet.ProtoHopByHop, packet.ProtoDestOptions, packet.ProtoFragment}
			})))))
		}
	}
	return cases
}

// natRuleCases are about which flow gets what, and which none.
func natRuleCases() []goldenCase {
	frame := packettest.Frame
	second := func(vip netip.Addr) packettest.Spec {
		return with(to(vip), func(s *packettest.Spec) {
			if s.Src = client4b(); vip.Is6() {
				s.Src = client6b
			}
		})
	}
	trusted := func(vip netip.Addr) []step {
		return []step{in(frame(to(vip))), in(frame(ack(to(vip), "")))}
	}
	rst := func(s packettest.Spec) []byte { return frame(flags(s, packet.TCPRst)) }
	fin := func(s packettest.Spec) []byte { return frame(flags(ack(s, ""), packet.TCPFin|packet.TCPAck)) }
	idle := flow.TickAt(flow.DefaultTimeouts().UDP) + 1
	u4 := udpTo(vipNAT46)
	var cases []goldenCase
	for _, v := range natVariants() {
		if natBackendOf(v.vip).mode == snapshot.NATKeep {
			continue
		}
		a := answerTo(to(v.vip))
		cases = append(cases,
			natCase(v.name+"-exhausted", "the only port belongs to a connection that is in use: the second is refused, the first goes on",
				append(trusted(v.vip), in(frame(second(v.vip))).dropped(stats.PortsExhausted), in(frame(ack(to(v.vip), "still here"))))...),
			natCase(v.name+"-taken-over-reset", "the only port's connection was reset: the second gets the port",
				append(trusted(v.vip), in(rst(to(v.vip))), in(frame(second(v.vip))), back(frame(a)))...),
			natCase(v.name+"-taken-over-finished", "both sides of it have finished",
				append(trusted(v.vip), in(fin(to(v.vip))), back(fin(a)), in(frame(second(v.vip))), back(frame(a)))...),
			natCase(v.name+"-half-finished", "only the client has finished: the backend may go on for long",
				append(trusted(v.vip), in(fin(to(v.vip))), in(frame(second(v.vip))).dropped(stats.PortsExhausted),
					back(frame(ack(a, "the rest"))))...),
			natCase(v.name+"-taken-over-opening", "the only port's connection has never been more than an opening",
				in(frame(to(v.vip))), in(frame(second(v.vip))), back(frame(a))),
			natCase(v.name+"-again", "a connection anew from the same client has the port again",
				append(trusted(v.vip), in(rst(to(v.vip))), in(frame(to(v.vip))), back(frame(a)))...),
			natCase(v.name+"-other-protocol", "TCP and UDP do not share ports", in(frame(to(v.vip))), in(frame(udpTo(v.vip))),
				back(frame(a)), back(frame(answerTo(udpTo(v.vip))))),
			natCase(v.name+"-middle", "a segment of a connection that nobody knows: the client is told to give it up",
				in(frame(ack(to(v.vip), "data")))),
			natCase(v.name+"-middle-reset", "but a reset is not answered", in(rst(to(v.vip))).dropped(stats.NoFlow)),
			natCase(v.name+"-idle", "after its time a flow is gone, and what the backend still says goes nowhere",
				in(frame(udpTo(v.vip))), back(frame(answerTo(udpTo(v.vip)))),
				back(frame(answerTo(udpTo(v.vip)))).after(idle).dropped(stats.NoFlow)),
		)
	}
	stranger := with(answerTo(to(vipNAT44)), func(s *packettest.Spec) { s.Src = netip.MustParseAddrPort("10.1.0.99:80") })
	wrong := with(answerTo(to(vipNAT44)), func(s *packettest.Spec) { s.Src = netip.MustParseAddrPort("10.1.0.30:81") })
	elsewhere := with(answerTo(to(vipNAT44)), func(s *packettest.Spec) { s.Dst = netip.AddrPortFrom(snat4, snatPort+100) })
	keep := answerTo(to(vipKeep4))
	full := goldenCase{name: "nat44-table-full", why: "the table is full of flows in use, and a NAT flow needs a place", world: natWorld, entries: 8}
	for n := range 8 {
		s := with(to(vipDSR4), func(s *packettest.Spec) { s.Src = netip.AddrPortFrom(client4.Addr(), uint16(2000+n)) })
		full.before = append(full.before, in(frame(s)), in(frame(ack(s, ""))))
	}
	full.steps = []step{in(frame(to(vipNAT44))).dropped(stats.TableFull)}
	inPieces := with(to(vipNAT44), func(s *packettest.Spec) { s.Seq = 0x40000000 })
	return append(cases, full,
		natCase("nat44-exhausted-fragments", "a SYN in pieces, of which all but one have no sequence number, is followed by the next segment: the connection is in use",
			append(steps(0, pieces(inPieces)...), in(frame(ack(inPieces, ""))), in(frame(second(vipNAT44))).dropped(stats.PortsExhausted))...),
		natCase("nat44-stranger", "another one than the backend sends to the port (RFC 4787 section 5, REQ-8)",
			in(frame(to(vipNAT44))), back(frame(stranger)).dropped(stats.NoFlow),
			back(frame(wrong)).dropped(stats.NoFlow), back(frame(elsewhere)).dropped(stats.NoFlow)),
		natCase("keep4-stranger", "the same where the client's address is left",
			in(frame(to(vipKeep4))),
			back(frame(with(keep, func(s *packettest.Spec) { s.Dst = client4b() }))).dropped(stats.NoFlow),
			back(frame(with(keep, func(s *packettest.Spec) { s.Src = netip.MustParseAddrPort("10.1.0.34:81") }))).dropped(stats.UnknownVIP)),
		natCase("nat44-options", "options stay", in(frame(with(udpTo(vipNAT44), func(s *packettest.Spec) { s.IPOptions = 3 })))),
		natCase("nat46-options", "options have no place in IPv6", in(frame(with(u4, func(s *packettest.Spec) { s.IPOptions = 3 })))),
		natCase("nat46-source-route", "nor has a source route, and it may not be left out (RFC 7915 section 4.1)",
			in(loosely(u4)).dropped(stats.Untranslatable)),
		natCase("nat-no-such-port", "the VIP has no such service", in(frame(with(to(vipNAT44), func(s *packettest.Spec) {
			s.Dst = netip.AddrPortFrom(vipNAT44, 81)
		}))).dropped(stats.NoService)),
	)
}

// loosely returns a frame with a loose source route of one address to come.
func loosely(s packettest.Spec) []byte {
	s.IPOptions = 2
	f := packettest.Frame(s)
	ip := f[14 : 14+28]
	copy(ip[20:], []byte{131, 7, 4, 192, 0, 2, 200, 0})
	ip[10], ip[11] = 0, 0
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	return f
}

// natOwnCases are about SNAT addresses as hosts.
func natOwnCases() []goldenCase {
	frame := packettest.Frame
	ask4 := packettest.Spec{SrcMAC: otherMAC, Src: netip.MustParseAddrPort("10.1.0.30:0")}
	ask6 := packettest.Spec{SrcMAC: otherMAC, Src: netip.MustParseAddrPort("[fd01::30]:0")}
	ping := func(a netip.Addr) []byte {
		s := packettest.Spec{SrcMAC: otherMAC, DstMAC: eth1MAC, Src: ask4.Src, Dst: netip.AddrPortFrom(a, 0)}
		if a.Is6() {
			s.Src = ask6.Src
		}
		return packettest.EchoRequest(s, 1, 2)
	}
	shared := func(name, why string, steps ...step) goldenCase {
		return goldenCase{name: name, why: why, world: sharedWorld, steps: steps}
	}
	keep4, keep6 := natBackendOf(vipKeep4).addr, natBackendOf(vipKeep6).addr
	toOwn := func(s packettest.Spec, own netip.Addr) packettest.Spec {
		s.Dst = netip.AddrPortFrom(own, snatPort)
		return s
	}
	from := func(src netip.Addr, s packettest.Spec) step {
		s.Src = netip.AddrPortFrom(src, 53)
		return in(frame(s))
	}
	syn := with(answerTo(to(vipNAT44)), func(s *packettest.Spec) { s.TCPFlags = packet.TCPSyn })
	return []goldenCase{
		natCase("snat-arp", "a SNAT address is weir's, which answers for it", back(packettest.ARPRequest(ask4, snat4))),
		natCase("snat-ndp", "the same in IPv6", back(packettest.NeighborSolicitation(ask6, snat6))),
		natCase("snat-ping4", "it answers ping", back(ping(snat4))),
		natCase("snat-ping6", "also in IPv6", back(ping(snat6))),
		natCase("snat-conflict", "another station claims it", back(packettest.ARPRequest(
			packettest.Spec{SrcMAC: otherMAC, Src: netip.AddrPortFrom(snat4, 0)}, notVIP4)).dropped(stats.AddressConflict)),
		natCase("snat-connect", "nothing listens there", back(frame(syn)).dropped(stats.NoFlow)),
		natCase("own-source4", "nobody is behind weir's own addresses, and two VIPs could answer each other for ever",
			from(vipPort44, udpTo(vipNAT44)).dropped(stats.Looped), from(vipNAT44, udpTo(vipNAT44)).dropped(stats.Looped),
			from(vipDSR4, to(vipKeep4)).dropped(stats.Looped), from(snat4, to(vipNAT44)).dropped(stats.Looped),
			from(vipNAT44, to(vipDSR4)).dropped(stats.Looped), from(snat4, udpTo(vip4in4)).dropped(stats.Looped)),
		natCase("own-source6", "the same in IPv6",
			from(vipNAT64, udpTo(vipNAT66)).dropped(stats.Looped), from(snat6, to(vipNAT64)).dropped(stats.Looped),
			from(vipNAT66, to(vip6in6)).dropped(stats.Looped)),
		natCase("backend-is-client4", "a backend whose clients keep their addresses is a client of other services as well",
			from(keep4, to(vipDSR4)), from(keep4, to(vipDSR4)), from(keep4, udpTo(vipNAT44)), from(keep4, udpTo(vip4in4))),
		natCase("backend-is-client6", "the same in IPv6", from(keep6, udpTo(vipDSR6)), from(keep6, to(vipNAT66))),
		shared("shared-own-source", "but the box itself may be a client", from(own4, udpTo(vipNAT44)), from(own6, udpTo(vipDSR6))),
		shared("shared-arp", "the box's own address is the kernel's to answer for",
			back(packettest.ARPRequest(ask4, own4)).dropped(stats.UnknownVIP)),
		shared("shared-ndp", "the same in IPv6",
			back(packettest.NeighborSolicitation(ask6, own6)).dropped(stats.UnknownVIP)),
		shared("shared-ping4", "and for ping", back(ping(own4)).dropped(stats.ICMPUnhandled)),
		shared("shared-ping6", "the same in IPv6", back(ping(own6)).dropped(stats.ICMPUnhandled)),
		shared("shared-own-arp", "the box's own question is no conflict", back(packettest.ARPRequest(
			packettest.Spec{SrcMAC: otherMAC, Src: netip.AddrPortFrom(own4, 0)}, vipNAT44))),
		shared("shared-nat44", "clients come from the box's own address", in(frame(to(vipNAT44))),
			back(frame(toOwn(answerTo(to(vipNAT44)), own4)))),
		shared("shared-nat66", "the same in IPv6", in(frame(to(vipNAT66))),
			back(frame(toOwn(answerTo(to(vipNAT66)), own6)))),
	}
}

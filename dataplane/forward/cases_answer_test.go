package forward_test

import (
	"encoding/binary"
	"net/netip"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/stats"
)

func arpCases() []goldenCase {
	ask := packettest.Spec{SrcMAC: clientMAC, Src: client4}
	arp := func(change func(arp []byte)) []byte {
		f := packettest.ARPRequest(ask, vipDSR4)
		change(f[14:])
		return f
	}
	vip, group, broadcast := vipDSR4.As4(), packet.MAC{3, 0, 0, 0, 0, 1}, packet.BroadcastMAC()
	return []goldenCase{
		sent("arp-request", "42 bytes, and the answer has as many", packettest.ARPRequest(ask, vipDSR4)),
		sent("arp-padded", "the answer to a padded request has no padding",
			packettest.ARPRequest(with(ask, func(s *packettest.Spec) { s.Padding = 18 }), vip4in4)),
		sent("arp-tagged", "the answer goes back into the same VLAN",
			packettest.ARPRequest(with(ask, func(s *packettest.Spec) { s.VLAN, s.Priority = 9, 3 }), vipDSR4)),
		sent("arp-probe", "a station that wants the address, and has none yet, is told (RFC 5227 section 2.4)",
			packettest.ARPRequest(packettest.Spec{SrcMAC: clientMAC, Src: netip.MustParseAddrPort("0.0.0.0:0")}, vipDSR4)),
		sent("arp-unicast", "the request that keeps a neighbour entry alive", toMAC(arp(func([]byte) {}), eth0MAC)),
		one("arp-foreign", "a unicast request to another station, seen because the NIC is promiscuous",
			stats.ForeignMAC, toMAC(arp(func([]byte) {}), otherMAC)),
		one("arp-conflict", "another station announces a VIP as its own", stats.AddressConflict,
			packettest.ARPRequest(packettest.Spec{SrcMAC: otherMAC, Src: netip.AddrPortFrom(vipDSR4, 0)}, vipDSR4)),
		one("arp-reflected", "weir's own announcement, sent by another interface on the same link", stats.Reflected,
			packettest.ARPRequest(packettest.Spec{SrcMAC: eth1MAC, Src: netip.AddrPortFrom(vipDSR4, 0)}, vipDSR4)),
		one("arp-conflict-reply", "the same by an answer", stats.AddressConflict,
			arp(func(b []byte) { b[7] = 2; copy(b[14:], vip[:]) })),
		one("arp-conflict-unicast", "a backend that answers for the VIP on its loopback interface", stats.AddressConflict,
			toMAC(arp(func(b []byte) { b[7] = 2; copy(b[14:], vip[:]); copy(b[24:], weirTunnel4.AsSlice()) }), eth0MAC)),
		one("arp-conflict-question", "a station that has a VIP asks for its gateway", stats.AddressConflict,
			packettest.ARPRequest(packettest.Spec{SrcMAC: otherMAC, Src: netip.AddrPortFrom(vipDSR4, 0)}, notVIP4)),
		one("arp-conflict-group", "a claim remains one if it names a group address, as clusters do", stats.AddressConflict,
			arp(func(b []byte) { b[7] = 2; copy(b[8:], group[:]); copy(b[14:], vip[:]) })),
		one("arp-reflected-reply", "weir's own announcement by an answer", stats.Reflected,
			arp(func(b []byte) { b[7] = 2; copy(b[8:], eth1MAC[:]); copy(b[14:], vip[:]) })),
		one("arp-group-sender", "an answer would go to many", stats.Malformed,
			arp(func(b []byte) { copy(b[8:], group[:]) })),
		one("arp-broadcast-sender", "an answer would go to all", stats.Malformed,
			arp(func(b []byte) { copy(b[8:], broadcast[:]) })),
		one("arp-group-source", "no station sends from a group address", stats.Malformed, fromMAC(arp(func([]byte) {}), group)),
		one("arp-reply", "an answer to nobody's question", stats.UnknownVIP, arp(func(b []byte) { b[7] = 2 })),
		one("arp-other", "the question is about another address", stats.UnknownVIP, packettest.ARPRequest(ask, notVIP4)),
		one("arp-token-ring", "not for IPv4 over Ethernet", stats.Malformed, arp(func(b []byte) { b[1] = 6 })),
		one("arp-short", "27 of 28 bytes", stats.Truncated, arp(func([]byte) {})[:14+27]),
	}
}

func toMAC(frame []byte, mac packet.MAC) []byte {
	copy(frame, mac[:])
	return frame
}

func fromMAC(frame []byte, mac packet.MAC) []byte {
	copy(frame[6:], mac[:])
	return frame
}

// neighbor describes a neighbour solicitation or advertisement in all detail.
type neighbor struct {
	src, dst, target netip.Addr
	dstMAC           packet.MAC
	ttl, code        uint8
	options          []byte
	extensions       []uint8
}

func solicited(target netip.Addr) neighbor {
	group := netip.AddrFrom16(packet.SolicitedNode(target.As16()))
	return neighbor{
		src: client6.Addr(), dst: group, target: target, ttl: 255,
		dstMAC:  packet.MulticastMAC(group.As16()),
		options: append([]byte{1, 1}, clientMAC[:]...),
	}
}

// advertised is what a station says, unasked, that takes an address for its own.
func advertised(target netip.Addr) neighbor {
	all := netip.MustParseAddr("ff02::1")
	return neighbor{
		src: client6.Addr(), dst: all, target: target, ttl: 255,
		dstMAC:  packet.MulticastMAC(all.As16()),
		options: append([]byte{packet.NDPOptionTargetLinkAddr, 1}, clientMAC[:]...),
	}
}

func (n neighbor) spec() packettest.Spec {
	target := n.target.As16()
	return packettest.Spec{
		SrcMAC: clientMAC, DstMAC: n.dstMAC,
		Src: netip.AddrPortFrom(n.src, 0), Dst: netip.AddrPortFrom(n.dst, 0),
		TTL: n.ttl, Extensions: n.extensions,
		Payload: append(target[:], n.options...),
	}
}

// nonce is an option of RFC 3971 section 5.3.2, of 16 bytes.
func nonce() []byte { return []byte{14, 2, 15: 0x42} }

// frame is a solicitation.
func (n neighbor) frame() []byte {
	return packettest.ICMP(n.spec(), packet.ICMPv6NeighborSolicit, n.code, 0)
}

// Flags of an advertisement (RFC 4861 section 4.4).
const (
	flagSolicited = 0x40
	flagOverride  = 0x20
)

func (n neighbor) advertisement(flags uint8) []byte {
	return packettest.ICMP(n.spec(), packet.ICMPv6NeighborAdvert, n.code, uint32(flags)<<24)
}

func ndpCases() []goldenCase {
	change := func(f func(n *neighbor)) []byte {
		n := solicited(vipDSR6)
		f(&n)
		return n.frame()
	}
	ask := packettest.Spec{SrcMAC: clientMAC, Src: client6}
	unspecified := packettest.Spec{SrcMAC: clientMAC, Src: netip.MustParseAddrPort("[::]:0")}
	badSum := packettest.NeighborSolicitation(ask, vipDSR6)
	badSum[14+40+2] ^= 0x10
	fragment := solicited(vipDSR6).spec()
	fragment.Proto = packet.ProtoICMPv6
	fragment.Payload = packettest.NeighborSolicitation(ask, vipDSR6)[14+40:]
	linkAddr := append([]byte{packet.NDPOptionSourceLinkAddr, 1}, clientMAC[:]...)
	detect := func(options ...byte) []byte {
		return change(func(n *neighbor) { n.src, n.options = netip.IPv6Unspecified(), options })
	}
	return []goldenCase{
		sent("ndp-multicast", "a question to the solicited-node group", packettest.NeighborSolicitation(ask, vipDSR6)),
		sent("ndp-tagged", "the answer goes back into the same VLAN",
			packettest.NeighborSolicitation(with(ask, func(s *packettest.Spec) { s.VLAN = 9 }), vip6in6)),
		sent("ndp-unicast", "unreachability detection: a question to the VIP itself",
			change(func(n *neighbor) { n.dst, n.dstMAC = n.target, eth0MAC })),
		sent("ndp-group-by-unicast", "some switches turn multicast into unicast",
			change(func(n *neighbor) { n.dstMAC = eth0MAC })),
		sent("ndp-dad", "duplicate address detection is answered to all nodes, unsolicited",
			packettest.NeighborSolicitation(unspecified, vipDSR6)),
		sent("ndp-dad-nonce", "duplicate address detection as it is today (RFC 7527)", detect(nonce()...)),
		sent("ndp-no-option", "a question without an option is shorter than its answer",
			change(func(n *neighbor) { n.options = nil })),
		sent("ndp-many-options", "a question with more options is longer than its answer",
			change(func(n *neighbor) { n.options = append(n.options, nonce()...) })),
		sent("ndp-extensions", "the answer has no extension headers",
			change(func(n *neighbor) { n.extensions = []uint8{packet.ProtoDestOptions} })),
		one("ndp-hop-limit", "it was routed, so it is no neighbour's (RFC 4861 section 7.1.1)", stats.Malformed,
			change(func(n *neighbor) { n.ttl = 254 })),
		one("ndp-checksum", "wrong checksum", stats.Malformed, badSum),
		one("ndp-code", "code 1", stats.Malformed, change(func(n *neighbor) { n.code = 1 })),
		one("ndp-short", "the target is cut short by the IP length", stats.Malformed,
			packettest.ICMP(with(solicited(vipDSR6).spec(), func(s *packettest.Spec) { s.Payload = s.Payload[:15] }),
				packet.ICMPv6NeighborSolicit, 0, 0)),
		one("ndp-dad-unicast", "without a source, only the group may be asked (RFC 4861 section 7.1.1)", stats.Malformed,
			change(func(n *neighbor) { n.src, n.dst, n.dstMAC, n.options = netip.IPv6Unspecified(), n.target, eth0MAC, nil })),
		one("ndp-multicast-source", "nobody is at a multicast address", stats.Malformed,
			change(func(n *neighbor) { n.src = netip.MustParseAddr("ff02::1") })),
		one("ndp-other", "the question is about another address", stats.UnknownVIP,
			packettest.NeighborSolicitation(ask, notVIP6)),
		one("ndp-mapped", "an IPv4 VIP is not to be had by neighbour discovery", stats.UnknownVIP,
			change(func(n *neighbor) { n.target = mappedDSR4 })),
		one("ndp-reflected", "a question of weir's own in a VIP's name", stats.Reflected,
			fromMAC(change(func(n *neighbor) { n.src = vip6in6 }), eth1MAC)),
		one("ndp-conflict", "another station asks as if it were a VIP", stats.AddressConflict,
			change(func(n *neighbor) { n.src = vip6in6 })),
		one("ndp-fragment", "NDP is never fragmented (RFC 6980)", stats.ICMPUnhandled, packettest.Fragments(fragment, 16)[0]),
		one("ndp-foreign", "to another station's MAC", stats.ForeignMAC,
			change(func(n *neighbor) { n.dst, n.dstMAC = n.target, otherMAC })),
		one("ndp-dad-source-option", "no source, but a source's address (RFC 4861 section 7.1.1)", stats.Malformed,
			detect(linkAddr...)),
		one("ndp-dad-source-option-last", "the same behind another option", stats.Malformed,
			detect(append(nonce(), linkAddr...)...)),
		one("ndp-zero-option", "an option of length zero (RFC 4861 section 7.1.1)", stats.Malformed,
			change(func(n *neighbor) { n.options[1] = 0 })),
		one("ndp-zero-option-last", "the same behind a good one", stats.Malformed,
			change(func(n *neighbor) { n.options = append(n.options, 14, 0, 0, 0, 0, 0, 0, 0) })),
		one("ndp-long-option", "an option longer than what is left", stats.Malformed,
			change(func(n *neighbor) { n.options[1] = 2 })),
		one("ndp-odd-option", "half an option", stats.Malformed,
			change(func(n *neighbor) { n.options = append(n.options, 14, 1, 0, 0) })),
		one("ndp-one-byte-option", "an option without a length", stats.Malformed,
			change(func(n *neighbor) { n.options = append(n.options, 14) })),
		one("ndp-group-source", "no station sends from a group address", stats.Malformed,
			fromMAC(packettest.NeighborSolicitation(ask, vipDSR6), packet.MAC{3, 0, 0, 0, 0, 1})),
		one("ndp-dad-group-source", "not even while it has no IP address", stats.Malformed,
			fromMAC(packettest.NeighborSolicitation(unspecified, vipDSR6), packet.MAC{3, 0, 0, 0, 0, 1})),
	}
}

// advertisementCases are advertisements. weir asks nobody, so that any about a
// VIP is a claim.
func advertisementCases() []goldenCase {
	advert := func(flags uint8, f func(n *neighbor)) []byte {
		n := advertised(vipDSR6)
		f(&n)
		return n.advertisement(flags)
	}
	same := func(*neighbor) {}
	answer := func(n *neighbor) { n.dst, n.dstMAC = weirTunnel6, eth0MAC }
	badSum := advert(flagOverride, same)
	badSum[14+40+2] ^= 0x10
	return []goldenCase{
		one("ndp-advertisement", "another station announces a VIP as its own", stats.AddressConflict,
			advert(flagOverride, same)),
		one("ndp-advertisement-by-vip", "the same, sent from the VIP", stats.AddressConflict,
			advert(flagOverride, func(n *neighbor) { n.src = n.target })),
		one("ndp-advertisement-answer", "a backend that answers for the VIP on its loopback interface",
			stats.AddressConflict, advert(flagSolicited|flagOverride, answer)),
		one("ndp-advertisement-to-vip", "the answer to a question in a VIP's name", stats.AddressConflict,
			advert(flagSolicited, func(n *neighbor) { n.dst, n.dstMAC = vip6in6, eth0MAC })),
		one("ndp-advertisement-no-option", "the option may be left out", stats.AddressConflict,
			advert(flagOverride, func(n *neighbor) { n.options = nil })),
		one("ndp-advertisement-reflected", "weir's own announcement, sent by another interface on the same link",
			stats.Reflected, fromMAC(advert(flagOverride, same), eth1MAC)),
		one("ndp-advertisement-other", "it is about another address", stats.UnknownVIP,
			advert(flagOverride, func(n *neighbor) { n.target = notVIP6 })),
		one("ndp-advertisement-other-answer", "the same to this box", stats.UnknownVIP,
			advert(flagSolicited, func(n *neighbor) { answer(n); n.target = notVIP6 })),
		one("ndp-advertisement-mapped", "an IPv4 VIP cannot be claimed by neighbour discovery", stats.UnknownVIP,
			advert(flagOverride, func(n *neighbor) { n.target = mappedDSR4 })),
		one("ndp-advertisement-solicited", "nobody asks in the name of all (RFC 4861 section 7.1.2)", stats.Malformed,
			advert(flagSolicited, same)),
		one("ndp-advertisement-hop-limit", "it was routed, so it is no neighbour's (RFC 4861 section 7.1.2)",
			stats.Malformed, advert(flagOverride, func(n *neighbor) { n.ttl = 254 })),
		one("ndp-advertisement-checksum", "wrong checksum", stats.Malformed, badSum),
		one("ndp-advertisement-code", "code 1", stats.Malformed, advert(flagOverride, func(n *neighbor) { n.code = 1 })),
		one("ndp-advertisement-zero-option", "an option of length zero", stats.Malformed,
			advert(flagOverride, func(n *neighbor) { n.options[1] = 0 })),
		one("ndp-advertisement-foreign", "an answer to another station", stats.ForeignMAC,
			advert(flagSolicited, func(n *neighbor) { n.dst, n.dstMAC = weirTunnel6, otherMAC })),
	}
}

func echoCases() []goldenCase {
	var cases []goldenCase
	for _, family := range []struct {
		name string
		vip  netip.Addr
	}{{"echo4", vipDSR4}, {"echo6", vip6in6}} {
		ping := func(change func(s *packettest.Spec)) []byte {
			s := with(to(family.vip), func(s *packettest.Spec) { s.Payload = []byte("ping"); change(s) })
			return packettest.EchoRequest(s, 0xbeef, 7)
		}
		group := "224.0.0.1"
		if family.vip.Is6() {
			group = "ff02::1"
		}
		cases = append(cases,
			sent(family.name, "an answer with TTL 64", ping(func(s *packettest.Spec) { s.TTL = 3 })),
			sent(family.name+"-empty", "no data", ping(func(s *packettest.Spec) { s.Payload = nil })),
			sent(family.name+"-odd", "an odd number of bytes", ping(func(s *packettest.Spec) { s.Payload = []byte("odd") })),
			sent(family.name+"-class", "the traffic class comes back", ping(func(s *packettest.Spec) { s.TOS = 0xb8 })),
			sent(family.name+"-tagged", "the answer goes back into the same VLAN", ping(func(s *packettest.Spec) { s.VLAN = 9 })),
			sent(family.name+"-padded", "padding comes back", ping(func(s *packettest.Spec) { s.Padding = 10 })),
			sent(family.name+"-large", "as long as came in", ping(func(s *packettest.Spec) { s.Payload = make([]byte, 1400) })),
			sent(family.name+"-carry", "the checksum goes through zero", carryPing(ping)),
			one(family.name+"-reply", "an answer to nobody's question", stats.ICMPUnhandled,
				packettest.EchoReply(to(family.vip), 1, 1)),
			one(family.name+"-code", "code 1 is nothing", stats.ICMPUnhandled, codeOne(to(family.vip))),
			one(family.name+"-multicast-source", "an answer would go to many", stats.Malformed,
				ping(func(s *packettest.Spec) { s.Src = netip.AddrPortFrom(netip.MustParseAddr(group), 0) })),
			one(family.name+"-group-source", "no station sends from a group address", stats.Malformed,
				fromMAC(ping(func(*packettest.Spec) {}), packet.MAC{3, 0, 0, 0, 0, 1})),
			one(family.name+"-other", "not a VIP", stats.UnknownVIP,
				packettest.EchoRequest(to(map[bool]netip.Addr{false: notVIP4, true: notVIP6}[family.vip.Is6()]), 1, 1)),
			one(family.name+"-unreachable", "an error about a packet that a backend has sent", stats.ICMPUnhandled,
				packettest.ICMP(to(family.vip), map[bool]uint8{false: 3, true: 1}[family.vip.Is6()], 1, 0)),
		)
	}
	group := netip.MustParseAddr("ff02::1")
	allNodes := with(to(group), func(s *packettest.Spec) { s.DstMAC = packet.MulticastMAC(group.As16()) })
	return append(cases,
		sent("echo4-options", "IP options come back",
			packettest.EchoRequest(with(to(vipDSR4), func(s *packettest.Spec) { s.IPOptions = 2 }), 1, 2)),
		sent("echo6-extensions", "extension headers come back",
			packettest.EchoRequest(with(to(vipDSR6), extensions), 1, 2)),
		one("echo4-broadcast-source", "an answer would go to all", stats.Malformed,
			packettest.EchoRequest(with(to(vipDSR4), func(s *packettest.Spec) {
				s.Src = netip.MustParseAddrPort("255.255.255.255:0")
			}), 1, 2)),
		one("echo6-all-nodes", "a VIP is no node", stats.ICMPUnhandled, packettest.EchoRequest(allNodes, 1, 2)),
		one("echo6-other-by-multicast", "not to a VIP, but sent to a multicast MAC", stats.ForeignMAC,
			toMAC(packettest.EchoRequest(to(notVIP6), 1, 2), packet.MulticastMAC(group.As16()))),
		one("echo6-vip-by-multicast", "to a VIP, but sent to a multicast MAC", stats.ForeignMAC,
			toMAC(packettest.EchoRequest(to(vipDSR6), 1, 2), packet.MulticastMAC(group.As16()))),
	)
}

func codeOne(s packettest.Spec) []byte {
	if s.Src.Addr().Is6() {
		return packettest.ICMP(s, packet.ICMPv6EchoRequest, 1, 0)
	}
	return packettest.ICMP(s, packet.ICMPv4EchoRequest, 1, 0)
}

// carryPing returns the ping whose answer has the checksum 0xffff or 0: there
// an incremental update most easily goes wrong.
func carryPing(ping func(func(*packettest.Spec)) []byte) []byte {
	for n := range uint16(0xffff) {
		f := ping(func(s *packettest.Spec) { s.Payload = binary.BigEndian.AppendUint16(nil, n) })
		icmp := f[len(f)-10:]
		delta := uint16(0x0800) // echo request 8 to reply 0 in IPv4
		if f[12] == 0x86 {
			delta = 0xff00 // 128 to 129 in IPv6
		}
		if sum := binary.BigEndian.Uint16(icmp[2:]); sum == ^delta || sum == ^delta+1 {
			return f
		}
	}
	panic("no such ping")
}

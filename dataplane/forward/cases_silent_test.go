package forward_test

import (
	"net/netip"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/stats"
)

// silentCases are about VIPs and SNAT addresses that another node announces.
func silentCases() []goldenCase {
	ask4, ask6 := packettest.Spec{SrcMAC: clientMAC, Src: client4}, packettest.Spec{SrcMAC: clientMAC, Src: client6}
	probe4 := packettest.Spec{SrcMAC: clientMAC, Src: netip.MustParseAddrPort("0.0.0.0:0")}
	probe6 := packettest.Spec{SrcMAC: clientMAC, Src: netip.MustParseAddrPort("[::]:0")}
	claim4 := func(by packet.MAC, addr netip.Addr) []byte {
		return packettest.ARPRequest(packettest.Spec{SrcMAC: by, Src: netip.AddrPortFrom(addr, 0)}, addr)
	}
	answer4 := func(addr netip.Addr) []byte {
		f, a := packettest.ARPRequest(ask4, addr), addr.As4()
		f[14+7] = 2
		copy(f[14+14:], a[:])
		return f
	}
	asSender := func(addr netip.Addr) []byte {
		n := solicited(vipSilent6)
		n.src = addr
		return n.frame()
	}
	silentSNAT := func(name, why string, frame []byte, drop stats.Reason) goldenCase {
		return goldenCase{name: name, why: why, world: silentWorld, steps: []step{back(frame).dropped(drop)}}
	}
	var claims, floods []step
	for range 10 {
		claims = append(claims, in(claim4(otherMAC, vipSilent4)).dropped(stats.AnnouncedElsewhere))
	}
	for n := range 100 {
		floods = append(floods, in(claim4(packet.MAC{2, 0, 0, 0, 7, byte(n)}, vipSilent4)).dropped(stats.AnnouncedElsewhere))
	}
	floods = append(floods, in(claim4(otherMAC, vipDSR4)).dropped(stats.AddressConflict),
		in(packettest.ARPRequest(probe4, vipSilent4)).dropped(stats.NotAnnounced))
	return []goldenCase{
		natCase("silent-arp", "another node answers for the VIP", in(packettest.ARPRequest(ask4, vipSilent4)).dropped(stats.NotAnnounced)),
		natCase("silent-arp-unicast", "even if this one is asked, whom the asker has not forgotten yet",
			in(toMAC(packettest.ARPRequest(ask4, vipSilent4), eth0MAC)).dropped(stats.NotAnnounced)),
		natCase("silent-arp-probe", "another node probes before it takes the VIP", in(packettest.ARPRequest(probe4, vipSilent4)).dropped(stats.NotAnnounced)),
		natCase("silent-arp-probe-reflected", "weir's own probe, back by another interface on the same link",
			in(packettest.ARPRequest(with(probe4, func(s *packettest.Spec) { s.SrcMAC = eth1MAC }), vipSilent4)).dropped(stats.Reflected)),
		natCase("arp-probe-reflected", "the same for a VIP that this node answers for: it is no conflict with itself",
			in(packettest.ARPRequest(with(probe4, func(s *packettest.Spec) { s.SrcMAC = eth1MAC }), vipDSR4)).dropped(stats.Reflected)),
		natCase("silent-arp-group-sender", "a broken question is one whoever the VIP is announced by",
			in(groupSender(packettest.ARPRequest(probe4, vipSilent4))).dropped(stats.Malformed)),
		natCase("silent-arp-claim", "the other node announces it", claims...),
		natCase("silent-arp-claim-reply", "the same by an answer", in(answer4(vipSilent4)).dropped(stats.AnnouncedElsewhere)),
		natCase("silent-arp-reflected", "weir's own announcement of a moment ago", in(claim4(eth1MAC, vipSilent4)).dropped(stats.Reflected)),
		natCase("silent-arp-flood", "many stations claim one VIP: those that claim another, or ask for it, are not overheard", floods...),
		natCase("silent-arp-sender", "a VIP that this node announces asks for one that it does not",
			in(packettest.ARPRequest(packettest.Spec{SrcMAC: otherMAC, Src: netip.AddrPortFrom(vipDSR4, 0)}, vipSilent4)).dropped(stats.AddressConflict)),
		natCase("silent-ndp", "another node answers for the VIP", in(packettest.NeighborSolicitation(ask6, vipSilent6)).dropped(stats.NotAnnounced)),
		natCase("silent-ndp-dad", "another node probes before it takes the VIP",
			in(packettest.NeighborSolicitation(probe6, vipSilent6)).dropped(stats.NotAnnounced)),
		natCase("silent-ndp-dad-reflected", "weir's own probe, back by another interface on the same link",
			in(fromMAC(packettest.NeighborSolicitation(probe6, vipSilent6), eth1MAC)).dropped(stats.Reflected)),
		natCase("ndp-dad-reflected", "the same for a VIP that this node answers for",
			in(fromMAC(packettest.NeighborSolicitation(probe6, vipDSR6), eth1MAC)).dropped(stats.Reflected)),
		natCase("silent-ndp-claim", "the other node announces it",
			in(advertised(vipSilent6).advertisement(flagOverride)).dropped(stats.AnnouncedElsewhere)),
		natCase("silent-ndp-reflected", "weir's own announcement of a moment ago",
			in(fromMAC(advertised(vipSilent6).advertisement(flagOverride), eth1MAC)).dropped(stats.Reflected)),
		natCase("silent-ndp-sender", "the other node asks in the VIP's name", in(asSender(vipSilent6)).dropped(stats.AnnouncedElsewhere)),
		natCase("silent-ndp-other-sender", "a VIP that this node announces asks for one that it does not",
			in(asSender(vipDSR6)).dropped(stats.AddressConflict)),
		natCase("silent-ping", "what comes for the VIP all the same is not turned away",
			in(packettest.EchoRequest(to(vipSilent4), 1, 2)), in(packettest.EchoRequest(to(vipSilent6), 1, 2))),
		natCase("silent-dsr", "and is forwarded", in(packettest.Frame(to(vipSilent4))), in(packettest.Frame(udpTo(vipSilent6))),
			in(toClientFailed(errorKinds()[0], to(vipSilent4), 0))),
		silentSNAT("silent-snat-arp", "another node has the SNAT address", packettest.ARPRequest(ask4, snat4), stats.NotAnnounced),
		silentSNAT("silent-snat-ndp", "the same in IPv6", packettest.NeighborSolicitation(ask6, snat6), stats.NotAnnounced),
		silentSNAT("silent-snat-claim", "and says so", claim4(otherMAC, snat4), stats.AnnouncedElsewhere),
	}
}

// groupSender makes a group address the sender that an ARP message names.
func groupSender(frame []byte) []byte {
	frame[14+8] |= 1
	return frame
}

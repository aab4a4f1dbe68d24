package forward_test

import (
	"net/netip"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/stats"
)

// Routers that send ICMP errors: on the side of the clients, and of the backends.
var (
	router4  = netip.MustParseAddrPort("198.51.100.1:0")
	router6  = netip.MustParseAddrPort("[2001:db8:ffff::1]:0")
	brouter4 = netip.MustParseAddrPort("10.1.0.1:0")
	brouter6 = netip.MustParseAddrPort("[fd01::1]:0")
)

// kindOfError is type and code of an error in both versions.
type kindOfError struct {
	name         string
	type4, code4 uint8
	type6, code6 uint8
	rest         uint32
}

func errorKinds() []kindOfError {
	return []kindOfError{
		{"mtu", packet.ICMPv4Unreachable, packet.ICMPv4CodeFragNeeded, packet.ICMPv6PacketTooBig, 0, 1400},
		{"port", packet.ICMPv4Unreachable, 3, packet.ICMPv6Unreachable, 4, 0},
		{"time", packet.ICMPv4TimeExceeded, 0, packet.ICMPv6TimeExceeded, 0, 0},
	}
}

// errorAbout returns an error about a packet that is sent back to its sender, as
// a router says it of which the MAC is the packet's destination's. size is how
// much of the packet is quoted, 0 for all.
func errorAbout(k kindOfError, about packettest.Spec, router netip.AddrPort, to packet.MAC, size int) []byte {
	return errorTo(about.Src.Addr(), k, about, router, to, size)
}

// errorTo is errorAbout for an error that comes to dst, the sender or not.
func errorTo(dst netip.Addr, k kindOfError, about packettest.Spec, router netip.AddrPort, to packet.MAC, size int) []byte {
	about.VLAN = 0
	quoted := packettest.Frame(about)[14:]
	if size > 0 {
		quoted = quoted[:size]
	}
	s := packettest.Spec{SrcMAC: clientMAC, DstMAC: to, Src: router, Dst: netip.AddrPortFrom(dst, 0), Payload: quoted}
	if router.Addr().Is6() {
		return packettest.ICMP(s, k.type6, k.code6, k.rest)
	}
	return packettest.ICMP(s, k.type4, k.code4, k.rest)
}

// turned is the packet that a backend behind DSR or a tunnel, or weir under NAT,
// sends to the client of s.
func turned(s packettest.Spec) packettest.Spec {
	s.Src, s.Dst = s.Dst, s.Src
	s.Payload = []byte("of which routers quote no more than that")
	s.TTL = 60
	return s
}

// toClientFailed is an error about what a client was sent, from a router on its
// side.
func toClientFailed(k kindOfError, s packettest.Spec, size int) []byte {
	router := router4
	if s.Dst.Addr().Is6() {
		router = router6
	}
	return errorAbout(k, turned(s), router, eth0MAC, size)
}

// toBackendFailed is an error about what weir sent to a backend for a client,
// from a router on the backend's side.
func toBackendFailed(k kindOfError, s packettest.Spec, size int) []byte {
	router := brouter4
	if natBackendOf(s.Dst.Addr()).addr.Is6() {
		router = brouter6
	}
	return errorAbout(k, turned(answerTo(s)), router, eth1MAC, size)
}

// errorCases are ICMP errors about flows of DSR and IPIP, and about tunnels.
func errorCases() []goldenCase {
	frame := packettest.Frame
	var cases []goldenCase
	for _, v := range []struct {
		name string
		vip  netip.Addr
	}{{"dsr4", vipDSR4}, {"dsr6", vipDSR6}, {"4in4", vip4in4}, {"4in6", vip4in6}, {"6in6", vip6in6}, {"6in4", vip6in4}} {
		for _, k := range errorKinds() {
			cases = append(cases, natCase("error-"+k.name+"-"+v.name, "an error about what the backend sent to the client is the backend's",
				in(frame(to(v.vip))), in(toClientFailed(k, to(v.vip), 0)), in(toClientFailed(k, udpTo(v.vip), 0))))
		}
		closed := with(to(v.vip), func(s *packettest.Spec) { s.Dst = netip.AddrPortFrom(v.vip, 81) })
		cases = append(cases,
			natCase("error-no-service-"+v.name, "nobody serves the port", in(toClientFailed(errorKinds()[0], closed, 0)).dropped(stats.NoFlow)),
			natCase("error-checksum-"+v.name, "the error itself is broken", in(flipped(toClientFailed(errorKinds()[0], to(v.vip), 0))).dropped(stats.ICMPUnhandled)),
		)
	}
	limited := natCase("error-limited", "one source has sent too many", in(toClientFailed(errorKinds()[0], to(vipDSR4), 0)).dropped(stats.ICMPLimited))
	for range 200 {
		limited.before = append(limited.before, in(toClientFailed(errorKinds()[0], to(vipDSR4), 0)))
	}
	return append(append(cases, tunnelCases()...), limited,
		natCase("error-least", "a router that quotes no more than it must", in(toClientFailed(errorKinds()[0], to(vipDSR4), 28))),
		natCase("error-empty", "there is no backend that it could be for", in(toClientFailed(errorKinds()[0], to(vipEmpty), 0)).dropped(stats.NoBackend)),
		natCase("error-transit", "it is to none of weir's addresses", in(errorAbout(errorKinds()[0], turned(to(notVIP4)), router4, eth0MAC, 0)).dropped(stats.UnknownVIP)),
		natCase("error-other-vip", "another VIP has nothing to do with it", in(frame(to(vipDSR4))),
			in(errorTo(vipTagged, errorKinds()[0], turned(to(vipDSR4)), router4, eth0MAC, 0)).dropped(stats.NoFlow)),
		one("error-transit-plain", "nothing of weir's is in transit here", stats.UnknownVIP,
			errorAbout(errorKinds()[0], turned(to(notVIP4)), router4, eth0MAC, 0)),
	)
}

// flipped returns a frame with one bit of it changed.
func flipped(frame []byte) []byte {
	frame[len(frame)-1] ^= 0x40
	return frame
}

// tunnelCases are errors about weir's own tunnels.
func tunnelCases() []goldenCase {
	frame := packettest.Frame
	var cases []goldenCase
	for _, v := range worldTunnels() {
		outer := tunnelTo(v.slot, v.overhead == 40)
		proto := uint8(packet.ProtoIPv4)
		if v.vip.Is6() {
			proto = packet.ProtoIPv6
		}
		about := packettest.Spec{
			Src: netip.AddrPortFrom(outer.Source, 0), Dst: netip.AddrPortFrom(outer.Destination, 0), Proto: proto,
			Payload: frame(to(v.vip))[14:],
		}
		router := brouter4
		if outer.Source.Is6() {
			router = brouter6
		}
		k := errorKinds()
		stranger := with(about, func(s *packettest.Spec) { s.Dst = router })
		forged := with(about, func(s *packettest.Spec) {
			if s.Src = netip.AddrPortFrom(vipDSR4, 0); outer.Source.Is6() {
				s.Src = netip.AddrPortFrom(vipDSR6, 0)
			}
		})
		silent := k[0]
		silent.rest = 0
		cases = append(cases,
			natCase("tunnel-mtu-"+v.name, "a packet-too-big about a tunnel is for weir to learn from", in(errorAbout(k[0], about, router, eth0MAC, 0))),
			natCase("tunnel-mtu-least-"+v.name, "of which a router quotes little", in(errorAbout(k[0], about, router, eth0MAC, v.overhead))),
			natCase("tunnel-mtu-stranger-"+v.name, "to somebody that weir has no tunnel to", in(errorAbout(k[0], stranger, router, eth0MAC, 0)).dropped(stats.NoFlow)),
			natCase("tunnel-mtu-forged-"+v.name, "to one that it has, but not from where its tunnels are from: anybody can say that", in(errorAbout(k[0], forged, router, eth0MAC, 0)).dropped(stats.NoFlow)),
			natCase("tunnel-mtu-stray-"+v.name, "from there, but told to somebody else", in(errorTo(forged.Src.Addr(), k[0], about, router, eth0MAC, 0)).dropped(stats.NoFlow)),
			natCase("tunnel-mtu-silent-"+v.name, "a router that does not tell", in(errorAbout(silent, about, router, eth0MAC, 0)).dropped(stats.NoFlow)),
			natCase("tunnel-unreachable-"+v.name, "nothing to learn from", in(errorAbout(k[1], about, router, eth0MAC, 0)).dropped(stats.NoFlow)),
		)
	}
	return append(cases, spreadCases()...)
}

// spreadCases are errors about tunnels whose source depends on the flow.
func spreadCases() []goldenCase {
	var cases []goldenCase
	for _, v := range []struct {
		name   string
		vip    netip.Addr
		slot   uint32
		proto  uint8
		router netip.AddrPort
		source string // one that the tunnel can have
		not    string // the nearest that it cannot
	}{
		{"4", vipSpread4, 9, packet.ProtoIPv4, brouter4, "10.0.255.255", "10.1.0.0"},
		{"6", vipSpread6, 10, packet.ProtoIPv6, brouter6, "fd00::ffff:ffff", "fd00::1:0:0"},
	} {
		about := packettest.Spec{
			Dst: netip.AddrPortFrom(tunnelTo(v.slot, v.vip.Is6()).Destination, 0), Proto: v.proto, Payload: packettest.Frame(to(v.vip))[14:],
		}
		from := func(source string) []byte {
			about.Src = netip.AddrPortFrom(netip.MustParseAddr(source), 0)
			return errorAbout(errorKinds()[0], about, v.router, eth0MAC, 0)
		}
		cases = append(cases, natCase("tunnel-mtu-spread"+v.name, "the source is one of many, and one besides them is none of weir's",
			in(from(v.source)), in(from(v.not)).dropped(stats.NoFlow)))
	}
	return cases
}

// errorNATCases are ICMP errors about flows of NAT, both ways.
func errorNATCases() []goldenCase {
	frame := packettest.Frame
	var cases []goldenCase
	for _, v := range natVariants() {
		syn, udp := to(v.vip), udpTo(v.vip)
		open := steps(0, frame(syn), frame(udp))
		with := func(more ...step) []step { return append(append([]step(nil), open...), more...) }
		for _, k := range errorKinds() {
			cases = append(cases,
				natCase("error-"+k.name+"-"+v.name, "an error about an answer is the backend's, and speaks of what that has sent",
					with(in(toClientFailed(k, syn, 0)), in(toClientFailed(k, udp, 0)))...),
				natCase("error-"+k.name+"-behind-"+v.name, "an error about a client's packet is the client's, and speaks of what that has sent",
					with(back(toBackendFailed(k, syn, 0)), back(toBackendFailed(k, udp, 0)))...),
			)
		}
		least := 28
		if v.vip.Is6() {
			least = 48
		}
		leastBehind := 28
		if natBackendOf(v.vip).addr.Is6() {
			leastBehind = 48
		}
		k := errorKinds()[0]
		cases = append(cases,
			natCase("error-least-"+v.name, "routers that quote no more than they must",
				with(in(toClientFailed(k, syn, least)), back(toBackendFailed(k, syn, leastBehind)))...),
			natCase("error-unknown-"+v.name, "about no flow that there is",
				in(toClientFailed(k, syn, 0)).dropped(stats.NoFlow), back(toBackendFailed(k, syn, 0)).dropped(stats.NoFlow)),
		)
	}
	source := errorKinds()[0]
	source.code4 = 14                        // host precedence violation
	behind := turned(answerTo(to(vipKeep4))) // from the client, whose address was left
	return append(cases,
		natCase("error-other-keep4", "who is told is not who has sent it", in(frame(to(vipKeep4))),
			back(errorTo(notVIP4, errorKinds()[0], behind, brouter4, eth1MAC, 0)).dropped(stats.NoFlow)),
		natCase("error-untranslatable-nat46", "an error that IPv6 has no words for (RFC 7915 section 4.2)",
			append(steps(0, frame(to(vipNAT46))), in(toClientFailed(source, to(vipNAT46), 0)).dropped(stats.Untranslatable))...),
	)
}

package forward_test

import (
	"encoding/binary"
	"net/netip"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/stats"
)

// dropCases are valid frames that weir does not forward.
func dropCases() []goldenCase {
	frame := packettest.Frame
	proto := func(vip netip.Addr, proto uint8, payload []byte) []byte {
		return frame(with(to(vip), func(s *packettest.Spec) { s.Proto, s.Payload = proto, payload }))
	}
	port := func(s packettest.Spec, port uint16) packettest.Spec {
		s.Dst = netip.AddrPortFrom(s.Dst.Addr(), port)
		return s
	}
	inner4, inner6 := frame(to(vipDSR4))[14:], frame(to(vipDSR6))[14:]

	var cases []goldenCase
	for _, v := range []struct {
		name string
		vip  netip.Addr
		not  netip.Addr
	}{{"4", vipDSR4, notVIP4}, {"6", vip6in6, notVIP6}} {
		cases = append(cases,
			one("unknown-vip"+v.name, "the address is not one of ours, any more perhaps", stats.UnknownVIP, frame(to(v.not))),
			one("no-port"+v.name, "nobody serves the port", stats.NoService, frame(port(to(v.vip), 81))),
			one("no-protocol"+v.name, "the port is served by TCP, not by UDP", stats.NoService, frame(port(udpTo(v.vip), 80))),
			one("foreign-mac"+v.name, "the switch floods, or the NIC is promiscuous", stats.ForeignMAC,
				toMAC(frame(to(v.vip)), otherMAC)),
			one("broadcast"+v.name, "a packet for one address to all stations", stats.ForeignMAC,
				toMAC(frame(to(v.vip)), packet.BroadcastMAC())),
			one("gre"+v.name, "neither TCP nor UDP nor ICMP", stats.UnhandledProtocol,
				proto(v.vip, packet.ProtoGRE, []byte{0, 0, 8, 0})),
			one("tunnelled4in"+v.name, "a loop, or somebody's mistake", stats.Tunnelled, proto(v.vip, packet.ProtoIPv4, inner4)),
			one("tunnelled6in"+v.name, "a loop, or somebody's mistake", stats.Tunnelled, proto(v.vip, packet.ProtoIPv6, inner6)),
		)
	}
	probe := func(from netip.Addr, ttl uint8, s packettest.Spec) packettest.Spec {
		s.Src, s.TTL = netip.AddrPortFrom(from, 4000), ttl
		return s
	}
	for _, v := range []struct {
		name      string
		node, vip netip.Addr
	}{{"4", node4, vipDSR4}, {"6", node6, vip6in6}} {
		cases = append(cases,
			one("probe-stray"+v.name, "a check that a backend without the VIP has forwarded", stats.Looped,
				frame(probe(v.node, 254, to(v.vip)))),
			one("probe-stray-ping"+v.name, "nor is it answered", stats.Looped,
				packettest.EchoRequest(probe(v.node, 254, to(v.vip)), 1, 1)),
			sent("probe-direct"+v.name, "the node, and what is behind it, may be a client", frame(probe(v.node, 63, to(v.vip)))),
		)
	}
	return append(cases,
		one("no-backend", "every backend is down", stats.NoBackend, frame(to(vipEmpty))),
		one("unresolved", "there are backends, but no neighbour answers", stats.Unresolved, frame(udpTo(vipNoHop))),
		one("mapped-tcp", "an IPv4-mapped address in IPv6 is not the IPv4 VIP", stats.UnknownVIP,
			toMapped(frame(to(vipDSR6)))),
		one("mapped-echo", "nor for ping", stats.UnknownVIP,
			toMapped(packettest.EchoRequest(to(vipDSR6), 1, 1))),
		one("icmp4-in-6", "protocol 1 is not ICMP in IPv6", stats.UnhandledProtocol,
			proto(vipDSR6, packet.ProtoICMPv4, []byte{8, 0, 0, 0, 0, 0, 0, 0})),
		one("icmp6-in-4", "protocol 58 is not ICMP in IPv4", stats.UnhandledProtocol,
			proto(vipDSR4, packet.ProtoICMPv6, []byte{128, 0, 0, 0, 0, 0, 0, 0})),
		one("no-next", "IPv6 without a payload", stats.UnhandledProtocol, proto(vipDSR6, packet.ProtoNoNext, nil)),
		one("not-ip", "LLDP", stats.NotIP, lldp()),
	)
}

// toMapped changes the destination to the IPv4-mapped form of an IPv4 VIP.
func toMapped(frame []byte) []byte {
	dst := mappedDSR4.As16()
	copy(frame[14+24:], dst[:])
	return frame
}

func lldp() []byte {
	f := append([]byte{0x01, 0x80, 0xc2, 0, 0, 0x0e}, clientMAC[:]...)
	return append(f, 0x88, 0xcc, 2, 7, 4, 1, 2, 3, 4, 5, 6, 0, 0)
}

// brokenCases are frames that contradict themselves or a standard.
func brokenCases() []goldenCase {
	frame := packettest.Frame
	bytes4 := func(change func(ip []byte)) []byte {
		f := frame(to(vipDSR4))
		change(f[14:])
		return f
	}
	bytes6 := func(change func(ip []byte)) []byte {
		f := frame(to(vipDSR6))
		change(f[14:])
		return f
	}
	stacked := frame(with(to(vipDSR4), func(s *packettest.Spec) { s.VLAN = 9 }))
	binary.BigEndian.PutUint16(stacked[16:], packet.EtherTypeVLAN)
	service := frame(with(to(vipDSR4), func(s *packettest.Spec) { s.VLAN = 9 }))
	binary.BigEndian.PutUint16(service[12:], packet.EtherTypeQinQ)
	routed := frame(with(to(vipDSR6), func(s *packettest.Spec) { s.Extensions = []uint8{packet.ProtoRouting} }))
	routed[14+40+3] = 1
	udpLong := frame(udpTo(vipDSR4))
	udpLong[14+20+5]++
	return []goldenCase{
		one("short-ethernet", "13 bytes", stats.Truncated, frame(to(vipDSR4))[:13]),
		one("short-tag", "a tag cut short", stats.Truncated, stacked[:17]),
		one("short-ip4", "IPv4 cut short", stats.Truncated, frame(to(vipDSR4))[:14+19]),
		one("short-ip6", "IPv6 cut short", stats.Truncated, frame(to(vipDSR6))[:14+39]),
		one("short-tcp4", "less than the IP length says", stats.Truncated, frame(to(vipDSR4))[:14+39]),
		one("short-tcp6", "less than the IP length says", stats.Truncated, frame(to(vipDSR6))[:14+59]),
		one("short-icmp4", "no room for an echo's identifier", stats.Truncated, frame(with(to(vipDSR4),
			func(s *packettest.Spec) { s.Proto, s.Payload = packet.ProtoICMPv4, []byte{8, 0, 0xf7, 0xff} }))),
		one("short-icmp6", "no room for an echo's identifier", stats.Truncated, frame(with(to(vipDSR6),
			func(s *packettest.Spec) { s.Proto, s.Payload = packet.ProtoICMPv6, []byte{128, 0, 0, 0} }))),
		one("version4", "IPv4 that says it is version 5", stats.Malformed, bytes4(func(ip []byte) { ip[0] = 0x55 })),
		one("version6", "IPv6 that says it is version 4", stats.Malformed, bytes6(func(ip []byte) { ip[0] = 0x40 })),
		one("header-length", "an IPv4 header of 16 bytes", stats.Malformed, bytes4(func(ip []byte) { ip[0] = 0x44 })),
		one("tcp-offset", "a TCP header of 16 bytes", stats.Malformed, bytes4(func(ip []byte) { ip[20+12] = 0x40 })),
		one("udp-length", "UDP longer than what IP carries", stats.Malformed, udpLong),
		one("ip-checksum", "a flipped bit", stats.BadChecksum, bytes4(func(ip []byte) { ip[8] ^= 1 })),
		one("stacked-vlan", "a tag within a tag", stats.StackedVLAN, stacked),
		one("service-vlan", "a service tag", stats.StackedVLAN, service),
		one("source-routed", "a routing header with a segment left", stats.ExtensionHeaders, routed),
		one("many-extensions", "nine extension headers", stats.ExtensionHeaders, frame(with(to(vipDSR6),
			func(s *packettest.Spec) {
				for range 9 {
					s.Extensions = append(s.Extensions, packet.ProtoDestOptions)
				}
			}))),
	}
}

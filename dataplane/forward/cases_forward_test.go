package forward_test

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"weir/dataplane/packet"
	"weir/dataplane/packet/packettest"
	"weir/dataplane/stats"
)

// one is a case of a single frame.
func one(name, why string, drop stats.Reason, frame []byte) goldenCase {
	return goldenCase{name: name, why: why, steps: []step{in(frame).dropped(drop)}}
}

// sent is a case of frames that are all sent.
func sent(name, why string, frames ...[]byte) goldenCase {
	c := goldenCase{name: name, why: why}
	for _, f := range frames {
		c.steps = append(c.steps, in(f))
	}
	return c
}

func extensions(s *packettest.Spec) {
	s.Extensions = []uint8{
		packet.ProtoHopByHop, packet.ProtoRouting, packet.ProtoFragment, packet.ProtoDestOptions,
	}
}

// shortUDP makes the UDP length one less than what IP carries. The payload's
// last byte is zero, so the sum stays right but for the length, twice.
func shortUDP(frame []byte) []byte {
	udp := frame[14+20:]
	binary.BigEndian.PutUint16(udp[4:], binary.BigEndian.Uint16(udp[4:])-1)
	sum := uint32(binary.BigEndian.Uint16(udp[6:])) + 2
	binary.BigEndian.PutUint16(udp[6:], uint16(sum+sum>>16))
	return frame
}

func dsrCases() []goldenCase {
	frame := packettest.Frame
	ack := func(s *packettest.Spec) { s.TCPFlags, s.Payload = packet.TCPAck, []byte("GET /") }
	return []goldenCase{
		sent("dsr4-tcp", "a connection: the MACs change and nothing else; one flow",
			frame(to(vipDSR4)), frame(with(to(vipDSR4), ack)), frame(with(to(vipDSR4), ack))),
		sent("dsr4-udp", "two flows, told apart by the port",
			frame(udpTo(vipDSR4)), frame(with(udpTo(vipDSR4), func(s *packettest.Spec) { s.Src = client4b() }))),
		sent("dsr6-tcp", "as dsr4-tcp", frame(to(vipDSR6)), frame(with(to(vipDSR6), ack))),
		sent("dsr6-udp", "as dsr4-udp, one flow", frame(udpTo(vipDSR6))),
		sent("dsr4-last-hop", "a switch takes no hop, so TTL 1 goes through",
			frame(with(to(vipDSR4), func(s *packettest.Spec) { s.TTL = 1 }))),
		sent("dsr4-options", "IPv4 and TCP options are left alone",
			frame(with(to(vipDSR4), func(s *packettest.Spec) { s.IPOptions, s.TCPOptions = 10, true }))),
		sent("dsr6-extensions", "IPv6 extension headers before TCP, an atomic fragment among them, are left alone",
			frame(with(to(vipDSR6), extensions))),
		sent("dsr4-udp-no-checksum", "a UDP checksum of zero is none, and stays that",
			frame(with(udpTo(vipDSR4), func(s *packettest.Spec) { s.NoUDPChecksum = true }))),
		sent("dsr4-udp-short", "UDP may be shorter than what IP carries",
			shortUDP(frame(with(udpTo(vipDSR4), func(s *packettest.Spec) { s.Payload = []byte("question\x00") })))),
		sent("dsr4-padded", "Ethernet padding stays with the frame",
			frame(with(to(vipDSR4), func(s *packettest.Spec) { s.Padding = 6 }))),
		sent("dsr4-tagged-in", "the tag it came with goes, the next hop's link has none",
			frame(with(to(vipDSR4), func(s *packettest.Spec) { s.VLAN, s.Priority = 9, 5 }))),
		sent("dsr4-tagged-out", "the next hop is on VLAN 7", frame(to(vipTagged))),
		sent("dsr4-tagged-both", "from VLAN 9 to VLAN 7",
			frame(with(to(vipTagged), func(s *packettest.Spec) { s.VLAN, s.Priority = 9, 5 }))),
		sent("dsr4-priority-tag", "VLAN ID 0 is no VLAN", priorityTagged()),
		sent("dsr4-eth1", "the next hop is on the other interface", frame(to(vipEth1))),
		sent("dsr4-reset", "a reset is forwarded, but nothing follows it, so it makes no flow",
			frame(with(to(vipDSR4), func(s *packettest.Spec) { s.TCPFlags = packet.TCPRst }))),
		sent("dsr4-largest", "a packet of just the MTU",
			frame(with(to(vipDSR4), func(s *packettest.Spec) { s.Payload = make([]byte, 1500-40) }))),
		sent("dsr4-too-big", "one byte more than the MTU, from a sender that does not mind",
			frame(with(to(vipDSR4), func(s *packettest.Spec) { s.Payload = make([]byte, 1500-40+1) }))),
		sent("giant", "the longest packet that IPv4 has",
			frame(with(to(vipDSR4), func(s *packettest.Spec) { s.Payload = make([]byte, 65535-40) }))),
		one("dsr4-looped", "the backend is another balancer, and this one is that one's backend", stats.Looped,
			fromMAC(frame(udpTo(vipDSR4)), backendMAC(0))),
		one("dsr6-looped", "the same for IPv6", stats.Looped, fromMAC(frame(to(vipDSR6)), backendMAC(1))),
		one("dsr4-looped-tagged", "back into another VLAN is back to the same station", stats.Looped,
			fromMAC(frame(to(vipTagged)), backendMAC(6))),
		one("dsr4-looped-eth1", "back by another interface, too", stats.Looped,
			fromMAC(frame(to(vipEth1)), backendMAC(8))),
		sent("dsr4-other-backend", "a backend may be another VIP's client", fromMAC(frame(to(vipDSR4)), backendMAC(1))),
		sent("jumbo", "the next hop's MTU is 9000",
			frame(with(to(vipEth1), func(s *packettest.Spec) { s.Payload = make([]byte, 9000-40) }))),
	}
}

// priorityTagged returns a frame with a tag that has VLAN ID 0, which the
// builder takes for none.
func priorityTagged() []byte {
	f := packettest.Frame(with(to(vipDSR4), func(s *packettest.Spec) { s.VLAN, s.Priority = 1, 6 }))
	f[15] = 0
	return f
}

func ipipCases() []goldenCase {
	frame := packettest.Frame
	far := in(frame(with(to(vip4in4), func(s *packettest.Spec) { s.TTL = 1 })))
	limited := goldenCase{name: "ipip-4in4-ttl-limited", why: "who goes on is not told for ever",
		before: slices.Repeat([]step{far}, 20), steps: []step{far.dropped(stats.TTLExpired)}}
	var cases []goldenCase
	for _, v := range worldTunnels() {
		payload := func(n int) func(*packettest.Spec) {
			return func(s *packettest.Spec) { s.Payload = make([]byte, n) }
		}
		headers := 40 + v.overhead
		if v.vip.Is6() {
			headers += 20
		}
		cases = append(cases,
			sent("ipip-"+v.name+"-tcp", "an outer header; the inner TTL goes down by one; one flow",
				frame(to(v.vip)), frame(with(to(v.vip), func(s *packettest.Spec) { s.TCPFlags = packet.TCPAck }))),
			sent("ipip-"+v.name+"-udp", "the same for UDP", frame(udpTo(v.vip))),
			sent("ipip-"+v.name+"-class", "the traffic class is copied outward, congestion included",
				frame(with(to(v.vip), func(s *packettest.Spec) { s.TOS = 0xbb }))),
			sent("ipip-"+v.name+"-padded", "Ethernet padding is no part of the inner packet",
				frame(with(to(v.vip), func(s *packettest.Spec) { s.Padding = 20 }))),
			sent("ipip-"+v.name+"-tagged", "the tag it came with goes",
				frame(with(to(v.vip), func(s *packettest.Spec) { s.VLAN = 9 }))),
			sent("ipip-"+v.name+"-hairpin", "client and backend are behind the same gateway",
				fromMAC(frame(to(v.vip)), backendMAC(v.slot))),
			sent("ipip-"+v.name+"-largest", "together with the outer header just the MTU",
				frame(with(to(v.vip), payload(1500-headers)))),
			sent("ipip-"+v.name+"-too-big", "together with the outer header one byte more than the MTU",
				frame(with(to(v.vip), payload(1500-headers+1)))),
			sent("ipip-"+v.name+"-ttl", "a router may not send it on with TTL 0; the sender is told",
				frame(with(to(v.vip), func(s *packettest.Spec) { s.TTL = 1 }))),
		)
	}
	return append(cases, limited,
		one("ipip-4in4-ttl-nobody", "nobody can be told", stats.TTLExpired, frame(with(to(vip4in4), func(s *packettest.Spec) {
			s.TTL, s.Src = 1, netip.MustParseAddrPort("127.0.0.1:1234")
		}))),
		sent("ipip-4in4-options", "inner IPv4 options stay, the checksum over them is kept right",
			frame(with(to(vip4in4), func(s *packettest.Spec) { s.IPOptions, s.DontFragment = 3, true }))),
		sent("ipip-6in6-extensions", "inner extension headers stay", frame(with(to(vip6in6), extensions))),
		sent("ipip-6in4-extensions", "inner extension headers stay", frame(with(to(vip6in4), extensions))),
		sent("ipip-4in4-no-checksum", "an inner UDP checksum of zero stays",
			frame(with(udpTo(vip4in4), func(s *packettest.Spec) { s.NoUDPChecksum = true }))),
		sent("ipip-4in4-spread", "two flows have two outer sources",
			frame(udpTo(vipSpread4)), frame(with(udpTo(vipSpread4), func(s *packettest.Spec) { s.Src = client4b() }))),
		sent("ipip-6in6-spread", "the outer source ends in the flow's hash", frame(udpTo(vipSpread6))),
		sent("ipip-6in6-tagged-out", "the next hop is on VLAN 7", frame(to(vipTagged6))),
	)
}
